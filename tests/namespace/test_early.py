# SPDX-License-Identifier: Apache-2.0
"""The agent beside the attach of the GPUs: whatever ends meanwhile ends the VM, and PID 1's word comes last of all."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.system import FakeSystem
from namespace.guest import Guest, boot
from nvrc.vocabulary import paths

pytestmark = [
    pytest.mark.namespace,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root"),
]
Run = Callable[..., Guest]


@pytest.fixture
def run(guest_root: FakeSystem) -> Iterator[Run]:
    guests: list[Guest] = []

    def start(behaviour: str, cmdline: str = "quiet") -> Guest:
        guest_root.put("/etc/behaviour", behaviour)
        guest_root.put("/proc/cmdline", f"nvrc.timeout.host_end=0 nvrc.timeout.farewell=1 {cmdline}\n")
        guests.append(boot(guest_root.root, table="early_agent"))
        return guests[-1]

    yield start
    for guest in guests:
        guest.end()


def test_the_agent_starts_before_the_attach_and_the_word_comes_after_it(run: Run, guest_root: FakeSystem) -> None:
    guest_root.put(paths.CDI_HELD, "the whole document")
    guest_root.make_dir(paths.CDI_FOLDER)
    guest = run("end-on-term hold")
    guest.read_until("agent: holding")
    assert not guest.found("step persistenced")
    assert not guest_root.exists(paths.GPUS_READY)
    guest_root.put("/run/attached")
    guest.read_until("nvrc: READY")
    assert guest.found("guest: open /sys/fs/cgroup 0")
    assert guest_root.text(paths.CDI_SPEC) == "the whole document"
    word = Path(guest_root.real_path(paths.GPUS_READY)).stat()
    assert (guest_root.text(paths.GPUS_READY), stat.S_IMODE(word.st_mode)) == ("ready\n", 0o644)
    guest.signal(signal.SIGTERM)
    guest.finish()
    assert guest.found('nvrc: END code=OK what="stopped by SIGTERM to PID 1; the agent exited with status 15"')


@pytest.mark.parametrize(("behaviour", "line"), [
    ("exit:3", 'nvrc: FATAL code=E_AGENT_EXIT step=agent what="the agent exited with status 3 '),
    ("power-off", "nvrc: END code=OK what=\"the agent powered off\""),
])
def test_an_agent_that_ends_meanwhile_ends_the_vm(run: Run, guest_root: FakeSystem, behaviour: str, line: str) -> None:
    guest = run(f"sandbox {behaviour}")
    guest.finish()
    assert guest.found(line)
    assert not guest.found("READY")
    assert not guest_root.exists(paths.GPUS_READY)


def test_a_stop_meanwhile_ends_the_vm(run: Run) -> None:
    guest = run("hold")
    guest.read_until("agent: holding")
    guest.signal(signal.SIGTERM)
    guest.finish()
    assert guest.found('nvrc: END code=OK what="stopped by SIGTERM during boot"')


def test_gpus_that_do_not_come_are_waited_for_no_longer_than_a_boot_may_take(run: Run, guest_root: FakeSystem) -> None:
    guest = run("sandbox hold", "nvrc.timeout.boot=4")
    guest.finish()
    (line,) = guest.found("nvrc: FATAL")
    assert line.startswith('nvrc: FATAL code=E_BOOT_OVERDUE step=persistenced what="the GPUs that containers were promised '
                           'are not up after 4 s (nvrc.timeout.boot); running: persistenced"')
    assert not guest_root.exists(paths.GPUS_READY)


def test_a_word_that_cannot_be_given_is_a_failed_boot(run: Run, guest_root: FakeSystem) -> None:
    guest_root.put("/run/attached")
    guest = run("hold")
    guest.finish()
    assert guest.found("nvrc: FATAL code=E_RUN_FULL step=promise what=\"cannot write that the GPUs are up, for which containers wait: ")
