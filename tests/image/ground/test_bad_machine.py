# SPDX-License-Identifier: Apache-2.0
"""A machine that fails a build: no network, a full disk, an interrupt, a killed build. Each in namespaces of its own.

Needs root. The archive is never asked: the first build has no network at all, the others link this checkout's packages.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fakes.lent_cache import lend, lend_debs

CHECKOUT = Path(__file__).resolve().parents[3]
CACHE = CHECKOUT / "out/cache"

pytestmark = pytest.mark.qemu


def command(out: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "nvrc_build", "build", "lab", "--out", str(out), *words]


def is_lent(kind: str) -> bool:
    """What these builds are not interrupted in: they unpack the packages and the tools, and make the image."""
    return kind not in ("package", "root-tools", "freeze", "bills") and not kind.startswith(("image-", "lab-"))


def unfinished(out: Path) -> list[Path]:
    return list((out / "cache/stages").glob(".unfinished-*"))


def test_without_a_network_a_build_from_nothing_says_what_it_wanted(tmp_path: Path) -> None:
    done = subprocess.run(["unshare", "--net", *command(tmp_path, "--mirror", "http://127.0.0.1:1/debian")],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "nvrc-image: reading the package lists of trixie failed" in done.stderr
    assert "127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "images").exists()


def test_a_full_disk_is_named_and_the_earlier_image_stays(tmp_path: Path) -> None:
    """A file system of 12 MB takes an image of an earlier build, and not the packages of the next."""
    script = (f"mount -t tmpfs -o size=12m none {tmp_path} && mkdir -p {tmp_path}/images/lab && "
              f"echo earlier >{tmp_path}/images/lab/initrd && mkdir -p {tmp_path}/cache && "
              f"ln -s {CACHE}/debs {tmp_path}/cache/debs && {{ {' '.join(command(tmp_path))}; echo status $?; "
              f"cat {tmp_path}/images/lab/initrd; ls -A {tmp_path}/cache/stages; }}")
    done = subprocess.run(["unshare", "--mount", "--propagation", "private", "dash", "-c", script],
                          capture_output=True, text=True, check=False, cwd=CHECKOUT)
    lines = done.stdout.splitlines()
    assert lines[:2] == ["status 1", "earlier"], done.stderr
    assert not [line for line in lines if line.startswith(".unfinished")]
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def interrupt(out: Path, number: signal.Signals, stage: str) -> tuple[int, str]:
    """Start a build and send it a signal as soon as a stage is finished; how it ended and what it said."""
    # Whoever runs the tests in the background may ignore SIGINT, and a child inherits that.
    argv = ["env", "--default-signal=INT", *command(out)]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=CHECKOUT,
                          text=True) as child:
        _wait_for(lambda: any((out / "cache/stages").glob(f"{stage}-*")), child)
        child.send_signal(number)
        _, said = child.communicate(timeout=30)
    assert not (out / "images").exists()
    assert str(out) not in Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    return child.returncode, said


def finished(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in (out / "cache/stages").glob("[!.]*")}


def test_an_interrupted_build_and_a_killed_one_go_on_where_they_were(tmp_path: Path) -> None:
    lend_debs(CACHE, tmp_path / "cache")
    lend(CACHE, tmp_path / "cache", is_lent)
    status, said = interrupt(tmp_path, signal.SIGINT, "package")
    assert (status, said.splitlines()[-1]) == (130, "nvrc-image: interrupted; finished stages stay in the cache")
    assert unfinished(tmp_path) == []
    first = finished(tmp_path)
    assert interrupt(tmp_path, signal.SIGKILL, "root-tools")[0] == -signal.SIGKILL
    second = finished(tmp_path)
    assert first.items() < second.items()
    done = subprocess.run(command(tmp_path), capture_output=True, text=True, check=False, cwd=CHECKOUT)
    assert done.returncode == 0, done.stderr
    assert unfinished(tmp_path) == []
    assert second.items() < finished(tmp_path).items()
    assert (tmp_path / "images/lab/initrd").is_file()
    shutil.rmtree(tmp_path / "cache")


def _wait_for(condition: object, child: subprocess.Popen[str]) -> None:
    assert callable(condition)
    deadline = time.monotonic() + 120
    while not condition():
        assert child.poll() is None, "the build ended before it could be interrupted"
        assert time.monotonic() < deadline
        time.sleep(0.02)
