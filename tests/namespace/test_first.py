# SPDX-License-Identifier: Apache-2.0
"""The program that /init leads to: what it starts, with what, and what it says when it cannot.

It runs in a root of its own, with a frozen init made for the test that prints all it was given.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from nvrc.vocabulary.errors import BY_CODE
from nvrc.vocabulary.paths import LAST
from nvrc.vocabulary.transcript import parse_line
from nvrc.vocabulary.trouble import Trouble
from nvrc_build.supply.compile import FREESTANDING
from nvrc_build.tree.elf import read_needs

ROOT = Path(__file__).resolve().parents[2]
INIT = "usr/lib/nvrc/nvrc"
# As PID 1 of a namespace, a power-off is death by SIGINT (reboot(2)).
AS_INIT = ("unshare", "--pid", "--fork", "--kill-child=SIGKILL")
HOSTILE = {
    "LD_PRELOAD": "/dev/vdb", "LD_AUDIT": "/dev/vdb", "LD_LIBRARY_PATH": "/dev", "LD_DEBUG": "all",
    "GLIBC_TUNABLES": "glibc.malloc.check=3", "LOCPATH": "/dev", "GCONV_PATH": "/dev", "PYTHONHOME": "/dev",
    "PYTHONPATH": "/dev/vdb", "PYTHONINSPECT": "1", "_PYI_ARCHIVE_FILE": "/dev/vdb", "_PYI_APPLICATION_HOME_DIR": "/dev",
    "_PYI_PARENT_PROCESS_LEVEL": "1", "PYINSTALLER_RESET_ENVIRONMENT": "1", "PATH": "/dev", "HOME": "/", "TERM": "linux",
    "MALLOC_TRACE": "/dev/vdb",
}

pytestmark = [
    pytest.mark.namespace,
    pytest.mark.skipif(os.geteuid() != 0, reason="changes its root: needs root"),
]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`first` as the factory makes it, but with the compiler of this machine, and the stand-in `init`."""
    folder = tmp_path_factory.mktemp("programs")
    subprocess.run(["gcc", *FREESTANDING, "-o", folder / "first", ROOT / "nvrc/first.c"], check=True)
    subprocess.run(["gcc", "-O1", "-static", "-Wall", "-Wextra", "-Werror", "-o", folder / "init",
                    Path(__file__).parent / "programs/given.c"], check=True)
    return folder


@pytest.fixture
def root(tmp_path: Path, programs: Path) -> Path:
    """A guest whose /init is the first program, and without a frozen init."""
    for folder in ("usr/lib/nvrc", "dev"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "init").hardlink_to(programs / "first")
    (tmp_path / LAST.lstrip("/")).write_text("all is here\n", encoding="ascii")
    return tmp_path


# What the kernel does: the environment is the line's, and descriptors are there only if a console could be opened.
ENTER = """
import json, os, sys
root, order = sys.argv[1], json.loads(sys.argv[2])
os.chroot(root)
os.chdir("/")
if order["closed"]:
    os.closerange(0, 3)
os.execve("/init", order["words"], order["env"])
"""


def start(root: Path, *words: str, before: tuple[str, ...] = (), env: Mapping[str, str] | None = None,
          closed: bool = False) -> subprocess.CompletedProcess[str]:
    order = json.dumps({"words": ["/init", *words], "env": dict(env or {}), "closed": closed})
    return subprocess.run([*before, sys.executable, "-I", "-S", "-c", ENTER, root, order], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, check=False, timeout=20)


@pytest.mark.parametrize("before", [(), AS_INIT], ids=["a command", "PID 1"])
def test_nothing_of_the_kernels_words_gets_to_the_init(root: Path, programs: Path, before: tuple[str, ...]) -> None:
    (root / INIT).hardlink_to(programs / "init")
    done = start(root, "single", "-c", "import os", before=before, env=HOSTILE)
    assert done.stdout.splitlines() == [f"argument /{INIT}"]
    assert (done.stderr, done.returncode) == ("", 7)


def test_the_stand_in_tells_what_it_is_given(root: Path, programs: Path) -> None:
    (root / "init").unlink()
    (root / "init").hardlink_to(programs / "init")
    done = start(root, "single", env={"LD_PRELOAD": "/dev/vdb"})
    assert done.stdout.splitlines() == ["argument /init", "argument single", "environment LD_PRELOAD=/dev/vdb"]


FAILURES = {
    "no init": (None, 2),
    "init is no program": ("text", 8),
    "init is not executable": ("mode", 13),
    "init is a folder": ("folder", 13),
    "init leads in a circle": ("circle", 40),
}


@pytest.mark.parametrize(("what", "number"), FAILURES.values(), ids=FAILURES)
def test_an_init_that_cannot_be_executed_is_one_fatal_line(root: Path, what: str | None, number: int) -> None:
    spoil(root / INIT, what)
    done = start(root)
    line = parse_line(done.stderr.removesuffix("\n"))
    row = BY_CODE["E_INIT_EXEC"]
    assert line == Trouble(code=row.code, step=row.step, hint=row.remedy,
                           what=f"cannot execute /{INIT}: errno {number}")
    assert (done.stdout, done.returncode) == ("", 1)


def spoil(path: Path, what: str | None) -> None:
    match what:
        case "text":
            path.write_text("no program\n", encoding="ascii")
            path.chmod(0o755)
        case "mode":
            path.touch(0o644)
        case "folder":
            path.mkdir()
        case "circle":
            path.symlink_to(path.name)


@pytest.mark.parametrize(("state", "number"), [("missing", 2), ("empty", 0), ("a folder", 21)])
def test_a_root_that_was_not_unpacked_whole_is_not_started(root: Path, programs: Path, state: str, number: int) -> None:
    """Where there is no more room the kernel still makes the file, and leaves it empty."""
    (root / INIT).hardlink_to(programs / "init")
    last = root / LAST.lstrip("/")
    last.unlink()
    if state == "empty":
        last.touch()
    elif state == "a folder":
        last.mkdir()
    done = start(root)
    row = BY_CODE["E_INITRD"]
    assert parse_line(done.stderr.removesuffix("\n")) == Trouble(
        code=row.code, step=row.step, hint=row.remedy, what=f"cannot read {LAST}, which the kernel unpacks last: errno {number}")
    assert (done.stdout, done.returncode) == ("", 1)


def test_as_pid_1_it_then_powers_off(root: Path) -> None:
    done = start(root, before=AS_INIT)
    assert "code=E_INIT_EXEC" in done.stderr
    assert done.returncode in (-2, 128 + 2), done.returncode  # unshare dies of the same signal, or tells it


@pytest.mark.parametrize("place", ["console", "kmsg"])
def test_without_standard_error_it_finds_another_way_to_the_console(root: Path, place: str) -> None:
    (root / "dev" / place).touch()
    done = start(root, closed=True)
    assert "code=E_INIT_EXEC" in (root / "dev" / place).read_text(encoding="ascii")
    assert done.returncode == 1


def test_it_ends_where_there_is_no_console_at_all(root: Path) -> None:
    assert start(root, closed=True).returncode == 1


def test_it_is_its_source_and_nothing_else(programs: Path) -> None:
    data = (programs / "first").read_bytes()
    needs = read_needs(data, "/init")
    assert needs is not None
    assert (needs.libraries, needs.interpreter, needs.run_path) == ((), "", ())
    assert len(data) < 4096
    assert read_needs(Path(sys.executable).read_bytes(), "/init").interpreter  # type: ignore[union-attr]  # the reader can tell
    for trace in (b"GCC", b"/nvrc/first.c", b"build-id", b"libc"):
        assert trace not in data
