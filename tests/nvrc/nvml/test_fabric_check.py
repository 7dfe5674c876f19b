# SPDX-License-Identifier: Apache-2.0
"""Registration with the NVLink fabric: what the numbers mean, how long it is waited for, and what changes in life."""

from __future__ import annotations

import select
import time
from collections.abc import Callable

import pytest

from fakes.gpu_guest import GpuGuest, MakeGuest, bus_id
from fakes.trouble import told
from nvrc.engine.facts import Facts, FailedWithFacts
from nvrc.machine.loop import Loop
from nvrc.nvml.answers import FabricState
from nvrc.nvml.registration import find_cliques, find_faults, is_settled, read_registrations, tell_changes
from nvrc.pid1 import fabric_watch
from nvrc.pid1.fabric_watch import FabricWatch
from nvrc.report.networks import FabricRecord, record_fabric
from nvrc.steps import fabric_check
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.trouble import Trouble

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")]

GOOD = FabricState(0, 3, 0, 1, "ab" * 16)
PLACES = {0: ("0000:1a:00.0", "GPU-0"), 1: ("0000:1b:00.0", "GPU-1")}
DONE = "fabric=completed fabric-clique=7"


@pytest.mark.parametrize(("state", "settled", "words"), [
    pytest.param(GOOD, True, None, id="good"),
    pytest.param(GOOD._replace(state=0), True, None, id="no-fabric"),
    pytest.param(GOOD._replace(state=-1), True, None, id="driver-without-the-question"),
    pytest.param(GOOD._replace(state=1, status=7), False, "not started, no status yet", id="not-started"),
    pytest.param(GOOD._replace(state=2), False, "in progress, no status yet", id="in-progress"),
    pytest.param(GOOD._replace(status=10), True, "completed, timeout", id="timeout"),
    pytest.param(GOOD._replace(status=77), True, "completed, status 77", id="unknown-status"),
    pytest.param(GOOD._replace(state=9), True, "unknown state 9, no status yet", id="unknown-state"),
])
def test_what_the_numbers_mean(state: FabricState, settled: bool, words: str | None) -> None:
    assert is_settled([state]) is settled
    faults = find_faults(read_registrations([state], PLACES))
    assert [fault.what for fault in faults] == ([] if words is None else [
        f"GPU 0000:1a:00.0 (GPU-0): its registration with the NVLink fabric is {words}"])
    assert all((fault.code, fault.gpu, fault.uuid) == ("E_FABRIC_STATE", "0000:1a:00.0", "GPU-0") for fault in faults)


@pytest.mark.parametrize(("other", "words"), [
    pytest.param(GOOD._replace(number=1), "", id="one-clique"),
    pytest.param(GOOD._replace(number=1, clique=2), f"clique 1 of cluster {'ab' * 16}: 0000:1a:00.0; clique 2 of cluster "
                 f"{'ab' * 16}: 0000:1b:00.0", id="two-cliques"),
    pytest.param(GOOD._replace(number=1, cluster="00" * 16), f"clique 1: 0000:1b:00.0; clique 1 of cluster {'ab' * 16}: 0000:1a:00.0",
                 id="two-clusters"),
    pytest.param(GOOD._replace(number=1, clique=2, status=10), "", id="of-those-that-are-registered"),
])
def test_gpus_that_cannot_reach_each_other_are_a_warning(other: FabricState, words: str) -> None:
    warned = find_cliques(read_registrations([GOOD, other], PLACES))
    assert [(one.code, one.what) for one in warned] == (
        [("E_FABRIC_CLIQUE", f"the GPUs are in 2 cliques of the NVLink fabric ({words})")] if words else [])


def test_what_has_changed_is_news() -> None:
    before = read_registrations([GOOD, GOOD._replace(number=1)], PLACES)
    assert tell_changes(before, before) == ()
    lost = read_registrations([GOOD._replace(status=15), GOOD._replace(number=1, clique=4)], PLACES)
    assert [(one.code, one.step, one.what) for one in tell_changes(before, lost)] == [
        ("E_FABRIC_STATE", "supervise", "GPU 0000:1a:00.0 (GPU-0): its registration with the NVLink fabric is completed, GPU is lost"),
        ("", "", "GPU 0000:1b:00.0: its registration with the NVLink fabric is completed, success, clique 4; it was "
                 "completed, success, clique 1")]
    assert [one.code for one in tell_changes(lost, before)] == ["", ""], "what came back is worth a remark"


