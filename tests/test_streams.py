# SPDX-License-Identifier: Apache-2.0
"""The four programs as processes: a reader that goes away, a full disk, closed streams, odd locales, narrow terminals."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.bytecode import BYTECODE

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[1]
HELP = {"nvrc": "nvrc", "guest-cdi": "guest_cdi", "nvrc-image": "nvrc_build", "nvrc-lab": "nvrc_lab"}
# A command that prints, of each program that has one without an input.
PRINTS = {"nvrc": ("nvrc", "explain", "E_GPU_ATTACH"), "nvrc-image": ("nvrc_build", "check"), "nvrc-lab": ("nvrc_lab", "list")}
COMMANDS = [*(pytest.param((module, "--help"), id=f"{name} --help") for name, module in HELP.items()),
            *(pytest.param(words, id=f"{name} {words[1]}") for name, words in PRINTS.items())]
LOCALES = {
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "POSIX, narrow": {"LC_ALL": "POSIX", "COLUMNS": "40", "NO_COLOR": "1"},
    "not installed, narrower": {"LC_ALL": "xx_YY.UTF-8", "LANG": "xx_YY.UTF-8", "COLUMNS": "1", "TERM": "dumb"},
    "ASCII alone": {"PYTHONIOENCODING": "ascii"},
}


def call(words: tuple[str, ...], *, stdout: int | None = subprocess.PIPE, prelude: str = "",
         **variables: str) -> subprocess.CompletedProcess[str]:
    """`prelude` is of a shell: what it redirects, the program gets."""
    path = os.pathsep.join(str(ROOT / name) for name in (".", "build", "qemu-tests"))
    argv = ["/bin/sh", "-c", f'exec "$@" {prelude}', "sh", sys.executable, "-m", *words]
    kept = {"PATH": os.environ["PATH"], **BYTECODE, "PYTHONPATH": path}
    return subprocess.run(argv, cwd=ROOT, env={**kept, **variables}, stdin=subprocess.DEVNULL, stdout=stdout,
                          stderr=subprocess.PIPE, text=True, check=False, timeout=60)


@pytest.mark.parametrize("variables", [pytest.param(row, id=name) for name, row in LOCALES.items()])
@pytest.mark.parametrize("words", COMMANDS)
def test_locale_and_width_change_no_answer(words: tuple[str, ...], variables: dict[str, str]) -> None:
    done = call(words, **variables)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("words", COMMANDS)
def test_a_reader_that_went_away_is_no_defect(words: tuple[str, ...], unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = call(words, stdout=writer, PYTHONUNBUFFERED=unbuffered)
    finally:
        os.close(writer)
    said = "guest-cdi: error: standard output took no more: Broken pipe\n" if words[0] == "guest_cdi" else ""
    assert done.stderr == said
    assert done.returncode == 1


HELPS = [pytest.param((module, *words, "--help"), id=f"{name} {' '.join(words)} --help") for name, module, words in (
    ("nvrc", "nvrc", ("plan",)), ("nvrc", "nvrc", ("params", "check")), ("guest-cdi", "guest_cdi", ("generate",)),
    ("guest-cdi", "guest_cdi", ("validate",)), ("nvrc-image", "nvrc_build", ("build",)), ("nvrc-lab", "nvrc_lab", ("boot",)))]


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("words", [*COMMANDS, *HELPS])
def test_a_full_disk_is_told_in_one_line(words: tuple[str, ...], unbuffered: str) -> None:
    done = call(words, prelude=">/dev/full", PYTHONUNBUFFERED=unbuffered)
    assert done.returncode in (1, 2)
    assert done.stderr.count("\n") == 1
    assert "No space left on device" in done.stderr


@pytest.mark.parametrize("words", COMMANDS)
def test_closed_streams_change_no_status(words: tuple[str, ...]) -> None:
    done = call(words, prelude="<&- >&-")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_letter_that_the_locale_lacks_is_spelled_out() -> None:
    text = "from nvrc.vocabulary.manners import prepare_streams; prepare_streams(); print('\\u2713 ok')"
    done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, env={"PYTHONIOENCODING": "ascii"}, capture_output=True,
                          check=True)
    assert done.stdout == b"\\u2713 ok\n"
