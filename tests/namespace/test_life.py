# SPDX-License-Identifier: Apache-2.0
"""The whole life of PID 1, in namespaces: hand-over, supervision, signals, floods, every way to end."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.system import FakeSystem
from namespace.guest import Guest, boot, may_raise_limits
from nvrc.boot import BOOT
from nvrc.engine.conditions import always
from nvrc.machine.control import ask
from nvrc.report.status import ServiceState, from_json
from nvrc.steps.agent import OOM_SCORE_ADJ, OPEN_FILES
from nvrc.vocabulary import paths
from nvrc.vocabulary.verdict import Verdict

pytestmark = [
    pytest.mark.namespace,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root"),
]


Run = Callable[..., Guest]


@pytest.fixture
def run(guest_root: FakeSystem) -> Iterator[Run]:
    guests: list[Guest] = []

    def start(behaviour: str, cmdline: str = "quiet", table: str = "") -> Guest:
        guest_root.put("/etc/behaviour", behaviour)
        guest_root.put("/proc/cmdline", f"nvrc.timeout.host_end=0 nvrc.timeout.farewell=1 {cmdline}\n")
        if guest_root.exists("/dev/log"):
            os.unlink(guest_root.real_path("/dev/log"))  # of an earlier guest on this root
        guests.append(boot(guest_root.root, table=table))
        return guests[-1]

    yield start
    for guest in guests:
        guest.end()


def test_the_agent_believes_it_is_pid_1_and_gets_what_it_needs(run: Run) -> None:
    guest = run("report power-off")
    guest.finish()
    files, score = (OPEN_FILES, OOM_SCORE_ADJ) if may_raise_limits() else (hard_limit(), 500)
    assert guest.found(f"agent: pid=1 ppid=0 nofile={files}/{files} cwd=/")
    assert guest.found(f"agent: {score}")
    assert guest.found("agent: own /proc yes")
    assert {line.split("=")[0] for line in guest.found("agent: env ")} == {"agent: env PATH", "agent: env HOME", "agent: env TERM"}
    assert [line.split()[2] for line in guest.found("agent: fd ")] == ["0", "1", "2"]
    assert guest.found("SigBlk:\t0000000000000000")
    assert guest.found("SigIgn:\t0000000000000000")


def hard_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def test_one_line_a_step_then_ready_then_the_end(run: Run) -> None:
    guest = run("power-off")
    guest.finish()
    said = [line.split()[1:4] for line in guest.found("nvrc: ")]
    count = len(BOOT)
    for_gpus = {row.name for row in BOOT if row.when is not always}
    # A step on a thread of its own ends when it ends; the agent is last, whatever was beside what. What attests needs
    # the agent, and is skipped behind it, with a line like any other.
    assert sorted(words[:3] for words in said[:count]) == sorted(
        ["step", row.name, "skip" if row.name in for_gpus else "ok"] for row in BOOT)
    assert [said[0][1], *(words[1] for words in said[count - 2:count])] == ["filesystems", "agent", "attest"]
    assert said[count][0] == "READY"
    assert said[count + 1][:2] == ["END", "code=OK"]
    assert len(said) == count + 2


def test_after_the_hand_over_the_logs_are_closed_to_containers(run: Run, guest_root: FakeSystem) -> None:
    """While it boots every daemon may log, and the kernel's log takes what it gets."""
    run("power-off").finish()
    found = os.stat(guest_root.real_path(paths.DEV_LOG))
    assert (found.st_mode & 0o777, found.st_uid, found.st_gid) == (0o660, 0, paths.DEV_LOG_GROUP)
    assert guest_root.read(paths.PRINTK_DEVKMSG) == b"ratelimit\n"


def test_the_report_and_the_status_are_published(run: Run, guest_root: FakeSystem) -> None:
    guest = run("power-off")
    guest.finish()
    report = json.loads(guest_root.read("/run/nvrc/boot.json"))
    assert report["verdict"] == "no-gpu"
    assert report["mode"] == "cpu"
    assert {step["outcome"] for step in report["steps"]} == {"ok", "skip"}
    status = json.loads(guest_root.read("/run/nvrc/status.json"))
    assert status["services"][0]["name"] == "agent"
    assert status["services"][0]["state"] == "stopped"


