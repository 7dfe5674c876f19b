# SPDX-License-Identifier: Apache-2.0
"""How nvrc-image and nvrc-lab refuse: near misses, errors as documents, and statuses that tell a finding from a mistake."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import pytest

import nvrc
from nvrc_build.cli import main as image
from nvrc_lab.__main__ import main as lab
from nvrc_lab.__main__ import make_parser

Main = Callable[[Sequence[str]], int]


def status(main: Main, *argv: str) -> int:
    try:
        return main(argv)
    except SystemExit as stop:
        assert isinstance(stop.code, int)
        return stop.code


@pytest.mark.parametrize(("main", "word", "near"), [
    pytest.param(image, "biuld", "build", id="nvrc-image"), pytest.param(lab, "matirx", "matrix", id="nvrc-lab"),
])
def test_a_near_miss_is_answered_with_the_command(capsys: pytest.CaptureFixture[str], main: Main, word: str, near: str) -> None:
    assert status(main, word) == 2
    assert f"no command '{word}', did you mean {near}?" in capsys.readouterr().err


@pytest.mark.parametrize(("main", "argv", "found", "what"), [
    pytest.param(image, ("biuld", "--json"), 2, "no command 'biuld', did you mean build?", id="image command"),
    pytest.param(image, ("inspect", "--json"), 2, "the following arguments are required: image", id="image argument"),
    pytest.param(image, ("inspect", "nosuch", "--json"), 2, "there is no image 'nosuch'", id="image name"),
    pytest.param(lab, ("--json", "nothing-like-it"), 2, "unrecognized arguments: --json", id="lab option"),
    pytest.param(lab, ("explain", "gpu-11111", "--json"), 2, "no scenario 'gpu-11111'", id="lab name"),
])
def test_with_json_an_error_is_a_document(capsys: pytest.CaptureFixture[str], main: Main, argv: tuple[str, ...], found: int,
                                          what: str) -> None:
    assert status(main, *argv) == found
    told = capsys.readouterr()
    document = json.loads(told.err)
    assert told.out == ""
    assert set(document) == {"schema", "command", "code", "what", "hint", "findings"}
    assert (document["schema"], document["code"]) == (1, None)
    assert what in document["what"] or document["what"].startswith("no command 'nothing-like-it'; one of ")


@pytest.mark.parametrize(("main", "name"), [pytest.param(image, "nvrc-image", id="nvrc-image"), pytest.param(lab, "nvrc-lab", id="nvrc-lab")])
def test_the_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str], main: Main, name: str) -> None:
    assert status(main, "--version") == 0
    assert capsys.readouterr().out == f"{name} {nvrc.__version__}\n"


def test_a_typing_mistake_is_not_a_difference(capsys: pytest.CaptureFixture[str]) -> None:
    assert status(image, "diff", "nosuch", "other") == 2
    assert "there is no image" in capsys.readouterr().err


def test_every_command_of_the_lab_speaks_alike() -> None:
    assert type(make_parser()).__name__ == "Parser"
