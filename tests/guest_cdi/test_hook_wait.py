# SPDX-License-Identifier: Apache-2.0
"""wait-ready: what counts as the word of the machine's init, when the wait ends, and what is said when it ends in vain."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from guest_cdi.hooks import arguments
from guest_cdi.hooks.main import main
from guest_cdi.hooks.root import Root
from guest_cdi.hooks.wait import await_word, is_said
from guest_cdi.lean.errors import CdiError
from guest_cdi.lean.waiting import WORD

pytestmark = pytest.mark.usefixtures("process_state")


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    (tmp_path / "rootfs").mkdir()
    with Root(str(tmp_path / "rootfs")) as root:
        yield root


def publish(path: Path, content: bytes = WORD) -> None:
    scratch = path.with_name(".new")
    scratch.write_bytes(content)
    scratch.chmod(0o600)
    scratch.rename(path)


class Clock:
    """Time that goes on only when it is looked at."""

    def __init__(self, *moments: float) -> None:
        self.moments = list(moments)

    def __call__(self) -> float:
        return self.moments.pop(0) if len(self.moments) > 1 else self.moments[0]


def test_a_word_that_stands_there_holds_nobody_up(root: Root, tmp_path: Path) -> None:
    publish(tmp_path / "word")
    assert await_word(str(tmp_path / "word"), 60, root, Clock(5.0, 5.0)) == ["waited 0.0 s for the GPUs"]


def test_the_wait_ends_with_the_word_and_not_with_another_file(root: Root, tmp_path: Path) -> None:
    """Whichever comes first, the word or the wait for it."""
    def init() -> None:
        publish(tmp_path / "other")
        publish(tmp_path / "word", b"rea")
        publish(tmp_path / "word")

    speaker = threading.Thread(target=init)
    speaker.start()
    assert await_word(str(tmp_path / "word"), 600, root)
    speaker.join()


@pytest.mark.parametrize("clock", [Clock(0.0, 30.0), Clock(0.0, 29.999)], ids=["over already", "while waiting"])
def test_a_wait_in_vain_has_a_code(root: Root, tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(CdiError, match=r"the GPUs of this machine were not up within 30 s") as caught:
        await_word(str(tmp_path / "word"), 30, root, clock)
    assert caught.value.code == "E_CDI_NOT_READY"


def test_nothing_stays_open(root: Root, tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(CdiError):
        await_word(str(tmp_path / "word"), 30, root, Clock(0.0, 30.0))
    publish(tmp_path / "word")
    await_word(str(tmp_path / "word"), 30, root)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_half_a_word_is_none(tmp_path: Path) -> None:
    publish(tmp_path / "word", WORD[:-1])
    assert not is_said(str(tmp_path / "word"))
    publish(tmp_path / "word", WORD + b"\n")
    assert not is_said(str(tmp_path / "word"))


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_what_others_could_have_written_is_an_error(tmp_path: Path, mode: int) -> None:
    publish(tmp_path / "word")
    (tmp_path / "word").chmod(mode)
    with pytest.raises(CdiError, match="not a plain file that only this user may write"):
        is_said(str(tmp_path / "word"))


def test_a_fifo_does_not_block_the_hook(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "word", 0o600)
    with pytest.raises(CdiError, match="not a plain file"):
        is_said(str(tmp_path / "word"))


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    publish(tmp_path / "target")
    (tmp_path / "word").symlink_to("target")
    with pytest.raises(OSError, match="symbolic links"):
        is_said(str(tmp_path / "word"))


@pytest.mark.parametrize("words", [
    ("--seconds", "5"), ("--file", "relative", "--seconds", "5"), ("--file", "/x"), ("--file", "/x", "--seconds", "0"),
    ("--file", "/x", "--seconds", "-1"), ("--file", "/x", "--seconds", "86401"), ("--file", "/x", "--seconds", "one"),
    ("--file", "/x", "--file", "/y", "--seconds", "5"),
])
def test_what_the_command_line_must_say(words: tuple[str, ...]) -> None:
    with pytest.raises(CdiError) as caught:
        arguments.parse_calls(["wait-ready", *words])
    assert caught.value.code == "E_CDI_USAGE"


def test_the_program_from_its_command_line_to_its_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rootfs").mkdir()
    state = f'{{"bundle": "{tmp_path}", "root": "rootfs"}}'.encode()
    publish(tmp_path / "word")
    assert main(["wait-ready", "--file", str(tmp_path / "word"), "--seconds", "600"], io.BytesIO(state)) == 0
    assert main(["wait-ready", "--file", str(tmp_path / "gone/word"), "--seconds", "600"], io.BytesIO(state)) == 1
    assert "guest-cdi hook wait-ready: " in capsys.readouterr().err
