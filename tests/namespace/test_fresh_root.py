# SPDX-License-Identifier: Apache-2.0
"""A root entered as `./dev fresh` does it: a tiny one, of a shell and two programs. What ends it, ends all of it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nvrc_lab.fresh.__main__ import enter

pytestmark = [pytest.mark.namespace, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root")]

LAB = Path(__file__).resolve().parents[2] / "qemu-tests"
ENV = {"PATH": "/bin", "GREETING": "hello"}
# No other process sleeps for so long: how a test finds its own.
NAP = f"86{os.getpid():07}"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fresh") / "root"
    for name in ("bin", "dev", "proc", "run", "sys", "tmp", "place"):
        (folder / name).mkdir(parents=True)
    for program in ("dash", "sleep"):
        path = Path(str(shutil.which(program)))
        shutil.copy(path, folder / "bin" / ("sh" if program == "dash" else program))
        for library in re.findall(r"(?:=> )?(/\S+) \(", subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout):
            (folder / library.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, folder / library.lstrip("/"))
    (folder / "bin/plain").touch(0o644)
    return folder


def shell(root: Path, script: str) -> int:
    return enter(root, ["sh", "-c", script], ENV, cwd="/place", patience_s=1.0)


def naps() -> list[int]:
    """Processes of this machine, in whatever namespace, that were told to sleep as long as NAP."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:2] == [b"sleep", NAP.encode()]:
            found.append(int(path.parent.name))
    return found


def eventually(holds: Callable[[], bool], patience_s: float = 20.0) -> bool:
    deadline = time.monotonic() + patience_s
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


STATUS = {
    "good": (["sh", "-c", "exit 0"], 0), "own": (["sh", "-c", "exit 7"], 7), "killed": (["sh", "-c", "kill -9 $$"], 137),
    "no-such-command": (["gone"], 127), "no-program": (["plain"], 126), "by-path": (["/bin/sh", "-c", "exit 3"], 3),
}


@pytest.mark.parametrize(("argv", "expected"), STATUS.values(), ids=STATUS)
def test_the_status_is_the_commands(root: Path, argv: list[str], expected: int) -> None:
    assert enter(root, argv, ENV, cwd="/place") == expected


def test_a_folder_that_is_none_is_told_in_a_line(root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert enter(tmp_path / "none", ["sh"], ENV) == 126
    told = capfd.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith(f"fresh: mount {tmp_path / 'none'} on {tmp_path / 'none'}: No such file or directory; ")


def test_inside_is_the_root_and_nothing_of_the_machine_but_devices(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert shell(root, "echo $$ $GREETING $PWD; echo /*; echo /run/*; echo /dev/shm/*; echo x >/dev/null") == 0
    lines = capfd.readouterr().out.splitlines()
    assert "2 hello /place" in lines
    names = next(line for line in lines if line.startswith("/bin "))
    assert {"/bin", "/dev", "/proc", "/run", "/sys", "/tmp", "/place"} <= set(names.split())
    assert not {"/home", "/root", "/usr/share", "/boot"} & set(names.split())
    assert "/run/*" in lines
    assert "/dev/shm/*" in lines


def test_mounts_and_processes_of_the_machine_are_not_seen(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert shell(root, "while read -r a b c d where rest; do echo at $where; done </proc/self/mountinfo; echo pids /proc/[0-9]*") == 0
    lines = capfd.readouterr().out.splitlines()
    places = {line.split()[1] for line in lines if line.startswith("at ")}
    assert {place for place in places if not re.match(r"/(proc|run)?$|/(dev|sys)(/|$)", place)} == set()
    assert [line for line in lines if line.startswith("pids")] == ["pids /proc/1 /proc/2"]


def test_what_the_command_leaves_running_ends_with_it(root: Path) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    assert shell(root, f"sleep {NAP} & sleep {NAP} & exit 5") == 5
    assert eventually(lambda: naps() == [])
    assert Path("/proc/self/mountinfo").read_text() == before


ENTER = """
import sys
from pathlib import Path
from nvrc_lab.fresh import __main__ as fresh
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what a shell starts in the background
signal.signal(signal.SIGTERM, fresh._raise_interrupt)
try:
    fresh.enter(Path(sys.argv[1]), ["sh", "-c", sys.argv[2]], {"PATH": "/bin"}, cwd="/place", patience_s=1.0)
except KeyboardInterrupt:
    sys.exit(130)
"""
STUBBORN = f"trap '' TERM INT HUP; echo up; sleep {NAP} & sleep {NAP}"
ENDS = {
    "ctrl-c": (f"echo up; sleep {NAP}", signal.SIGINT, 130), "ctrl-c-that-nobody-heeds": (STUBBORN, signal.SIGINT, 130),
    "sigterm": (f"echo up; sleep {NAP}", signal.SIGTERM, 130), "sigterm-that-nobody-heeds": (STUBBORN, signal.SIGTERM, 130),
    "killed": (STUBBORN, signal.SIGKILL, -signal.SIGKILL),
}


@pytest.mark.parametrize(("script", "number", "status"), ENDS.values(), ids=ENDS)
def test_however_it_is_ended_nothing_stays(root: Path, script: str, number: int, status: int) -> None:
    argv = [sys.executable, "-c", ENTER, str(root), script]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL, start_new_session=True,
                          env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(LAB)}) as outside:
        assert outside.stdout is not None
        assert outside.stdout.readline() == "up\n"
        assert eventually(lambda: naps() != [])
        if number == signal.SIGINT:
            os.killpg(outside.pid, number)  # as a terminal does it
        else:
            outside.send_signal(number)
        assert outside.wait(30) == status
    assert eventually(lambda: naps() == [])
    assert str(root) not in Path("/proc/self/mountinfo").read_text()
