# SPDX-License-Identifier: Apache-2.0
"""The page as a whole, from an init that answers and a library that does so for a while."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fakes.metrics import value
from nvrc.beside.child import MOST_GPUS, NvmlChild, Read
from nvrc.beside.main import Watcher
from nvrc.machine.control import listen, serve
from nvrc.machine.foreign import Burden
from nvrc.machine.loop import Loop
from nvrc.report.status import Status, to_json
from nvrc.vocabulary.gpu import GpuRecord, GpuState
from nvrc.vocabulary.verdict import Verdict

UUID, BDF, SERIAL = "GPU-11111111-2222-3333-4444-555555555555", "0000:41:00.0", "1650123"
STATUS = Status(program="nvrc 0.1.0", verdict=Verdict.DEGRADED, mode="gpu", updated_s=12.0, gpus=(
    GpuRecord(bdf=BDF, uuid=UUID, state=GpuState.LOST, code="E_GPU_LOST", seconds=3.0),))


def nobody() -> Read:
    raise AssertionError("nothing is asked in here")


@contextmanager
def answering(path: Path, times: int) -> Iterator[None]:
    """PID 1's side of the control socket, as often as that."""
    told: list[int] = []

    def answer() -> bytes:
        told.append(1)
        return to_json(STATUS)

    listener = listen(str(path))
    loop = Loop(lambda: 0.0)
    loop.watch(listener, lambda: serve(listener, answer, Burden()))
    thread = threading.Thread(target=lambda: loop.run(lambda: len(told) == times))
    thread.start()
    yield
    thread.join(10)
    loop.close()


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="PID 1 answers root")
def test_a_gpu_that_the_library_lists_no_more_keeps_its_serial_number(tmp_path: Path) -> None:
    nvml = NvmlChild(nobody, 60.0)
    watcher = Watcher(nvml, None, lambda: 0.0, control=str(tmp_path / "control"), report_path=str(tmp_path / "none"))
    labels = {"gpu": UUID, "bus_id": BDF, "serial": SERIAL}
    with answering(tmp_path / "control", 2):
        nvml.latest = {"gpus": [{"up": True, "uuid": UUID, "bus_id": f"0000{BDF}", "serial": SERIAL}]}
        before = watcher.page()
        nvml.latest = {"gpus": []}
        after = watcher.page()
    assert value(before, "nvrc_gpu_up", **labels) == 1
    assert value(after, "nvrc_gpu_up", **labels) is None
    for page in (before, after):
        assert value(page, "nvrc_gpu_state", **labels, state="lost") == 1


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="PID 1 answers root")
def test_a_library_that_tells_of_other_gpus_each_time_costs_no_memory(tmp_path: Path) -> None:
    nvml = NvmlChild(nobody, 60.0)
    watcher = Watcher(nvml, None, lambda: 0.0, control=str(tmp_path / "control"), report_path=str(tmp_path / "none"))
    with answering(tmp_path / "control", 3):
        for answer in range(3):
            nvml.latest = {"gpus": [{"bus_id": f"{answer}-{number}", "serial": "1"} for number in range(MOST_GPUS)]}
            watcher.page()
    assert len(watcher._known) == MOST_GPUS


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="PID 1 answers root")
def test_one_that_starts_after_the_gpu_was_lost_has_its_serial_number_from_pid_1(tmp_path: Path) -> None:
    nvml = NvmlChild(nobody, 60.0)
    watcher = Watcher(nvml, None, lambda: 0.0, control=str(tmp_path / "control"), report_path=str(tmp_path / "none"), serials={BDF: SERIAL})
    nvml.latest = {"gpus": []}
    with answering(tmp_path / "control", 1):
        page = watcher.page()
    assert value(page, "nvrc_gpu_state", gpu=UUID, bus_id=BDF, serial=SERIAL, state="lost") == 1
