# SPDX-License-Identifier: Apache-2.0
"""The ready state taken back: which loss is a reason, the driver's own end of it, and the real worker on the stand-in."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from fakes.gpu_guest import CONFIDENTIAL, MakeGuest
from fakes.trouble import told
from nvrc.machine.journal import KERNEL, Line
from nvrc.machine.linux_system import LinuxSystem
from nvrc.machine.loop import Loop
from nvrc.nvml.client import prepare_worker
from nvrc.nvml.worker import Worker
from nvrc.params.values import RevokeRule
from nvrc.pid1.lease import FATAL, Lease
from nvrc.vocabulary.errors import make_trouble
from nvrc.vocabulary.trouble import Trouble

GPU_LOST = make_trouble("E_GPU_LOST", "GPU 0000:1a:00.0: Xid 79, fell off the bus", gpu="0000:1a:00.0")
GPU_FAULT = make_trouble("E_GPU_FAULT", "GPU 0000:1a:00.0: Xid 48", gpu="0000:1a:00.0")
FABRIC = make_trouble("E_SERVICE_LOST", "nv-fabricmanager exited with status 1", service="nv-fabricmanager")
SUBNET = make_trouble("E_SERVICE_LOST", "nvlsm exited with status 1", service="nvlsm")
HOLDER = make_trouble("E_SERVICE_LOST", "nvidia-persistenced was killed", service="nvidia-persistenced")
NO_METRICS = make_trouble("E_METRICS", "nvrc-metrics exited with status 2", service="nvrc-metrics")
UNREGISTERED = make_trouble("E_FABRIC_STATE", "GPU 0000:1a:00.0 left the fabric", gpu="0000:1a:00.0")
LOSSES = {"registration": UNREGISTERED, "gpu lost": GPU_LOST, "gpu fault": GPU_FAULT, "fabric": FABRIC, "subnet": SUBNET, "persistenced": HOLDER, "metrics": NO_METRICS}
REASONS = {
    RevokeRule.NEVER: set[str](), RevokeRule.GPU_LOST: {"gpu lost"}, RevokeRule.FABRIC_LOST: {"fabric", "subnet", "registration"},
    RevokeRule.ANY: {"registration", "gpu lost", "gpu fault", "fabric", "subnet", "persistenced"},
}


class World:
    def __init__(self, rule: RevokeRule, start: Callable[[], Worker], *, accepts: bool = True) -> None:
        self.clock = 100.0
        self.loop = Loop(lambda: self.clock)
        self.news: list[Trouble] = []
        self.killed: list[int] = []
        self.lease = Lease(rule, accepts=accepts, loop=self.loop, patience_s=5.0, start=start, kill=self.killed.append,
                           now=lambda: self.clock, changed=self.news.append)

    def settle(self) -> None:
        until = time.monotonic() + 10
        while not self.news and time.monotonic() < until:
            self.loop.turn()


def refuse() -> Worker:
    raise OSError("asked for a worker")


@pytest.mark.parametrize("rule", RevokeRule)
@pytest.mark.parametrize("loss", LOSSES)
def test_which_loss_is_a_reason(rule: RevokeRule, loss: str) -> None:
    world = World(rule, refuse)
    world.lease.note(LOSSES[loss])
    is_reason = loss in REASONS[rule]
    assert [one.code for one in world.news] == ["E_READY_STATE"] * is_reason
    world.loop.close()


def test_gpus_that_took_no_work_have_nothing_to_lose() -> None:
    world = World(RevokeRule.ANY, refuse, accepts=False)
    world.lease.note(GPU_LOST)
    assert (world.news, world.lease.is_revoked) == ([], False)
    world.loop.close()


@pytest.mark.parametrize(("uid", "text", "is_heard"), [
    (KERNEL, f"NVRM: {FATAL}", True), (KERNEL, f"NVRM: confComputeSetErrorState_KERNEL: {FATAL}", True), (0, f"NVRM: {FATAL}", False),
    (KERNEL, "NVRM: ConfCompute: all is well", False),
    (KERNEL, f"process '/{FATAL}' started with executable stack", False), (KERNEL, f"overlayfs: unrecognized mount option \"{FATAL}", False),
    (KERNEL, f"NVRM: x: page allocation failure: order:0, cpuset={FATAL},mems_allowed=0", False),
], ids=["the driver", "with its function", "a program", "another line", "a container's path", "its option", "its name"])
def test_the_drivers_own_end_is_heard_once_and_from_the_drivers_line_alone(uid: int, text: str, is_heard: bool) -> None:
    world = World(RevokeRule.NEVER, refuse)
    for _ in range(3):
        world.lease.hear(make_line(uid, text))
    assert len(world.news) == is_heard
    assert world.lease.is_revoked == is_heard
    if is_heard:
        assert told(world.news)[0].startswith("E_READY_REVOKED the driver revoked the ready state")
        assert "replace the VM" in world.news[0].hint
    world.loop.close()


def make_line(uid: int, text: str) -> Line:
    fields = dict.fromkeys(Line._fields, 0) | {"uid": uid, "text": text}
    return Line(**fields)


@pytest.fixture
def workers(gpu_guest: MakeGuest) -> Iterator[Callable[[str], Callable[[], Worker]]]:
    def make(text: str) -> Callable[[], Worker]:
        guest = gpu_guest(text=text)

        def start() -> Worker:
            worker = prepare_worker(LinuxSystem(str(guest.root)), "", root=str(guest.root), host=guest.host)
            guest._pids.append(worker.pid)
            return worker

        return start
    yield make


Workers = Callable[[str], Callable[[], Worker]]
WORKER = [pytest.mark.long, pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")]


class TestOnTheStandIn:
    pytestmark = WORKER

    def test_the_state_is_taken_back_and_stays_so(self, workers: Workers) -> None:
        world = World(RevokeRule.GPU_LOST, workers(f"{CONFIDENTIAL} ready=on"))
        world.lease.note(GPU_LOST)
        assert world.news == []  # nothing was waited for
        world.settle()
        assert told(world.news)[0] == ("E_READY_REVOKED the ready state of the GPUs was revoked (nvrc.ready.revoke=gpu-lost): "
                                       "GPU 0000:1a:00.0: Xid 79, fell off the bus")
        assert (world.lease.is_held, world.lease.is_revoked) == (False, True)
        world.lease.note(GPU_LOST)
        assert len(world.news) == 1
        world.loop.close()

    @pytest.mark.parametrize("fault", ["fail nvmlSystemSetConfComputeGpusReadyState 999", "crash nvmlSystemSetConfComputeGpusReadyState"],
                             ids=["refused", "crashed"])
    def test_a_library_that_does_not_do_it_is_told_and_the_lease_stands(self, workers: Workers, fault: str) -> None:
        world = World(RevokeRule.ANY, workers(f"{CONFIDENTIAL} ready=on\n{fault}"))
        world.lease.note(GPU_FAULT)
        world.settle()
        assert told(world.news)[0].startswith("E_READY_STATE the ready state of the GPUs could not be revoked: ")
        assert not world.lease.is_revoked
        world.loop.close()

    def test_a_library_that_hangs_is_killed_by_the_clock(self, workers: Workers) -> None:
        world = World(RevokeRule.ANY, workers(f"{CONFIDENTIAL} ready=on\nhang nvmlSystemSetConfComputeGpusReadyState"))
        world.lease.note(GPU_FAULT)
        world.loop.turn()
        world.clock += 5
        world.settle()
        assert "did not answer within 5 s" in world.news[0].what
        assert len(world.killed) == 1
        world.loop.close()
