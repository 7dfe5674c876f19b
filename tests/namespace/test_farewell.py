# SPDX-License-Identifier: Apache-2.0
"""What the real PID 1 tells whoever asks for its agent after a failure, over a unix socket in the place of vsock."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.system import FakeSystem, bare_guest
from namespace.guest import PORT, Guest, boot
from nvrc_lab.agent.ttrpc import Client, RpcError

pytestmark = [
    pytest.mark.namespace,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root"),
]
SHARED = "/run/kata-containers/shared/containers"


@pytest.fixture
def root(tmp_path: Path, compiled: Callable[[str], bytes]) -> FakeSystem:
    system = bare_guest(str(tmp_path))
    system.put("/proc/self/oom_score_adj")
    system.put("/usr/bin/kata-agent", compiled("agent"), 0o755)
    system.put("/bin/nvidia-persistenced", compiled("daemon"), 0o755)
    os.makedirs(system.real_path("/var"))
    os.symlink("../run", system.real_path("/var/run"))
    return system


class Machine:
    def __init__(self, root: FakeSystem) -> None:
        self.root = root
        self.guest: Guest | None = None

    def boot(self, behaviour: str, cmdline: str = "", table: str = "") -> Guest:
        self.root.put("/etc/behaviour", behaviour)
        self.root.put("/proc/cmdline", f"quiet nvrc.timeout.host_end=0 nvrc.timeout.farewell=300 {cmdline}\n")
        if table == "gpu_daemons":
            for attribute, text in (("vendor", "0x10de\n"), ("device", "0x2330\n"), ("class", "0x030200\n")):
                self.root.put(f"/sys/bus/pci/devices/0000:40:00.0/{attribute}", text)
        self.guest = boot(self.root.root, table=table)
        return self.guest

    def ask(self) -> str:
        """As the runtime: dial until somebody answers."""
        end_s = time.monotonic() + 30
        while True:
            try:
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.connect(self.root.real_path(PORT))
                    sock.settimeout(10)
                    return self._refused(sock)
            except (FileNotFoundError, ConnectionRefusedError):
                assert time.monotonic() < end_s, "nobody ever answered"
                time.sleep(0.02)

    def _refused(self, sock: socket.socket) -> str:
        class Transport:
            sendall = staticmethod(sock.sendall)

            @staticmethod
            def receive_exactly(count: int, _limit_s: float) -> bytes:
                return sock.recv(count, socket.MSG_WAITALL)

        with pytest.raises(RpcError) as refused:
            Client(Transport()).call("grpc.Health", "Check", b"", 5)
        assert refused.value.code == 9
        return refused.value.reason


@pytest.fixture
def machine(root: FakeSystem) -> Iterator[Machine]:
    one = Machine(root)
    yield one
    if one.guest is not None:
        one.guest.process.kill()
        one.guest.process.wait()
        if one.guest.process.stdout:
            one.guest.process.stdout.close()


def lose_persistenced(guest: Guest) -> None:
    """After the boot, whatever that took."""
    guest.read_until("nvrc: READY in ")
    os.kill(guest.daemon("nvidia-persistenced"), signal.SIGKILL)


@pytest.mark.parametrize(("words", "text"), [
    pytest.param(("hold", "", "broken_step"), "guest init: E_INTERNAL in step agent: RuntimeError: on purpose at ", id="a step raises"),
    pytest.param(("hold", "", "hanging_step"), "guest init: E_STEP_DEADLINE in step agent: agent did not finish within 0.3 s (hint: ", id="a step hangs"),
    pytest.param(("hold", "nvrc.dcgm=perhaps", "gpu_daemons"), "guest init: E_PARAMETERS in step parameters: nvrc.dcgm: 'perhaps' is ", id="parameters"),
    pytest.param(("give-up", "", "gpu_daemons"), "guest init: E_AGENT_EXIT in step supervise: the agent powered off 0.", id="the agent gives up"),
    pytest.param(("crash", "", "gpu_daemons"), "guest init: E_AGENT_EXIT in step supervise: the agent was killed by SIGSEGV", id="the agent crashes"),
    pytest.param(("hold", "nvrc.strict=on", "gpu_daemons"),
                 "guest init: E_SERVICE_LOST in step supervise: nvidia-persistenced was killed by SIGKILL", id="strict, the agent still waits"),
])
def test_the_runtime_is_told(machine: Machine, words: tuple[str, ...], text: str) -> None:
    guest = machine.boot(*words)
    if "E_SERVICE_LOST" in text:
        lose_persistenced(guest)
    assert machine.ask().startswith(text)
    began = time.monotonic()
    guest.finish()
    assert time.monotonic() - began < 60, "it does not wait for its whole time"
    assert guest.found("FATAL code=")
    assert guest.found("farewell: answers=1")
    assert guest.found("guest: zombies=0 ")


@pytest.mark.parametrize(("behaviour", "cmdline", "found"), [
    pytest.param("give-up", "nvrc.farewell=off", "FATAL code=E_AGENT_EXIT", id="off"),
    pytest.param("give-up", "nvrc.timeout.farewell=0", "FATAL code=E_AGENT_EXIT", id="no time"),
    pytest.param("power-off", "", "END code=OK", id="an orderly end"),
])
def test_nobody_is_waited_for(machine: Machine, behaviour: str, cmdline: str, found: str) -> None:
    guest = machine.boot(behaviour, cmdline, "gpu_daemons")
    guest.finish()
    assert guest.found(found)
    assert not guest.found("log farewell:")


def test_nobody_asks_and_the_machine_ends_all_the_same(machine: Machine) -> None:
    guest = machine.boot("give-up", "nvrc.timeout.farewell=1", "gpu_daemons")
    guest.finish()
    assert guest.found("farewell: answers=0")


def test_a_stop_signal_ends_the_wait(machine: Machine) -> None:
    guest = machine.boot("give-up", "", "gpu_daemons")
    guest.read_until("FATAL")
    time.sleep(0.5)
    guest.signal(signal.SIGTERM)
    guest.finish()
    assert guest.found("farewell: answers=0")


def test_an_ending_that_pid_1_decides_reaches_the_containers(machine: Machine, root: FakeSystem) -> None:
    root.put(f"{SHARED}/abc-termination-log")
    root.put(f"{SHARED}/def-termination-log", "its own")
    guest = machine.boot("hold", "nvrc.strict=on", "gpu_daemons")
    lose_persistenced(guest)
    guest.finish()
    assert root.text(f"{SHARED}/abc-termination-log").startswith("guest init: E_SERVICE_LOST in step supervise: nvidia-persistenced was ")
    assert root.text(f"{SHARED}/def-termination-log") == "its own"
    assert guest.found("termination messages: 1 written")
    assert not guest.found("log farewell:")
