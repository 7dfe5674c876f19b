# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fakes.steps import Doing
from fakes.system import FakeSystem, bare_guest
from nvrc.engine.executor import BootError, Executor
from nvrc.engine.facts import Facts
from nvrc.engine.table import Step
from nvrc.machine.journal import Journal
from nvrc.machine.loop import Loop
from nvrc.machine.system import System
from nvrc.pid1.life import agent_record
from nvrc.pid1.supervise import Supervisor
from nvrc.report import publish
from nvrc.report.report import from_json, to_json
from nvrc.report.status import ServiceRecord, ServiceState, XidRecord
from nvrc.vocabulary import paths
from nvrc.vocabulary.ending import Ending
from nvrc.vocabulary.errors import make_trouble
from nvrc.vocabulary.gpu import GpuRecord, GpuState
from nvrc.vocabulary.trouble import Trouble, remark
from nvrc.vocabulary.verdict import Verdict

KMSG = [
    b"6,100,900000,-;something else\n",
    b"6,200,1500000,-;Run /init as init process\n",
    b"14,201,1600000,-;nvrc: step parameters ok 0.010s\n",
]


@dataclass
class Living:
    """A life that the test makes up."""

    supervisor: Supervisor
    services: tuple[ServiceRecord, ...] = ()
    gpus: tuple[GpuRecord, ...] = ()
    news: tuple[Trouble, ...] = ()
    xids: tuple[XidRecord, ...] = ()
    ready: str = ""

    @property
    def ending(self) -> Ending | None:
        return self.supervisor.ending

    @property
    def agent(self) -> ServiceRecord:
        return agent_record(self.supervisor)

    @property
    def orphans_reaped(self) -> int:
        return self.supervisor.orphans_reaped


def finished(system: FakeSystem, *more: Step) -> Executor:
    loop = Loop(system.now)
    table = (Step("parameters"), Step("topology"), *more)
    executor = Executor(system, loop, table, finished=lambda _r, _f: None, alarm=lambda _s: None)
    try:
        executor.run()
    except BootError:
        pass
    finally:
        loop.close()
    return executor


def write(system: FakeSystem, executor: Executor, verdict: Verdict, life: Living | None, *, cpu_s: float | None = None) -> None:
    journal = Journal(system)
    boot = publish.describe(system, executor, started_s=99.5, verdict=verdict, journal=journal, cpu_s=cpu_s)
    publish.write(system, boot, to_json(boot), journal=journal, life=life)


def test_report_of_a_boot_reads_back(tmp_path: Path) -> None:
    system = bare_guest(str(tmp_path))
    system.make_dir(paths.RUN)
    system.put("/proc/cmdline", "nvrc.smi.lgc=1200 nvrc.unknown=1")
    system.put("/proc/self/status", "Name:\tnvrc\nVmRSS:\t   18432 kB\n")
    supervisor = Supervisor(agent_pid=7, own_pid_namespace=True, started_s=101.0)
    supervisor.child_ended(9, 0, 102.0)
    write(system, finished(system), Verdict.READY, Living(supervisor), cpu_s=0.04)
    report = from_json(system.read(paths.REPORT))
    assert report.verdict is Verdict.READY
    assert (report.cpu_s, report.resident_kib) == (0.04, 18432)
    assert [step.name for step in report.steps] == ["parameters", "topology"]
    assert {p.name: p.value for p in report.parameters}["nvrc.smi.lgc"] == "1200"
    assert (len(report.notes), report.troubles) == (1, ())
    status = json.loads(system.read(paths.STATUS))
    assert status["services"] == [{"name": "agent", "state": "running", "pid": 7, "restarts": 0, "since_s": 101.0, "detail": None}]
    assert status["orphans_reaped"] == 1
    assert status["resident_kib"] == 18432
    assert status["failure"] is None