@pytest.mark.parametrize(("behaviour", "cmdline", "quoted"), [
    pytest.param("complain exit:1", "", r'; its last error: cannot \"serve\": no address"', id="log-line"),
    pytest.param("complain give-up", "", r'; its last error: cannot \"serve\": no address"', id="powers-off"),
    pytest.param("complain exit:1", "nvrc.agent.pidns=off", r'; its last error: cannot \"serve\": no address"', id="ordinary-child"),
    pytest.param("panic crash", "", r"; its last error: thread 'main' panicked at src/main.rs:1:2: \x1b[1mgone", id="panic"),
    pytest.param("garbage complain exit:1", "", r'; its last error: cannot \"serve\": no address"', id="behind-garbage"),
    pytest.param("sandbox complain exit:1", "", None, id="with-a-sandbox"),
    pytest.param("exit:1", "", None, id="silent"),
])
def test_an_agent_that_gives_up_is_explained_by_its_last_error(run: Run, behaviour: str, cmdline: str, quoted: str | None) -> None:
    guest = run(behaviour, cmdline)
    guest.finish()
    (verdict,) = guest.found("FATAL code=E_AGENT_EXIT step=supervise")
    assert (quoted in verdict) if quoted else ("last error" not in verdict)
    if "complain" in behaviour:
        shown = [number for number, line in enumerate(guest.lines) if line.startswith('{"msg":"cannot')]
        assert len(shown) == 1, "the line itself is on the console"
        assert shown[0] < guest.lines.index(verdict), "before the verdict"


def test_no_line_of_an_agent_is_lost_on_its_way_to_the_console(run: Run) -> None:
    guest = run("babble:40000 power-off")
    time.sleep(1.5)  # nobody reads: the console stands still, and the agent with it at last
    guest.finish()
    numbers = [int(line.split()[2]) for line in guest.found("agent: babble ")]
    assert numbers == list(range(40000))
    assert guest.found("END code=OK")


@pytest.mark.parametrize(("behaviour", "cmdline", "line"), [
    pytest.param("power-off", "", 'nvrc: END code=OK what="the agent powered off"', id="power-off"),
    pytest.param("give-up", "", 'FATAL code=E_AGENT_EXIT step=supervise what="the agent powered off 0.', id="give-up"),
    pytest.param("restart", "", 'nvrc: END code=OK what="the agent asked for a restart', id="restart"),
    pytest.param("exit:0", "", 'FATAL code=E_AGENT_EXIT step=supervise what="the agent exited with status 0', id="exit-0"),
    pytest.param("exit:3", "", 'FATAL code=E_AGENT_EXIT step=supervise what="the agent exited with status 3', id="exit-3"),
    pytest.param("crash", "", 'FATAL code=E_AGENT_EXIT step=supervise what="the agent was killed by SIGSEGV', id="crash"),
    pytest.param("exit:0", "nvrc.agent.pidns=off", 'END code=OK what="the agent exited with status 0"', id="child-exit-0"),
    pytest.param("exit:1", "nvrc.agent.pidns=off", "code=E_AGENT_EXIT", id="child-exit-1"),
])
def test_every_end_of_the_agent_has_its_line(run: Run, behaviour: str, cmdline: str, line: str) -> None:
    guest = run(behaviour, cmdline)
    guest.finish()
    verdicts = [one for one in guest.lines if one.startswith(("nvrc: READY", "nvrc: FATAL", "nvrc: END"))]
    assert verdicts[0].startswith("nvrc: READY in ")
    assert len(verdicts) == 2
    assert line in verdicts[1]


@pytest.mark.parametrize(("number", "seconds"), [
    pytest.param(None, (1.0, 30.0), id="2 s for a host that ends the VM"), pytest.param(signal.SIGTERM, (0.0, 20.0), id="which a stop signal ends")])
def test_a_machine_whose_agent_powered_off_leaves_the_host_time(run: Run, number: signal.Signals | None, seconds: tuple[float, float]) -> None:
    guest = run("power-off", "nvrc.timeout.host_end=2" if number is None else "nvrc.timeout.host_end=30")
    guest.read_until("nvrc: END code=OK")
    began = time.monotonic()
    if number is not None:
        guest.signal(number)
    guest.finish()
    assert seconds[0] <= time.monotonic() - began < seconds[1]


def test_an_ordinary_child_is_not_pid_1(run: Run) -> None:
    guest = run("report exit:0", "nvrc.agent.pidns=off")
    guest.finish()
    assert guest.found(" ppid=1 ")
    assert guest.found("guest: mount cgroup2 /sys/fs/cgroup")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGPWR])
def test_a_stop_reaches_the_agent_and_ends_in_order(run: Run, number: signal.Signals) -> None:
    guest = run("end-on-term hold")
    guest.read_until("agent: holding")
    guest.signal(number)
    guest.finish()
    assert guest.found(f'nvrc: END code=OK what="stopped by {number.name} to PID 1; the agent exited with status 15"')


def test_an_agent_that_ignores_the_stop_is_killed_within_the_deadline(run: Run) -> None:
    guest = run("ignore-term hold", "nvrc.timeout.agent_stop=1")
    guest.read_until("agent: holding")
    begun = time.monotonic()
    guest.signal(signal.SIGTERM)
    guest.finish()
    assert guest.found("FATAL code=E_AGENT_STOP")
    assert 1 <= time.monotonic() - begun < 9  # the usual limit is 10


