# SPDX-License-Identifier: Apache-2.0
"""How the machine ends: one table, executed from top to bottom whatever fails on the way. Loaded when it comes to that.

The order is that of what may be lost. The verdict is said first, because a host may take the power away at any time.
Daemons stop before the farewell, because the runtime ends the VM as soon as it has its answer.
"""

from __future__ import annotations

import os
import stat
import time

from guest_cdi.lean.light import TYPE_CHECKING, Callable, NamedTuple, NoReturn, dataclass
from nvrc.engine.executor import DeadlineError
from nvrc.machine.system import KERN_DEBUG, Files, Node, System
from nvrc.params.settings import Settings
from nvrc.pid1.alarm import set_alarm
from nvrc.pid1.crash import tell
from nvrc.pid1.supervise import STOP_OVERDUE
from nvrc.vocabulary import console, paths
from nvrc.vocabulary.ending import Orderly
from nvrc.vocabulary.signals import signal
from nvrc.vocabulary.verdict import Verdict

if TYPE_CHECKING:
    from nvrc.pid1.init import Init
    from nvrc.pid1.supervise import Supervisor
    from nvrc.vocabulary.ending import Ending

TRANSPORT = "vmw_vsock_virtio_transport"
MISC = 10  # the major number of its node
AGENT_KILL_S = 2.0
LOAD_S = SYNC_S = 10.0
SWITCH_OFF_S = 60.0  # drivers of GPUs may take a while


@dataclass(slots=True, kw_only=True)
class Stage:
    """A machine that ends, and why. `init` is None when PID 1 itself could not be made."""

    system: System
    ending: Ending
    init: Init | None = None
    last: Callable[[], None] = lambda: None
    sync: Callable[[], None] = os.sync
    load_s: float = LOAD_S
    switch_off_s: float = SWITCH_OFF_S


class Row(NamedTuple):
    """One thing that is done. `limit_s`: when the alarm breaks into it; 0 where it waits for nothing, or knows when to
    stop."""

    name: str
    act: Callable[[Stage], None]
    limit_s: float
    tells: str


def _say_log(stage: Stage) -> None:
    if stage.init is None:
        return
    journal = stage.init.journal
    if journal.log_socket >= 0:
        journal.drain()  # the last words are often the ones that matter
    for line in () if isinstance(stage.ending, Orderly) else journal.tail():
        stage.system.say(console.warning_line(line))


def _say_verdict(stage: Stage) -> None:
    one = stage.ending
    stage.system.say(console.end_line(console.ORDERLY, one.what) if isinstance(one, Orderly) else
                     console.verdict_fatal(one))


def _publish(stage: Stage) -> None:
    init, one = stage.init, stage.ending
    if init is None:
        return
    is_told = init.life is not None and init.life.ending is not None
    failure = None if isinstance(one, Orderly) or is_told else one
    verdict = init.bulletin.verdict if isinstance(one, Orderly) else Verdict.FAILED
    init.bulletin.publish(verdict, init.journal, init.life, failure)


def _leave_message(stage: Stage) -> None:
    """What ends with the agent is lost: its root is gone, and the runtime ends the VM when it sees that."""
    agent = _living_agent(stage)
    if isinstance(stage.ending, Orderly) or agent is None or not _had_sandbox(stage) or not _settings(stage).farewell:
        return
    from nvrc.pid1 import termination

    written = termination.leave(stage.system, agent, console.refusal(stage.ending))
    _note(stage, f"termination messages: {'no answer' if written is None else f'{written} written'}")


def _stop_daemons(stage: Stage) -> None:
    init = stage.init
    if init is None:
        return
    if init.life is not None:
        init.life.stop_daemons()
        init.bulletin.publish_life(init.bulletin.verdict, init.journal, init.life)
    else:
        facts = init.executor.facts
        if facts.services:
            from nvrc.pid1.closing import daemons_of, stop_daemons

            init.closing = daemons_of(stage.system, facts, init.ends_of_boot())
            stop_daemons(stage.system, init.loop, init.closing, _settings(stage).timeout_services_stop_s)
    if init.journal.log_socket >= 0:
        init.journal.drain()


def _say_farewell(stage: Stage) -> None:
    """To a runtime that waits for its first sandbox. Whoever asked the VM to stop knows why it ends."""
    settings, why = _settings(stage), stage.ending
    if (isinstance(why, Orderly) or why.code == STOP_OVERDUE or _had_sandbox(stage) or not settings.farewell
            or not settings.timeout_farewell_s):
        return
    _end_agent(stage)  # it has the port
    from nvrc.machine.loop import Loop
    from nvrc.pid1 import farewell

    try:
        listener = _listen(stage, farewell.PORT, settings)
    except Exception as err:
        _note(stage, f"farewell: no runtime can ask: {tell(err)}")
        return
    loop = Loop(stage.system.now)  # of its own: PID 1's may be what failed
    init = stage.init
    if init is not None and init.signals >= 0:
        loop.watch(init.signals, init.take_signals)
    guest = farewell.Farewell(loop, stage.system.now, listener, console.refusal(why))
    answers = guest.serve(settings.timeout_farewell_s, lambda: init is not None and init.is_hurried)
    _note(stage, f"farewell: answers={answers}")


def _write_back(stage: Stage) -> None:
    from nvrc.machine.patience import run_within

    stage.last()
    run_within(2 * SYNC_S, stage.sync)  # the kernel waits for every disk, and no alarm breaks into that


def _await_host(stage: Stage) -> None:
    """The runtime has the answer to its last request and ends the VM itself. One that is quicker makes it fail."""
    init, limit_s = stage.init, _settings(stage).timeout_host_end_s
    agent = _supervisor(init)
    if init is None or agent is None or not isinstance(stage.ending, Orderly) or agent.is_stopping or not limit_s:
        return
    until_s = stage.system.now() + limit_s
    init.loop.at(until_s, lambda: None)
    init.loop.run(lambda: init.is_hurried or stage.system.now() >= until_s)


