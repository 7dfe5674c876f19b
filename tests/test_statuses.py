# SPDX-License-Identifier: Apache-2.0
"""Exit statuses and refusals of every command of the four programs, found by walking their parsers.

0 and 1 of each are rows of tests/test_documents.py; here is what makes a call wrong: status 2, one sentence on standard
error, a document with --json, nothing on standard output.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from fakes.documents import walk_commands
from fakes.kata_images import make_image
from test_documents import MAINS

EVERY = [pytest.param(name, options, id=name) for name, options in walk_commands() if name != "guest-cdi hook"]
# Every word that chooses a command, with those before it.
WORDS = sorted({tuple(name.split()[:length]) for name, _ in walk_commands() for length in range(2, len(name.split()) + 1)})


def call(words: Sequence[str]) -> int:
    main: Callable[[Sequence[str]], int] = MAINS[words[0]]
    try:
        return main(list(words[1:]))
    except SystemExit as stop:
        assert isinstance(stop.code, int)
        return stop.code


@pytest.mark.parametrize(("name", "options"), EVERY)
def test_an_option_that_is_none_is_a_wrong_call(name: str, options: frozenset[str], capsys: pytest.CaptureFixture[str]) -> None:
    for more in ((), ("--json",)) if "--json" in options else ((),):
        assert call([*name.split(), "--no-such-option", *more]) == 2
        told = capsys.readouterr()
        assert told.out == ""
        if more:
            document = json.loads(told.err)
            assert (document["schema"], bool(document["what"])) == (1, True)
        else:
            assert "usage: " in told.err


def mistyped(word: str) -> str:
    """Its last two letters in the wrong order, or one of them missing where they are the same."""
    return word[:-2] + word[-1] + word[-2] if word[-1] != word[-2] else word[:-1]


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_a_typing_mistake_is_answered_with_the_command(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert call([*words[:-1], mistyped(words[-1])]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert f"did you mean {words[-1]}?" in told.err


@pytest.mark.parametrize(("words", "near"), [
    pytest.param("nvrc explain E_GPU_ATACH", "E_GPU_ATTACH", id="code"), pytest.param("nvrc explain nvrc.smi.lgx", "nvrc.smi.lgc", id="parameter"),
    pytest.param("nvrc explain persistencde", "persistenced", id="step"), pytest.param("nvrc params explain nvrc.lgo", "nvrc.log", id="params"),
    pytest.param("guest-cdi generate --mode nvlm", "nvml", id="mode"), pytest.param("nvrc-lab boot --accel tgc", "tcg", id="accel"),
    pytest.param("nvrc-lab explain gpu-8-nvswich", "gpu-8-nvswitch", id="scenario"), pytest.param("nvrc-image build nvida", "nvidia", id="image"),
    pytest.param("nvrc-image kata-config nvidia --runtime-class kata-qemu-nvidia-gup --out OUT", "kata-qemu-nvidia-gpu", id="runtime-class"),
    pytest.param("nvrc-image inspect nvdia --out OUT", "nvidia", id="built-image"),
    pytest.param("nvrc initdata make --as tmol x", "toml", id="form"),
])
def test_a_near_miss_of_a_name_or_value(words: str, near: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_image(tmp_path / "images", "nvidia")
    assert call([str(tmp_path) if word == "OUT" else word for word in words.split()]) == 2
    assert f"did you mean {near}?" in capsys.readouterr().err


def test_a_finding_a_difference_and_a_mistake_differ(capsys: pytest.CaptureFixture[str]) -> None:
    found = [call(words.split()) for words in (
        "nvrc params check nvrc.log=debug", "nvrc params check nvrc.lgo=debug", "nvrc params chekc nvrc.log=debug", "nvrc doctor /nonexistent",
        "nvrc-image diff nosuch other", "nvrc-image inspect nosuch", "nvrc-lab explain nosuch", "guest-cdi validate /nonexistent")]
    assert found == [0, 1, 2, 2, 2, 2, 2, 1]
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("words", [
    "nvrc-image kata-config nvidia --gpus -1", "nvrc-image kata-config nvidia --memory 16", "nvrc-image kata-config nvidia --extension gpu",
    "nvrc-image kata-config nvidia --name kata-x", "nvrc-image push nvidia HOST:x/y", "nvrc-image pull localhost:1/nvidia:1 -o new",
    "nvrc-image overlay nvidia /nonexistent -o new", "nvrc-image measure nvidia --firmware /nonexistent --vcpus 2",
    "nvrc-image measure nvidia --firmware /nonexistent --vcpus 3-1",
])
def test_a_value_that_cannot_be_is_a_wrong_call(words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_image(tmp_path / "images", "nvidia")
    assert call([*words.split(), "--out", str(tmp_path)]) == 2, capsys.readouterr().err