def test_a_stop_before_the_agent_ends_the_boot(run: Run) -> None:
    guest = run("hold", table="slow_step")
    guest.read_until("guest: lingering")
    guest.signal(signal.SIGTERM)
    guest.finish()
    assert guest.found('nvrc: END code=OK what="stopped by SIGTERM during boot"')
    assert not guest.found("READY")
    assert not guest.found("agent: holding")


def test_ten_thousand_orphans_leave_no_zombie(run: Run, guest_root: FakeSystem) -> None:
    guest = run("orphans:10000 sleep:500 exit:0", "nvrc.agent.pidns=off")
    guest.finish(120)
    assert guest.found("guest: zombies=0 ")
    assert json.loads(guest_root.read("/run/nvrc/status.json"))["orphans_reaped"] == 10000


def test_a_log_flood_loses_nothing_new_and_costs_no_memory(run: Run, guest_root: FakeSystem) -> None:
    quiet = run("power-off")
    quiet.finish()
    guest = run("flood:100000 power-off")
    guest.finish(120)
    assert not guest.found("agent: send")
    assert guest_root.text("/run/syslog.log").endswith("flood: message 99999\n")
    size = sum(os.stat(guest_root.real_path(f"/run/{name}")).st_size for name in os.listdir(guest_root.real_path("/run"))
               if name.startswith("syslog"))
    assert size <= 2 << 20
    assert peak_kib(guest) - peak_kib(quiet) < 8 << 10


def test_a_log_flood_does_not_stop_the_boot(run: Run, guest_root: FakeSystem) -> None:
    guest = run("sleep:500 power-off", table="flooded_boot")
    guest.finish(120)
    assert guest.found("READY")
    assert json.loads(guest_root.read("/run/nvrc/status.json"))["log_messages"] > 1000


def test_a_read_only_root_carries_the_whole_boot(run: Run, guest_root: FakeSystem) -> None:
    for path in ("/dev/pts", "/dev/shm"):
        os.makedirs(guest_root.real_path(path))
    guest_root.put("/etc/read-only-root")
    guest = run("power-off")
    guest.finish()
    assert guest.found("END code=OK")
    assert not guest.found("nvrc: warn")


def peak_kib(guest: Guest) -> int:
    return int(guest.found("peak_kib=")[0].rpartition("=")[2])


def test_an_exception_in_pid_1_ends_with_a_line(run: Run) -> None:
    guest = run("hold", table="broken_step")
    guest.finish()
    (line,) = guest.found("FATAL")
    assert "code=E_INTERNAL step=agent" in line
    assert "RuntimeError: on purpose at" in line


def test_a_step_that_hangs_is_ended_by_its_deadline(run: Run) -> None:
    guest = run("hold", table="hanging_step")
    guest.finish()
    assert guest.found("FATAL code=E_STEP_DEADLINE step=agent")


@pytest.mark.parametrize(("change", "code", "step"), [
    pytest.param(lambda s: os.unlink(s.real_path("/usr/bin/kata-agent")), "E_AGENT_MISSING", "identity", id="agent-missing"),
    pytest.param(lambda s: os.chmod(s.real_path("/usr/bin/kata-agent"), 0o644), "E_AGENT_MISSING", "identity", id="not-executable"),
    pytest.param(lambda s: s.put("/usr/bin/other", "x"), "", "", id="nothing-wrong"),
    pytest.param(lambda s: (os.unlink(s.real_path("/usr/bin/kata-agent")), s.put("/usr/bin/kata-agent", "#!/no/shell\n", 0o755)),
                 "E_AGENT_EXEC", "agent", id="interpreter-missing"),
    pytest.param(lambda s: (os.unlink(s.real_path("/usr/bin/kata-agent")), s.put("/usr/bin/kata-agent", b"\x7fELFgarbage", 0o755)),
                 "E_AGENT_EXEC", "agent", id="no-program"),
    pytest.param(lambda s: os.unlink(s.real_path("/proc/sys/kernel/modules_disabled")), "E_LOCK_MODULES", "lock-modules", id="no-lock"),
    pytest.param(lambda s: os.unlink(s.real_path("/proc/sys/net/core/rmem_max")) or os.symlink("/nowhere/x", s.real_path("/proc/sys/net/core/rmem_max")),
                 "E_JOURNAL", "journal", id="no-sysctl"),
])
def test_what_an_image_can_lack(run: Run, guest_root: FakeSystem, change: Callable[[FakeSystem], object], code: str, step: str) -> None:
    change(guest_root)
    guest = run("power-off")
    guest.finish()
    if code:
        assert len(guest.found("FATAL")) == 1
        assert guest.found(f"nvrc: FATAL code={code} step={step} ")
        assert not guest.found("READY")
    else:
        assert guest.found("READY")