def _switch_off(stage: Stage) -> None:
    import _thread

    system, refused = stage.system, _thread.allocate_lock()
    refused.acquire()
    _thread.start_new_thread(_reset_if_stuck, (stage, refused.acquire))
    for name, way in (("power off", system.power_off), ("restart", system.restart),
                      ("crash", lambda: system.write(paths.SYSRQ, b"c"))):
        try:
            way()
        except OSError as err:
            system.say(console.warning_line(f"cannot {name} the machine: {err.strerror}"))
    refused.release()


def _reset_if_stuck(stage: Stage, is_refused: Callable[[bool, float], bool]) -> None:
    """A kernel that switches off waits for each device first, also for a disk that never answers."""
    if not is_refused(True, stage.switch_off_s):
        stage.system.write(paths.SYSRQ, b"b")


ENDING: tuple[Row, ...] = (
    Row("log", _say_log, 0.0,
        "the last lines of daemons and kernel on the console, when something failed"),
    Row("verdict", _say_verdict, 0.0,
        "the verdict on the console: FATAL, or END after a requested stop"),
    Row("report", _publish, 0.0,
        "/run/nvrc/boot.json and status.json; the report on the console with nvrc.report=console"),
    Row("message", _leave_message, 10.0,
        "a failure that PID 1 decides while containers run: their termination messages, where they are empty"),
    Row("daemons", _stop_daemons, 0.0,
        "those that run are stopped one by one, the last one first; nvrc.timeout.services_stop"),
    Row("farewell", _say_farewell, 0.0,
        "a failure before the first sandbox: the runtime is answered in the agent's place; nvrc.timeout.farewell"),
    Row("sync", _write_back, SYNC_S,
        "what is dirty is written back"),
    Row("host", _await_host, 0.0,
        "an agent that powered off: time for the runtime to end the VM itself; nvrc.timeout.host_end"),
    Row("power", _switch_off, 0.0,
        "power off; where the kernel refuses that, restart, then crash; one that hangs there is reset after a minute"),
)


def end(stage: Stage, sleep: Callable[[float], None] = time.sleep, rows: tuple[Row, ...] = ENDING) -> NoReturn:
    """Every row in turn. What one raises is said, and the next one comes: PID 1 itself never exits."""
    for row in rows:
        try:
            set_alarm(row.limit_s)
            row.act(stage)
            set_alarm(0)
        except DeadlineError:
            stage.system.say(console.warning_line(f"{row.name} did not finish within {row.limit_s:g} s"))
        except BaseException as err:
            set_alarm(0)
            stage.system.say(console.warning_line(f"ending: {row.name}: {tell(err)}"))
    while True:
        sleep(3600)


def _settings(stage: Stage) -> Settings:
    """Those of the boot. A line that was refused as a whole still says, with the policy, what to do at the end."""
    if stage.init is not None and stage.init.executor.facts.parameters is not None:
        return stage.init.executor.facts.parameters.settings
    from nvrc.steps.parameters import read

    try:
        return read(stage.system).settings
    except Exception:
        return Settings()  # neither /proc nor a policy to read: there is nobody to ask


def _supervisor(init: Init | None) -> Supervisor | None:
    """Of an agent that lived, or that ended beside the boot."""
    if init is None:
        return None
    return init.life.supervisor if init.life is not None else init.early.supervisor if init.early is not None else None


def _had_sandbox(stage: Stage) -> bool:
    return stage.system.exists(paths.SANDBOX)


def _living_agent(stage: Stage) -> int | None:
    """The agent's pid as long as it is its own."""
    init = stage.init
    if init is None or (init.life is not None and init.life.supervisor.ending is not None):
        return None
    pid = init.executor.facts.agent_pid
    return None if any(pid == ended for ended, _status in init.ends_of_boot()) else pid


def _end_agent(stage: Stage) -> None:
    pid, init = _living_agent(stage), stage.init
    if pid is None or init is None:
        return
    until_s = stage.system.now() + AGENT_KILL_S
    stage.system.signal(pid, signal.SIGKILL)
    init.loop.at(until_s, lambda: None)
    init.loop.run(lambda: _living_agent(stage) is None or stage.system.now() >= until_s)


def _listen(stage: Stage, port: int, settings: Settings) -> int:
    """The agent's port. An early failure finds its transport not loaded yet."""
    try:
        return stage.system.listen_vsock(port)
    except OSError:
        if not _may_load(stage.system):
            raise
    from nvrc.hardware.modules import Modules
    from nvrc.machine.patience import run_within

    # The kernel waits for disks that are being found first, and no alarm breaks into that.
    modules = Modules(stage.system, options=settings.module_options)
    run_within(stage.load_s, lambda: modules.load_if_there(TRANSPORT))
    _make_node(stage.system)
    return stage.system.listen_vsock(port)


def _make_node(system: System) -> None:
    """/dev may be what could not be mounted."""
    if system.exists(paths.VSOCK) or not system.exists(paths.PROC_MISC):
        return
    for line in system.read(paths.PROC_MISC).splitlines():
        match line.split():
            case [minor, b"vsock"]:
                system.make_node(paths.VSOCK, Node(stat.S_IFCHR | 0o600, MISC, int(minor)))


def _may_load(system: Files) -> bool:
    try:
        return system.read(paths.MODULES_DISABLED, 8).strip() == b"0"
    except OSError:
        return False


def _note(stage: Stage, text: str) -> None:
    stage.system.say(f"{console.PREFIX}log {console.printable(text, 800)}", KERN_DEBUG)