def checked(guest: GpuGuest) -> Facts:
    return fabric_check.run(guest.system, guest.boot(1))


@pytest.mark.parametrize(("gpus", "keys", "line"), [
    pytest.param(2, "", "no GPU has a fabric", id="no-fabric"),
    pytest.param(1, DONE, "1 of 1 GPUs registered, clique 7", id="one-of-a-board"),
    pytest.param(2, DONE, "2 of 2 GPUs registered, clique 7", id="two-of-a-board"),
    pytest.param(4, DONE, "4 of 4 GPUs registered, clique 7", id="four-of-a-board"),
])
def test_registered_gpus(gpu_guest: MakeGuest, gpus: int, keys: str, line: str) -> None:
    facts = checked(gpu_guest(gpus=gpus, keys=keys))
    assert fabric_check.tell(facts) == line
    assert told(facts.warnings) == ()
    assert record_fabric(facts) == tuple(
        FabricRecord(gpu=bus_id(i), state="completed", status="success", clique=7) for i in range(gpus if keys else 0))


def test_a_driver_with_the_first_question_only(gpu_guest: MakeGuest) -> None:
    facts = checked(gpu_guest(keys=DONE, text="fail nvmlDeviceGetGpuFabricInfoV 13"))
    assert fabric_check.tell(facts) == "2 of 2 GPUs registered, clique 7"


def test_a_driver_without_the_question(gpu_guest: MakeGuest) -> None:
    text = "fail nvmlDeviceGetGpuFabricInfoV 13\nfail nvmlDeviceGetGpuFabricInfo 13"
    assert fabric_check.tell(checked(gpu_guest(keys=DONE, text=text))) == "no GPU has a fabric"