@pytest.mark.parametrize("cmdline", ["nvrc.smi.lgc=fast", "nvrc.strict=1 nvrc.smi.src=1", 'nvrc.dcgm="maybe not"'])
def test_malformed_command_lines_are_fatal_with_their_code(run: Run, cmdline: str) -> None:
    guest = run("power-off", cmdline)
    guest.finish()
    assert guest.found("FATAL code=E_PARAMETERS step=parameters")


def test_an_unknown_name_warns_and_boots(run: Run) -> None:
    guest = run("power-off", "nvrc.smi.src=1")
    guest.finish()
    assert any("nvrc.smi.srs" in line for line in guest.found("nvrc: warn"))
    assert guest.found("READY")


def test_a_full_run_costs_the_report_not_the_vm(run: Run, guest_root: FakeSystem) -> None:
    os.makedirs(guest_root.real_path("/run/nvrc"))
    guest_root.put("/etc/full-run")
    guest = run("flood:10 power-off")
    guest.finish()
    assert any("no report below /run/nvrc: OSError: [Errno 28]" in line for line in guest.found("nvrc: warn"))
    assert guest.found("READY")
    assert guest.found("END code=OK")


def test_the_status_is_told_to_whoever_asks(run: Run, guest_root: FakeSystem) -> None:
    guest = run("end-on-term hold")
    path = control_socket(guest, guest_root)
    told = from_json(ask(path))
    assert told.verdict is Verdict.NO_GPU
    assert told.services[0].state is ServiceState.RUNNING
    assert 1000 < (told.resident_kib or 0) < 200_000
    command = [sys.executable, "-m", "nvrc", "status", "--socket", path]
    asked = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert "no-gpu" in asked.stdout
    guest.signal(signal.SIGTERM)
    guest.finish()


def test_clients_of_every_kind_leave_pid_1_alone(run: Run, guest_root: FakeSystem) -> None:
    guest = run("end-on-term hold")
    path = control_socket(guest, guest_root)
    silent = [connected(path) for _ in range(100)]  # none of them reads
    for client in silent[:50]:
        try:
            client.sendall(b"\0" * 1000)
        except OSError:
            pass  # answered and left already
    for _ in range(500):
        connected(path).close()
    assert from_json(ask(path)).verdict is Verdict.NO_GPU
    (pid,) = guest.children()
    assert len(os.listdir(f"/proc/{pid}/fd")) < 20
    guest.signal(signal.SIGTERM)
    guest.finish()
    assert guest.found("END code=OK")
    for client in silent:
        client.close()


def control_socket(guest: Guest, guest_root: FakeSystem) -> str:
    """Its path, once it is there: PID 1 gets to that after the agent runs."""
    guest.read_until("agent: holding")
    path = guest_root.real_path("/run/nvrc/control.sock")
    until = time.monotonic() + 10
    while not os.path.exists(path) and time.monotonic() < until:
        time.sleep(0.01)
    return path


def connected(path: str) -> socket.socket:
    """As somebody who waits as long as it takes to be let in, and then does as he likes."""
    client = socket.socket(socket.AF_UNIX)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 10, 0))
    try:
        client.connect(path)
    except OSError:
        client.close()
        raise
    return client


def test_a_fault_of_the_interpreter_names_the_code_before_the_kernel_ends_it(run: Run) -> None:
    guest = run("hold", table="faulting_step")
    guest.finish()
    assert guest.found("Segmentation fault")
    assert any("in fault" in line for line in guest.lines)


def test_a_boot_that_takes_long_is_told_and_goes_on(run: Run, guest_root: FakeSystem) -> None:
    guest = run("power-off", "nvrc.timeout.boot=4", table="slow_thread")
    line = guest.read_until("nvrc: warn")
    assert line.startswith("nvrc: warn no agent after 4 s (nvrc.timeout.boot); running: linger for ")
    guest_root.put("/run/told")
    guest.finish()
    assert guest.found("nvrc: warn") == [line]
    assert guest.found("READY")
    assert json.loads(guest_root.read("/run/nvrc/boot.json"))["notes"] == [line.removeprefix("nvrc: warn ")]


def test_a_boot_that_waits_beside_its_agent_does_not_miss_it(run: Run, guest_root: FakeSystem) -> None:
    guest = run("end-on-term hold", "nvrc.timeout.boot=4", table="slow_attest")
    line = guest.read_until("nvrc: warn")
    assert line.startswith("nvrc: warn not ready after 4 s (nvrc.timeout.boot); running: attest for ")
    guest_root.put("/run/told")
    guest.read_until("nvrc: READY")
    guest.signal(signal.SIGTERM)
    guest.finish()
    assert guest.found("nvrc: warn") == [line]
