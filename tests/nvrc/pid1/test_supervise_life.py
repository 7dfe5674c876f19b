# SPDX-License-Identifier: Apache-2.0
"""Life after the hand-over: the parts together, on a real event loop with the fake clock."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.daemons import Stage, exited
from fakes.trouble import told
from nvrc.engine.facts import Facts
from nvrc.machine.loop import Loop
from nvrc.machine.privileges import PERSISTENCED_ACCOUNT
from nvrc.nvml.answers import NvmlGpu
from nvrc.nvml.judge import Confidential
from nvrc.nvml.judge import Mode as CcState
from nvrc.nvml.readiness import Outcome, Ready
from nvrc.nvml.registration import Registration
from nvrc.nvml.worker import Worker
from nvrc.pid1.life import MOST_NEWS, MOST_OF_A_CODE, Life, is_confidential, remember
from nvrc.services.table import EXPORTER, FABRIC_MANAGER, HOST_ENGINE, PERSISTENCED, Running, describe
from nvrc.vocabulary import paths
from nvrc.vocabulary.ending import Orderly
from nvrc.vocabulary.errors import make_trouble
from nvrc.vocabulary.gpu import GpuRecord, GpuState
from nvrc.vocabulary.mode import Mode
from nvrc.vocabulary.trouble import Trouble, remark
from nvrc.vocabulary.verdict import Verdict

AGENT = 40
ATTACHED = GpuRecord(bdf="0000:40:00.0", state=GpuState.ATTACHED)
TERM = int(signal.SIGTERM)


def running(service: object, pid: int) -> Running:
    return Running(service=service, program=describe(service, ""), started_pid=pid, pid=pid, since_s=99.0)  # type: ignore[arg-type]


class World:
    def __init__(self, root: str) -> None:
        self.stage = Stage(root)
        self.system = self.stage.system
        self.loop = Loop(self.system.now)
        self.verdicts: list[Verdict] = []

    def life(self, facts: Facts, *, degraded: bool = False) -> Life:
        return Life(self.system, self.loop, self.stage.journal, replace(facts, agent_pid=AGENT), is_degraded=degraded,
                    publish=self.verdicts.append)

    def gpu_facts(self, cmdline: str = "", *services: Running) -> Facts:
        return replace(self.stage.facts(cmdline=cmdline), ledger=(ATTACHED,), services=services)

    def pass_time(self, seconds: float) -> None:
        self.system.clock += seconds
        self.loop.turn()

    @property
    def warned(self) -> list[str]:
        return [line.removeprefix("nvrc: warn ") for line in self.system.said]

    @property
    def signals(self) -> list[str]:
        return [effect.removeprefix("signal ") for effect in self.system.effects if effect.startswith("signal")]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(str(tmp_path))
    yield world
    world.loop.close()


@pytest.mark.parametrize("fabric", [(), (Registration(ATTACHED.bdf, "", "completed", "success", 1, "", is_good=True),)],
                         ids=["no-fabric", "fabric"])
def test_the_worker_stays_where_there_is_a_fabric_to_watch(world: World, fabric: tuple[Registration, ...]) -> None:
    """It ends with the hand-over, not before: the agent would wait for that."""
    answers, questions = os.pipe()
    worker = Worker(world.system, questions, answers, 99)
    world.life(replace(world.gpu_facts(), worker=worker, fabric=fabric))
    assert worker.is_there is bool(fabric)
    worker.stop()


def test_a_cpu_machine_has_nothing_to_watch_but_the_agent(world: World) -> None:
    life = world.life(world.stage.facts(Mode.CPU, gpus=0))
    assert (life.verdict, life.gpus, life.services) == (Verdict.NO_GPU, (), ())
    life.child_ended(9, 0)
    assert life.supervisor.orphans_reaped == 1
    life.stop_daemons()
    world.system.put("/run/kata-containers/.keep")
    life.child_ended(AGENT, int(signal.SIGINT))
    assert life.ending is not None
    assert isinstance(life.ending, Orderly)
    assert world.verdicts == []


def test_an_agent_that_never_had_a_sandbox_did_not_end_in_order(world: World) -> None:
    life = world.life(world.stage.facts(Mode.CPU, gpus=0))
    life.child_ended(AGENT, int(signal.SIGINT))
    assert isinstance(life.ending, Trouble)
    assert life.ending.code == "E_AGENT_EXIT"


def test_a_daemon_that_dies_degrades_at_once(world: World) -> None:
    life = world.life(world.gpu_facts("", running(FABRIC_MANAGER, 52)))
    assert life.verdict is Verdict.READY
    life.child_ended(52, int(signal.SIGSEGV))
    assert world.verdicts == [Verdict.DEGRADED]
    assert life.ending is None
    assert world.warned == ["E_SERVICE_LOST nv-fabricmanager was killed by SIGSEGV 1.0 s after its start; it will not be restarted"]
    assert told(life.news) == tuple(world.warned)
    assert life.supervisor.orphans_reaped == 0


def test_strict_makes_it_the_vms_end(world: World) -> None:
    life = world.life(world.gpu_facts("nvrc.strict=on", running(FABRIC_MANAGER, 52)))
    life.child_ended(52, 0)
    assert isinstance(life.ending, Trouble)
    assert life.ending.code == "E_SERVICE_LOST"


def test_a_helper_is_back_after_its_pause(world: World) -> None:
    life = world.life(world.gpu_facts("", running(EXPORTER, 57)))
    life.child_ended(57, exited(1))
    assert (life.services[0].state.value, world.system.programs) == ("restarting", [])
    world.pass_time(1)
    assert (life.services[0].state.value, life.services[0].pid, life.services[0].restarts) == ("running", 4711, 1)
    assert world.verdicts == [Verdict.READY, Verdict.READY]


def test_a_gpu_that_is_lost_degrades(world: World) -> None:
    life = world.life(world.gpu_facts())
    world.stage.kernel_says(1, "NVRM: Xid (PCI:0000:40:00): 79, off")
    world.system.schedule.pop()[1]()
    assert life.gpus[0].state is GpuState.LOST
    assert world.verdicts == [Verdict.DEGRADED]
    assert world.warned == ["E_GPU_LOST GPU 0000:40:00.0: Xid 79, fell off the bus: off"]


@pytest.mark.parametrize(("degraded", "state", "verdict"), [
    (False, GpuState.ATTACHED, Verdict.READY), (True, GpuState.ATTACHED, Verdict.DEGRADED),
    (False, GpuState.FAILED, Verdict.DEGRADED)])
def test_the_verdict_of_the_hand_over(world: World, degraded: bool, state: GpuState, verdict: Verdict) -> None:
    facts = replace(world.gpu_facts(), ledger=(replace(ATTACHED, state=state),))
    assert world.life(facts, degraded=degraded).verdict is verdict


@pytest.mark.parametrize(("mode", "confidential"), [
    (None, True), (CcState.ON, True), (CcState.PPCIE, True), (CcState.DEVTOOLS, True), (CcState.OFF, False)])
def test_only_a_mode_that_was_read_as_off_is_off(world: World, mode: CcState | None, confidential: bool) -> None:
    facts = replace(world.gpu_facts(), confidential=Confidential(mode, "read") if mode else None)
    assert is_confidential(facts) is confidential


def test_persistenced_comes_back_where_nothing_is_confidential(world: World) -> None:
    facts = replace(world.gpu_facts("", running(PERSISTENCED, 54)), confidential=Confidential(CcState.OFF, "read"))
    life = world.life(facts)
    life.child_ended(54, 0)
    assert life.services[0].state.value == "restarting"


PERSISTENCED_SAYS = "nvidia-persistenced: device 0000:40:00.0 - "


@pytest.mark.parametrize(("said", "state", "code", "news"), [
    (("registered", "persistence mode enabled."), GpuState.ATTACHED, "", ()),
    (("registered", "failed to open."), GpuState.FAILED, "E_GPU_ATTACH",
     ("E_GPU_ATTACH GPU 0000:40:00.0: not attached again by nvidia-persistenced",)),
    ((), GpuState.FAILED, "E_GPU_ATTACH", ("E_GPU_ATTACH GPU 0000:40:00.0: not attached again by nvidia-persistenced",)),
], ids=["attached", "failed", "silent"])
def test_a_daemon_that_came_back_has_to_attach_again(world: World, said: tuple[str, ...], state: GpuState, code: str,
                                                     news: tuple[str, ...]) -> None:
    world.stage.program("/bin/nvidia-persistenced")
    facts = replace(world.gpu_facts("", running(PERSISTENCED, 54)), confidential=Confidential(CcState.OFF, "read"))
    life = world.life(facts)
    life.child_ended(54, exited(0))
    world.pass_time(1)
    for text in said:
        world.stage.journal._hear(PERSISTENCED_ACCOUNT.uid, 6, PERSISTENCED_SAYS + text, 4711, gid=PERSISTENCED_ACCOUNT.gid)
    life.child_ended(4711, exited(0))
    world.pass_time(1)
    assert (life.gpus[0].state, life.gpus[0].code) == (state, code)
    held = 0 if code else 1
    assert tuple(world.warned[-1 - len(news):]) == (*news, f"nvidia-persistenced has attached {held} of 1 GPUs again")
    assert life.verdict is (Verdict.DEGRADED if code else Verdict.READY)


def test_what_others_say_of_a_gpu_meanwhile_counts_for_nothing(world: World) -> None:
    world.stage.program("/bin/nvidia-persistenced")
    facts = replace(world.gpu_facts("", running(PERSISTENCED, 54)), confidential=Confidential(CcState.OFF, "read"))
    life = world.life(facts)
    life.child_ended(54, exited(0))
    world.pass_time(1)
    world.stage.journal._hear(1000, 6, f"{PERSISTENCED_SAYS}persistence mode enabled.", 4711, gid=PERSISTENCED_ACCOUNT.gid)
    world.stage.journal._hear(PERSISTENCED_ACCOUNT.uid, 6, f"{PERSISTENCED_SAYS}persistence mode enabled.", 666, gid=PERSISTENCED_ACCOUNT.gid)
    world.stage.journal._hear(0, 6, f"{PERSISTENCED_SAYS}persistence mode enabled.", source="nv-fabricmanager")
    life.child_ended(4711, exited(0))
    world.pass_time(1)
    assert life.gpus[0].code == "E_GPU_ATTACH"


def test_gpus_that_the_boot_went_on_without_are_not_whole(world: World) -> None:
    gpus = (NvmlGpu(0, ATTACHED.bdf, "", "", 0, "nvmlDeviceGetUUID returned 15"),)
    life = world.life(replace(world.gpu_facts(), gpus=gpus))
    assert (life.gpus[0].code, life.verdict) == ("E_GPU_NVML", Verdict.DEGRADED)


# The stop


def test_the_agent_is_asked_then_killed_then_given_up(world: World) -> None:
    life = world.life(world.gpu_facts("nvrc.timeout.agent_stop=7"))
    life.stop_requested(signal.SIGTERM)
    life.stop_requested(signal.SIGTERM)
    assert world.signals == [f"{AGENT} {TERM}"]
    world.pass_time(7)
    assert world.signals[1:] == [f"{AGENT} {int(signal.SIGKILL)}"]
    world.pass_time(5)
    assert life.ending is not None
    assert life.ending.what == "the agent did not end after SIGKILL"


def test_an_agent_that_cannot_hear_the_question_is_not_asked(world: World) -> None:
    world.system.put(f"/proc/{AGENT}/status", "SigBlk:\t0\nSigIgn:\t0\nSigCgt:\t10000\n")
    life = world.life(world.gpu_facts())
    life.stop_requested(signal.SIGINT)
    assert world.signals == [f"{AGENT} {int(signal.SIGKILL)}"]
    life.child_ended(AGENT, int(signal.SIGKILL))
    assert life.ending is not None
    assert life.ending == Orderly("stopped by SIGINT to PID 1; the agent was killed by SIGKILL")


def test_outside_a_namespace_of_its_own_every_agent_hears(world: World) -> None:
    world.system.put(f"/proc/{AGENT}/status", "SigBlk:\t0\nSigIgn:\t0\nSigCgt:\t0\n")
    world.life(world.gpu_facts("nvrc.agent.pidns=off")).stop_requested(signal.SIGINT)
    assert world.signals == [f"{AGENT} {TERM}"]


def test_the_agents_end_is_no_daemons_whatever_its_pid_file_says(world: World) -> None:
    """A host engine that names the agent as itself, and whose VM would never end."""
    engine = Running(service=HOST_ENGINE, program=describe(HOST_ENGINE, ""), started_pid=55, pid=None, since_s=100.0)
    life = world.life(world.gpu_facts("", engine))
    world.system.put(paths.HOSTENGINE_PID, f"{AGENT}\n")
    life.child_ended(AGENT, int(signal.SIGINT))
    assert life.ending is not None
    assert [record.state.value for record in life.services] == ["running"]


def test_an_agent_that_is_gone_already_needs_no_signal(world: World) -> None:
    life = world.life(world.gpu_facts())
    world.system.fail[f"signal {AGENT} {TERM}"] = ProcessLookupError(3, "No such process")
    life.stop_requested(signal.SIGTERM)
    life.child_ended(AGENT, TERM)
    assert life.ending is not None
    assert isinstance(life.ending, Orderly)


def test_daemons_stop_after_the_agent_in_reverse_order(world: World) -> None:
    life = world.life(world.gpu_facts("", running(FABRIC_MANAGER, 52), running(PERSISTENCED, 54)))

    def end_both() -> None:
        life.child_ended(54, TERM)
        life.child_ended(52, TERM)

    world.loop.at(world.system.clock, end_both)
    life.stop_daemons()
    assert world.signals == [f"54 {TERM}", f"52 {TERM}"]
    assert [record.state.value for record in life.services] == ["stopped", "stopped"]
    assert world.warned == []


def test_a_daemon_that_does_not_stop_is_killed_and_named(world: World) -> None:
    life = world.life(world.gpu_facts("nvrc.timeout.services_stop=2", running(FABRIC_MANAGER, 52)))

    daemons = life._daemons
    assert daemons is not None
    kill = daemons.kill

    def kill_for_good() -> None:
        kill()
        life.child_ended(52, int(signal.SIGKILL))

    daemons.kill = kill_for_good  # type: ignore[method-assign]
    world.loop.at(world.system.clock, lambda: setattr(world.system, "clock", world.system.clock + 3))
    life.stop_daemons()
    assert world.signals == [f"52 {TERM}", f"52 {int(signal.SIGKILL)}"]
    assert world.warned == ["nv-fabricmanager did not stop within 2 s"]


# Nothing raises


def explode(*_arguments: object) -> None:
    raise RuntimeError("on purpose")


def test_whatever_goes_wrong_is_said_and_passed_over(world: World) -> None:
    life = world.life(world.gpu_facts("", running(EXPORTER, 57)))
    assert life._health is not None and life._daemons is not None
    life._health._changed = explode
    world.stage.kernel_says(1, "NVRM: Xid (PCI:0000:40:00): 79, off")
    world.system.schedule.pop()[1]()
    life._daemons._changed = explode
    life.child_ended(57, exited(1))
    world.pass_time(1)
    life._daemons.stop = explode  # type: ignore[method-assign]
    life.stop_daemons()
    world.system.put("/run/kata-containers/.keep")
    life.child_ended(AGENT, int(signal.SIGINT))
    assert life.ending is not None
    assert [line.split(" at ")[0] for line in world.warned] == ["supervision: RuntimeError: on purpose"] * 4


def test_a_confidential_vm_whose_driver_revokes_the_ready_state_is_degraded(world: World) -> None:
    facts = replace(world.gpu_facts(), confidential=Confidential(CcState.ON, "read"),
                    ready=Ready(Outcome.SET, True, "read back: ready"))
    life = world.life(facts)
    assert (life.ready, life.verdict) == ("accepting", Verdict.READY)
    world.stage.kernel_says(1, "NVRM: ConfCompute: Fatal error hit!")
    world.system.schedule.pop()[1]()
    assert (life.ready, life.verdict) == ("revoked", Verdict.DEGRADED)
    assert world.warned[-1].startswith("E_READY_REVOKED the driver revoked the ready state of the GPUs")


def test_gpus_that_are_not_confidential_have_no_ready_state(world: World) -> None:
    facts = replace(world.gpu_facts("nvrc.ready.revoke=any"), confidential=Confidential(CcState.OFF, "read"),
                    ready=Ready(Outcome.NOT_APPLICABLE, True, "no confidential mode"))
    assert world.life(facts).ready == ""


def test_what_is_told_again_and_again_pushes_nothing_else_out() -> None:
    lost = make_trouble("E_GPU_LOST", "GPU 0000:41:00.0: Xid 79", gpu="0000:41:00.0")
    news = remember((), lost)
    for number in range(1000):
        news = remember(news, make_trouble("E_MEMORY", f"the kernel killed 'a' (pid {number})"))
    assert news[0] is lost
    assert [one.what for one in news[1:]] == [f"the kernel killed 'a' (pid {number})" for number in range(1000 - MOST_OF_A_CODE, 1000)]
    for number in range(1000):
        news = remember(news, remark(f"a note {number}"))
    assert len(news) == MOST_NEWS