def test_report_of_a_failed_boot_names_the_failure(tmp_path: Path) -> None:
    def fail(_system: System, _facts: Facts) -> Facts:
        raise RuntimeError("no")

    system = bare_guest(str(tmp_path))
    system.make_dir(paths.RUN)
    executor = finished(system, Step("last", needs=("topology",), does=Doing(fail)), Step("never", needs=("last",), does=Doing(fail)))
    write(system, executor, Verdict.FAILED, None)
    report = from_json(system.read(paths.REPORT))
    assert report.failure is not None
    assert (report.failure.code, report.failure.step) == ("E_INTERNAL", "last")
    assert report.steps[-1].start_s is None
    assert json.loads(system.read(paths.STATUS))["services"] == []


def test_gpus_and_daemons_are_in_the_status_and_the_boots_ledger_in_the_report(tmp_path: Path) -> None:
    system = bare_guest(str(tmp_path))
    system.make_dir(paths.RUN)
    gpu = GpuRecord(bdf="0000:40:00.0", uuid="GPU-1", state=GpuState.ATTACHED, seconds=3.5)
    lost = replace(gpu, state=GpuState.LOST, code="E_GPU_LOST")
    daemon = ServiceRecord(name="nvidia-persistenced", state=ServiceState.RUNNING, pid=9, since_s=3.0)
    executor = finished(system, Step("persistenced", needs=("topology",), does=Doing(lambda _s, facts: replace(facts, ledger=(gpu,)))))
    life = Living(Supervisor(agent_pid=7, own_pid_namespace=True, started_s=101.0), (daemon,), (lost,), (remark("news"), make_trouble("E_GPU_LOST", "GPU gone", gpu=gpu.bdf, uuid=gpu.uuid)))
    write(system, executor, Verdict.READY, life)
    assert from_json(system.read(paths.REPORT)).gpus == (gpu,)
    publish.write_status(system, executor, verdict=Verdict.DEGRADED, journal=Journal(system), life=life)
    status = json.loads(system.read(paths.STATUS))
    assert status["verdict"] == "degraded"
    assert [service["name"] for service in status["services"]] == ["agent", "nvidia-persistenced"]
    assert (status["gpus"][0]["state"], status["gpus"][0]["code"]) == ("lost", "E_GPU_LOST")
    assert (status["notes"], [one["gpu"] for one in status["troubles"]]) == (["news"], [gpu.bdf])
    assert status["degraded_by"] == status["troubles"]


@pytest.mark.parametrize(("status", "state", "code"), [(2, "stopped", None), (256, "failed", "E_AGENT_EXIT")])
def test_the_end_of_the_agent_is_in_the_status(tmp_path: Path, status: int, state: str, code: str | None) -> None:
    system = bare_guest(str(tmp_path))
    supervisor = Supervisor(agent_pid=7, own_pid_namespace=True, started_s=101.0)
    supervisor.child_ended(7, status, 103.0)
    boot = publish.describe_boot(Facts(), (), verdict=Verdict.READY, started_s=1.0, interpreter_s=None, log_tail=())
    life = publish.describe_life(boot, Journal(system), Living(supervisor), 3.0)
    assert life.services[0].state.value == state
    assert (life.failure.code if life.failure else None) == code


@pytest.mark.parametrize("path", [b"/init", b"/sbin/init"])
def test_interpreter_time_is_measured_on_one_clock(path: bytes) -> None:
    """The kernel's stamps lag the boot clock by 0.4 s here: the anchor was said at 2.0, stamped 1.6."""
    records = [record.replace(b"/init", path) for record in KMSG]
    assert publish.interpreter_seconds(records, started_s=1.95, anchor="nvrc: step parameters ", anchor_s=2.0) == pytest.approx(0.05)


@pytest.mark.parametrize("records", [KMSG[:2], KMSG[2:], []])
def test_interpreter_time_is_unknown_without_both_lines(records: list[bytes]) -> None:
    assert publish.interpreter_seconds(records, started_s=1.9, anchor="nvrc: step parameters ", anchor_s=2.0) is None