def test_a_slow_registration_is_waited_for(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest(keys="fabric=in-progress")

    def finish() -> None:
        guest.keys = DONE
        guest.describe("")

    guest.system.later(20, finish)
    began_s = guest.system.now()
    assert fabric_check.tell(checked(guest)) == "2 of 2 GPUs registered, clique 7"
    assert 20 <= guest.system.now() - began_s < 21


def test_one_that_does_not_come_ends_the_boot_with_gpu_state_and_status(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest("nvrc.timeout.fabric=30 nvrc.timeout.per_gpu=1", keys="fabric=not-started")
    began_s = guest.system.now()
    with pytest.raises(FailedWithFacts) as caught:
        checked(guest)
    assert caught.value.code == "E_FABRIC_STATE"
    assert f"GPU {bus_id(0)} (GPU-" in caught.value.what
    assert "its registration with the NVLink fabric is not started, no status yet; GPU " in caught.value.what
    assert 32 <= guest.system.now() - began_s < 33
    assert record_fabric(caught.value.facts)[1].state == "not started"


def test_one_that_failed_is_not_waited_for(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest(keys="fabric=completed fabric-status=10")
    began_s = guest.system.now()
    with pytest.raises(NvrcError, match="completed, timeout"):
        checked(guest)
    assert guest.system.now() == began_s


def test_a_machine_that_may_go_on_with_fewer_gpus_is_warned(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest("nvrc.gpus=min:1", on_bus=3, keys=DONE, text=f"gpu 2 bus={bus_id(2)} minor=2 fabric=completed fabric-status=3")
    facts = checked(guest)
    assert [one.code for one in facts.warnings if one.code] == ["E_FABRIC_STATE"]
    assert fabric_check.tell(facts) == "2 of 3 GPUs registered, clique 7"


# In life.

class Watched:
    """A watch whose timers go off at once, on a loop that is turned by hand."""

    def __init__(self, guest: GpuGuest, changed: Callable[[Trouble], None] | None = None) -> None:
        self.news: list[Trouble] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.loop = Loop(time.monotonic)
        facts = checked(guest)
        assert facts.worker is not None
        self.worker = facts.worker
        places = {gpu.number: (gpu.bdf, gpu.uuid) for gpu in facts.gpus or ()}
        self.watch = FabricWatch(facts.worker, self.loop, facts.fabric or (), places, changed=changed or self.news.append, patience_s=5,
                                 later=lambda after_s, act: self.timers.append((after_s, act)))

    def ask(self) -> None:
        (due,) = [act for after_s, act in self.timers if after_s == fabric_watch.PERIOD_S]
        self.timers.clear()
        due()

    def answer(self) -> None:
        """Until the worker has said all that it says."""
        ended = time.monotonic() + 20
        while self.worker.is_asked and time.monotonic() < ended:
            self.loop.at(time.monotonic() + 0.05, lambda: None)
            self.loop.serve()


def test_a_gpu_that_leaves_the_fabric_is_told_once(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest(keys=DONE)
    watched = Watched(guest)
    watched.ask()
    watched.answer()
    assert (watched.news, watched.watch.is_whole) == ([], True)
    guest.keys = "fabric=not-started"
    guest.describe("")
    for _ in range(2):
        watched.ask()
        watched.answer()
    assert [one.code for one in watched.news] == ["E_FABRIC_STATE", "E_FABRIC_STATE"]
    assert not watched.watch.is_whole


def test_a_worker_that_dies_ends_the_watch_and_nothing_else(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest(keys=DONE)
    watched = Watched(guest)
    guest.describe("crash nvmlDeviceGetGpuFabricInfoV")
    watched.ask()
    watched.answer()
    assert [one.what for one in watched.news] == [
        "the NVLink fabric is not watched any more: the worker with NVIDIA's library ended during 'fabric'"]
    assert [after_s for after_s, _ in watched.timers] == [5], "it is not asked again"
    watched.timers[0][1]()  # the limit of a question that is over
    assert len(watched.news) == 1


def test_what_was_not_foreseen_ends_the_watch_and_never_pid_1(gpu_guest: MakeGuest) -> None:
    """Such as an answer that is nested as deep as Python just reads: to tell it took one level more."""
    told: list[str] = []

    def change(news: Trouble) -> None:
        told.append(news.what)
        if len(told) == 1:
            raise RecursionError("maximum recursion depth exceeded")

    guest = gpu_guest(keys=DONE)
    watched = Watched(guest, change)
    guest.keys = "fabric=not-started"
    guest.describe("")
    watched.ask()
    watched.answer()
    assert told[1].startswith("the NVLink fabric is not watched any more: RecursionError: maximum recursion depth exceeded at ")
    assert fabric_watch.PERIOD_S not in [after_s for after_s, _ in watched.timers], "it is not asked again"


def test_a_gpu_that_is_told_again_and_again_ends_the_watch(gpu_guest: MakeGuest) -> None:
    """News of each, and the square of their number in time: 250,000 held PID 1 for two hours."""
    watched = Watched(gpu_guest(keys=DONE))
    with pytest.raises(NvrcError, match="is not about the GPUs that were asked for"):
        watched.watch._judge((*(FabricState(one, 3, 1, number, "") for one in (0, 1) for number in range(4)),))
    assert watched.news == []


def test_a_worker_that_hangs_is_given_up(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest(keys=DONE)
    watched = Watched(guest)
    guest.describe("hang nvmlDeviceGetGpuFabricInfoV")
    watched.ask()
    watched.timers[-1][1]()
    assert [one.what for one in watched.news] == ["the NVLink fabric is not watched any more: no answer within 5 s"]
    assert f"signal {watched.worker.pid} 9" in guest.system.effects or not watched.worker.is_there


def test_while_another_question_is_open_it_waits_for_its_next_turn(gpu_guest: MakeGuest) -> None:
    watched = Watched(gpu_guest(keys=DONE))
    assert watched.worker.begin("gpus")
    watched.ask()
    assert [after_s for after_s, _ in watched.timers] == [fabric_watch.PERIOD_S]
    while watched.worker.take() is None:
        select.select([watched.worker.answers], [], [], 5)
