# SPDX-License-Identifier: Apache-2.0
"""The table of a machine's end: its order, that every row is tried, and who is told what at which end."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from fakes.system import FakeSystem, bare_guest
from fakes.trouble import trouble
from nvrc.engine.facts import Facts
from nvrc.machine.processes import LinuxProcesses
from nvrc.machine.system import KERN_DEBUG
from nvrc.pid1.ending import ENDING, Stage, end
from nvrc.pid1.main import Init
from nvrc.vocabulary import paths
from nvrc.vocabulary.ending import Ending, Orderly
from nvrc.vocabulary.errors import make_trouble
from nvrc.vocabulary.trouble import AFTER_THE_BOOT

FAILED = trouble("E_MOUNT", "filesystems", "/sys: busy", "mend it")
TRANSPORT = "/lib/modules/6.12.0-test/kernel/net/vmw_vsock/vmw_vsock_virtio_transport.ko"


class SleptError(Exception):
    """In place of the sleep that never ends."""


def asleep(_seconds: float) -> None:
    raise SleptError


class TimedSystem(FakeSystem):
    def now(self) -> float:
        return time.monotonic()


@pytest.fixture
def system(tmp_path: Path) -> TimedSystem:
    bare_guest(str(tmp_path))
    one = TimedSystem(str(tmp_path))
    one.put(paths.SYSRQ)
    return one


def run(system: FakeSystem, ending: Ending = FAILED, init: Init | None = None) -> list[str]:
    with pytest.raises(SleptError):
        end(Stage(system=system, ending=ending, init=init, sync=lambda: None), asleep)
    return system.said


def told(system: FakeSystem, *kinds: str) -> list[str]:
    """Effects of these kinds in order; the port is asked for again after its module was looked for."""
    return list(dict.fromkeys(line for line in system.effects if line.startswith(kinds)))


def asked(system: FakeSystem) -> bool:
    return "vsock 1024" in system.effects


def test_the_order() -> None:
    assert [row.name for row in ENDING] == ["log", "verdict", "report", "message", "daemons", "farewell", "sync", "host",
                                         "power"]


@pytest.mark.parametrize("number", range(len(ENDING)), ids=[row.name for row in ENDING])
def test_whatever_fails_the_rest_is_done(system: TimedSystem, number: int) -> None:
    done: list[str] = []

    def note(name: str) -> None:
        done.append(name)
        if name == ENDING[number].name:
            raise RuntimeError("on purpose")

    rows = tuple(row._replace(act=lambda _stage, name=row.name: note(name)) for row in ENDING)
    with pytest.raises(SleptError):
        end(Stage(system=system, ending=FAILED), asleep, rows)
    assert done == [row.name for row in ENDING]
    (said,) = system.said
    assert said.startswith(f"nvrc: warn ending: {ENDING[number].name}: RuntimeError: on purpose at ")


def test_a_failed_boot_in_order(system: TimedSystem) -> None:
    said = run(system, init=Init(system, ()))
    assert said[0] == 'nvrc: FATAL code=E_MOUNT step=filesystems what="/sys: busy" hint="mend it"'
    assert told(system, "vsock", "power") == ["vsock 1024", "power off"]


@pytest.mark.parametrize(("ending", "sandbox", "cmdline", "expected"), [
    pytest.param(FAILED, False, "", True, id="a failed boot"),
    pytest.param(trouble("E_INTERNAL", "pid1", "x"), False, "", True, id="an error in PID 1"),
    pytest.param(make_trouble("E_AGENT_EXIT", "x", step=AFTER_THE_BOOT), False, "", True, id="an agent that gives up"),
    pytest.param(make_trouble("E_AGENT_EXIT", "x", step=AFTER_THE_BOOT), True, "", False, id="there was a sandbox: the runtime hears no more"),
    pytest.param(Orderly("x"), False, "", False, id="a stop signal"),
    pytest.param(make_trouble("E_AGENT_STOP", "x", step=AFTER_THE_BOOT), False, "", False, id="a stop that the agent ignored"),
    pytest.param(FAILED, False, "nvrc.farewell=off", False, id="off"),
    pytest.param(FAILED, False, "nvrc.timeout.farewell=0", False, id="no time"),
    pytest.param(FAILED, False, "nvrc.farewell=off nvrc.dcgm=perhaps", False, id="off on a line that is refused"),
    pytest.param(FAILED, False, "nvrc.farewell=maybe", True, id="not understood: the default"),
])
def test_who_is_answered(system: TimedSystem, ending: Ending, sandbox: bool, cmdline: str, expected: bool) -> None:
    system.put("/proc/cmdline", cmdline)
    if sandbox:
        system.make_dir(paths.SANDBOX)
    run(system, ending, Init(system, ()))
    assert asked(system) is expected


@pytest.mark.parametrize(("policy", "cmdline", "expected"), [
    pytest.param('[pin]\nnvrc.farewell = "off"', "nvrc.dcgm=perhaps", False, id="a pin holds for a line that is refused"),
    pytest.param('[pin]\nnvrc.farewell = "off"', "nvrc.farewell=on", False, id="and against it"),
    pytest.param('deny = ["nvrc.farewell"]', "nvrc.farewell=off", True, id="denied"),
    pytest.param("not toml", "nvrc.farewell=off", True, id="no policy to read: the default"),
])
def test_a_policy_decides(system: TimedSystem, policy: str, cmdline: str, expected: bool) -> None:
    system.put(paths.POLICY, policy)
    system.put("/proc/cmdline", cmdline)
    run(system, FAILED, Init(system, ()))
    assert asked(system) is expected


def test_without_proc_the_defaults_hold(tmp_path: Path) -> None:
    system = TimedSystem(str(tmp_path))
    run(system, FAILED, Init(system, ()))
    assert asked(system)
    assert "power off" in system.effects


def test_a_machine_without_a_device_says_so_where_only_debugging_looks(system: TimedSystem) -> None:
    began = time.monotonic()
    run(system)
    lines = [(line, level) for line, level in zip(system.said, system.levels, strict=True) if "farewell" in line]
    assert [level for _line, level in lines] == [KERN_DEBUG]
    assert "no runtime can ask: OSError: [Errno 19] the machine has no vsock device" in lines[0][0]
    assert time.monotonic() - began < 60


def put_transport(system: FakeSystem) -> None:
    system.put(TRANSPORT)
    system.put("/lib/modules/6.12.0-test/modules.dep", "kernel/net/vmw_vsock/vmw_vsock_virtio_transport.ko:\n")


@pytest.mark.parametrize(("is_there", "locked", "loads"), [
    pytest.param(True, "0\n", [f"load {TRANSPORT}"], id="an early failure"), pytest.param(True, "1\n", [], id="modules are locked"),
    pytest.param(False, "0\n", [], id="an image without the module")])
def test_the_transport_is_loaded_where_it_is_missing(system: TimedSystem, is_there: bool, locked: str, loads: list[str]) -> None:
    if is_there:
        put_transport(system)
    system.put(paths.MODULES_DISABLED, locked)
    run(system)
    assert [line for line in system.effects if line.startswith("load")] == loads
    assert system.effects.count("vsock 1024") == (2 if locked == "0\n" else 1)


def test_a_kernel_that_waits_for_a_disk_before_it_has_loaded_the_transport_is_switched_off(system: TimedSystem) -> None:
    """As for one of SCSI that never answers: finit_module(2) waits until all disks are found, where no alarm reaches it."""
    waits = threading.Event()
    put_transport(system)
    system.put(paths.MODULES_DISABLED, "0\n")
    system.on_load[TRANSPORT] = lambda: waits.wait(60)  # type: ignore[assignment,return-value]
    with pytest.raises(SleptError):
        end(Stage(system=system, ending=FAILED, sync=lambda: None, load_s=0.01), asleep)
    assert "power off" in system.effects
    assert not waits.is_set()
    assert any("no runtime can ask: OverdueError" in line for line in system.said)
    waits.set()


def test_a_node_is_made_where_dev_could_not_be_mounted(system: TimedSystem) -> None:
    put_transport(system)
    system.put("/proc/misc", " 61 vsock\n228 hpet\n")
    run(system)
    assert f"node {paths.VSOCK} c 10:61 600 0:0" in system.effects


@pytest.mark.long
def test_the_runtime_hears_the_verdict(system: TimedSystem, tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "port"))
    listener.listen()
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(tmp_path / "port"))
    client.sendall(b"\0\0\0\0" + b"\0\0\0\1" + b"\1\0")
    client.shutdown(socket.SHUT_WR)
    system.vsock.append(listener.detach())
    run(system, init=Init(system, ()))
    assert b"guest init: E_MOUNT in step filesystems: /sys: busy (hint: mend it)" in client.recv(4096)
    assert "nvrc: log farewell: answers=1" in system.said
    client.close()


def living_agent(system: TimedSystem, *, reaped: bool = False) -> Init:
    """PID 1 after the hand-over, with an agent that ends when it is killed."""
    init = Init(system, ())
    init.executor._facts = Facts(agent_pid=77)
    if reaped:
        init.ended_early[77] = 0, 0.0
    supervisor = SimpleNamespace(ending=None)
    init.life = SimpleNamespace(supervisor=supervisor, ending=None, stop_daemons=lambda: None, services=(), gpus=(), news=())  # type: ignore[assignment]
    return init


@pytest.mark.long
def test_an_agent_that_holds_the_port_is_ended_first(system: TimedSystem) -> None:
    run(system, make_trouble("E_SERVICE_LOST", "x", step=AFTER_THE_BOOT), living_agent(system))
    assert told(system, "signal", "vsock") == ["signal 77 9", "vsock 1024"]


def test_a_pid_that_was_reaped_is_nobodys(system: TimedSystem) -> None:
    run(system, make_trouble("E_SERVICE_LOST", "x", step=AFTER_THE_BOOT), living_agent(system, reaped=True))
    assert [line for line in system.effects if line.startswith("signal")] == []


def reap(limit_s: float = 5.0) -> None:
    """The child that wrote, if there was one: the fake reaps none. Children of other tests may outlive this one."""
    ends_s = time.monotonic() + limit_s
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < ends_s and not os.waitpid(-1, os.WNOHANG)[0]:
            time.sleep(0.01)


SHARED = "/proc/77/root/run/kata-containers/shared/containers"


@pytest.mark.parametrize(("ending", "cmdline", "text"), [
    pytest.param(make_trouble("E_SERVICE_LOST", "x", step=AFTER_THE_BOOT), "", "guest init: E_SERVICE_LOST in step supervise: x (hint: ", id="decided by PID 1"),
    pytest.param(make_trouble("E_SERVICE_LOST", "x", step=AFTER_THE_BOOT), "nvrc.farewell=off", "", id="off"),
    pytest.param(Orderly("x"), "", "", id="orderly"),
])
def test_containers_are_left_a_message(system: TimedSystem, ending: Ending, cmdline: str, text: str) -> None:
    system.put("/proc/cmdline", cmdline)
    system.make_dir(paths.SANDBOX)
    system.put(f"{SHARED}/abc-termination-log")
    system.workers = LinuxProcesses()
    run(system, ending, living_agent(system))
    if text:
        reap()
    assert system.text(f"{SHARED}/abc-termination-log").startswith(text)
    assert bool(system.text(f"{SHARED}/abc-termination-log")) is bool(text)
    assert not asked(system)


class ClockSystem(FakeSystem):
    """Time that passes only when somebody looks."""

    seconds = 0.0

    def now(self) -> float:
        self.seconds += 0.25
        return self.seconds

    def power_off(self) -> None:
        self.effects.append(f"power off at {self.seconds:.0f}")


BY_AGENT, FAILED_LATER = Orderly("the agent powered off"), make_trouble("E_AGENT_EXIT", "x", step=AFTER_THE_BOOT)


@pytest.mark.long
@pytest.mark.parametrize(("ending", "signal", "cmdline", "waits"), [
    pytest.param(BY_AGENT, "", "", True, id="the agent powered off"),
    pytest.param(BY_AGENT, "", "nvrc.timeout.host_end=1", True, id="as long as is asked for"),
    pytest.param(BY_AGENT, "", "nvrc.timeout.host_end=0", False, id="no time"),
    pytest.param(BY_AGENT, "now", "", False, id="a stop signal meanwhile"),
    pytest.param(BY_AGENT, "before", "", False, id="told to stop: somebody waits for the power to go"),
    pytest.param(FAILED_LATER, "", "", False, id="a failure"),
])
def test_the_host_has_time_to_end_the_machine(tmp_path: Path, ending: Ending, signal: str, cmdline: str, waits: bool) -> None:
    bare_guest(str(tmp_path))
    system = ClockSystem(str(tmp_path))
    system.put("/proc/cmdline", cmdline)
    system.make_dir(paths.SANDBOX)
    init = Init(system, ())
    supervisor = SimpleNamespace(ending=ending, is_stopping=signal == "before")
    init.life = SimpleNamespace(supervisor=supervisor, ending=ending, stop_daemons=lambda: None, services=(), gpus=(), news=(),  # type: ignore[assignment]
                                agent=None)
    init.is_hurried = signal == "now"
    before = system.now()
    with pytest.raises(SleptError):
        end(Stage(system=system, ending=ending, init=init, sync=lambda: None), asleep, tuple(
            row for row in ENDING if row.name in ("host", "power")))
    seconds = system.seconds - before
    limit = 1 if "host_end=1" in cmdline else 2
    assert limit <= seconds < limit + 1 if waits else seconds < 1
