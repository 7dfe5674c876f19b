# SPDX-License-Identifier: Apache-2.0
"""`nvrc-lab boot` with real machines: a good boot, images that do not boot, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fakes.lab_image import lab_image, packed_image
from nvrc.boot import BOOT
from nvrc_lab.kit.image import BootFiles

pytestmark = pytest.mark.qemu
LAB = (sys.executable, "-m", "nvrc_lab", "boot")


@pytest.fixture(scope="module")
def packed() -> BootFiles:
    return packed_image()


@pytest.fixture(scope="module")
def image() -> BootFiles:
    return lab_image()


def boot(image: BootFiles, folder: Path, *words: str) -> tuple[int, dict[str, object], str]:
    done = subprocess.run([*LAB, "--json", f"--kernel={image.kernel}", f"--initrd={image.initrd}",
                           f"--console={folder / 'console'}", *words],
                          capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    answer: dict[str, object] = json.loads(done.stdout)
    return done.returncode, answer, done.stderr


def test_the_lab_image_gets_ready_and_ends_in_order(packed: BootFiles, tmp_path: Path) -> None:
    status, answer, _ = boot(packed, tmp_path)
    assert (status, answer["ok"], answer["verdict"], answer["what"]) == (0, True, "ready", "the agent powered off")
    steps = answer["steps"]
    assert isinstance(steps, list)
    assert sorted(step["name"] for step in steps) == sorted(step.name for step in BOOT)
    assert {step["outcome"] for step in steps} <= {"ok", "skip"}
    assert b"agent: stand-in agent, not kata-agent" in (tmp_path / "console").read_bytes()


def test_without_words_one_gpu_its_container_and_a_picture(tmp_path: Path) -> None:
    console = tmp_path / "kept.console"
    done = subprocess.run([*LAB, "--console", console, "--cpus=2"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    *_, seen, verdict, picture = done.stdout.splitlines()
    assert seen.startswith("  container: sees nvidia-uvm, nvidia-uvm-tools, nvidia0, nvidiactl, ")
    assert verdict == "✓ as gpu-1 expects: ready"
    assert picture == f"  timeline: {tmp_path / 'kept.svg'}"
    assert ET.parse(tmp_path / "kept.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"
    for command, first in (("report", "nvrc 0.1.0: ready, mode gpu"), ("doctor", "ended: the VM shut down cleanly: the agent powered off")):
        for file in (console, tmp_path / "kept.log"):
            told = subprocess.run([sys.executable, "-m", "nvrc", command, file], capture_output=True, text=True, check=False)
            assert (told.returncode, told.stderr, told.stdout.splitlines()[0]) == (0, "", first)


def test_a_failed_boot_carries_its_code(image: BootFiles, tmp_path: Path) -> None:
    status, answer, _ = boot(image, tmp_path, "--cmdline", "nvrc.log=deafening")
    assert (status, answer["ok"], answer["verdict"], answer["code"]) == (1, False, "failed", "E_PARAMETERS")


def test_a_machine_that_stays_is_stopped_after_ready(image: BootFiles, tmp_path: Path) -> None:
    status, answer, _ = boot(image, tmp_path, "--cmdline", "lab.agent=hold", "--linger=0.5")
    assert (status, answer["what"]) == (0, "READY; the lab stopped the machine as asked")


def test_another_agent_takes_the_stand_ins_place(image: BootFiles, tmp_path: Path) -> None:
    # Any program of this machine is an ELF file that the guest cannot load: the image has none of its libraries' paths.
    agent = tmp_path / "agent"
    agent.write_bytes(Path(sys.executable).resolve().read_bytes()[:4096])
    status, answer, _ = boot(image, tmp_path, f"--agent={agent}")
    assert status == 1
    assert str(answer["code"]).startswith("E_AGENT_")


def test_an_image_without_an_init_is_a_panic(image: BootFiles, tmp_path: Path) -> None:
    (tmp_path / "initrd").write_bytes(b"")
    status, answer, _ = boot(BootFiles(kernel=image.kernel, initrd=tmp_path / "initrd"), tmp_path)
    assert (status, answer["code"]) == (1, "-")
    assert "the guest kernel panicked: VFS: Unable to mount root fs" in str(answer["what"])


def test_a_kernel_that_is_none_is_qemus_refusal_or_silence(image: BootFiles, tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(b"no kernel" * 1000)
    status, answer, _ = boot(BootFiles(kernel=tmp_path / "kernel", initrd=image.initrd), tmp_path, "--timeout=3")
    assert status == 1
    assert "before the guest said anything" in str(answer["what"]) or "stayed empty" in str(answer["what"])


@contextmanager
def running(image: BootFiles, folder: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A lab whose machine is up, and the machine's pid."""
    command = [*LAB, "--verbose", f"--kernel={image.kernel}", f"--initrd={image.initrd}", "--cmdline=lab.agent=hold",
               f"--console={folder / 'console'}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL) as lab:
        assert lab.stdout is not None
        assert any("nvrc: READY" in line for line in lab.stdout)
        children = Path(f"/proc/{lab.pid}/task/{lab.pid}/children").read_text().split()
        (machine,) = map(int, children)
        assert "qemu" in Path(f"/proc/{machine}/comm").read_text()
        try:
            yield lab, machine
        finally:
            lab.kill()


def await_end(pid: int) -> bool:
    """False if the process is still there after some seconds."""
    limit = time.monotonic() + 10
    while time.monotonic() < limit:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_lab_ends_its_machine_first(image: BootFiles, tmp_path: Path, number: signal.Signals) -> None:
    with running(image, tmp_path) as (lab, machine):
        lab.send_signal(number)
        assert lab.wait(20) == 130
        assert await_end(machine)


def test_a_killed_lab_takes_its_machine_along(image: BootFiles, tmp_path: Path) -> None:
    with running(image, tmp_path) as (lab, machine):
        lab.kill()
        lab.wait(20)
        assert await_end(machine)
