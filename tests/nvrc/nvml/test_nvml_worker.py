# SPDX-License-Identifier: Apache-2.0
"""The parts between the steps and the library: answers, deadlines, the fork, and how instances find their places."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import replace
from errno import ENOMEM
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.gpu_guest import MakeGuest
from fakes.system import FakeSystem
from nvrc.machine.children import Ended
from nvrc.machine.rights import Privileges
from nvrc.machine.system import Task
from nvrc.nvml.answers import MOST, Applied, CdiMade, NvmlGpu, indices, read_record, read_records
from nvrc.nvml.client import prepare_worker
from nvrc.nvml.mig import _Place, arrange, make_layout
from nvrc.nvml.requests import REQUESTS, make_requests
from nvrc.nvml.session import Session
from nvrc.nvml.worker import Worker, answer
from nvrc.params.mig import read_layout
from nvrc.steps import cc_check, cdi, gpu_settings, ready_state
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.jsontext import encode

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

GPU = NvmlGpu(0, "0000:1a:00.0", "GPU-1", "NVIDIA H100", 3, "")
MADE = CdiMade("0.5.0", "580.95.05", 3, 4, 5, 6, ("nvidia-smi",), (), (1, 2), ("0=0000:1a:00.0/GPU-1/3",))


@pytest.mark.parametrize("record", [GPU, MADE, Applied(1, "power_limit_w", 500, -1, "no")])
def test_records_come_through_json_as_they_were(record: NamedTuple) -> None:
    assert read_record(type(record), json.loads(json.dumps(record))) == record


@pytest.mark.parametrize("value", [
    None, {}, "GPU", [], [*GPU, 1], GPU[:-1], [True, *GPU[1:]], ["0", *GPU[1:]], [0.0, *GPU[1:]], [None, *GPU[1:]], [*GPU[:-1], 5]])
def test_what_is_no_record_counts_as_a_crash(value: object) -> None:
    with pytest.raises(NvrcError, match="holds no NvmlGpu") as caught:
        read_record(NvmlGpu, list(value) if isinstance(value, tuple) else value)
    assert caught.value.code == "E_NVML_CRASH"
    with pytest.raises(NvrcError):
        read_records(NvmlGpu, value if not isinstance(value, list) else [value])


@pytest.mark.parametrize(("kind", "rows"), [(NvmlGpu, [[*GPU]] * (MOST + 1)), (CdiMade, [[*MADE[:-1], ["x"] * (MOST + 1)]])], ids=["records", "a field"])
def test_no_answer_has_more_of_anything_than_a_machine(kind: type, rows: list[object]) -> None:
    """An answer has room for 200,000 of them: each is a warning of the boot or a piece of news."""
    with pytest.raises(NvrcError, match=f"holds no {kind.__name__}"):
        read_records(kind, rows)


def told(system: FakeSystem, reply: bytes) -> Worker:
    """What is left of a worker that has answered one request with these bytes."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(reply + b"\n")
        worker = Worker(system, os.dup(ours.fileno()), ours.detach(), 0)
        try:
            worker.ask("gpus", 5)
        finally:
            worker.stop()
    return worker


@pytest.mark.parametrize("claim", [
    b'"cpu_s": -1.5', b'"cpu_s": 1e300', b'"cpu_s": "x"', b'"cpu_s": null', b'"cpu_s": [1.0]', b'"cpu_s": true', b'"cpu_s": 5',
    b'"cpu_s": -0.0', b'"warmed": [-1.0, 2.0]', b'"warmed": [2.0, 1.0]', b'"warmed": [1.0, 1e300]', b'"warmed": [true, 2.0]',
    b'"warmed": {}', b'"warmed": [1.0]', b'"warmed": ["a", "b"]'])
def test_claims_about_time_that_cannot_be_are_passed_over(tmp_path: Path, claim: bytes) -> None:
    system = FakeSystem(str(tmp_path))
    worker = told(system, b'{"ok": [], ' + claim + b"}")
    assert system.waits.take() == 0.0
    assert worker.warmed is None


@pytest.mark.parametrize("claim", [b'"cpu_s": -1e999', b'"cpu_s": 1e999', b'"cpu_s": NaN', b'"cpu_s": -Infinity', b'"warmed": [0.0, 1e999]'])
def test_numbers_that_are_none_make_no_answer(tmp_path: Path, claim: bytes) -> None:
    system = FakeSystem(str(tmp_path))
    with pytest.raises(NvrcError, match="is not one") as caught:
        told(system, b'{"ok": [], ' + claim + b"}")
    assert caught.value.code == "E_NVML_CRASH"
    assert encode(system.waits.take()) == b"0.0\n"


@given(st.floats() | st.integers() | st.text(max_size=3) | st.none(), st.lists(st.floats() | st.none(), max_size=3))
def test_any_claim_leaves_figures_that_can_be_written(used: object, warmed: list[float | None]) -> None:
    system = FakeSystem("/nonexistent")
    worker = Worker(system, -1, -1, -1)
    worker._account({"cpu_s": used, "warmed": warmed}, 0.5)
    assert 0.0 <= system.waits.take() <= 0.5
    encode(worker.warmed)


def test_the_words_of_a_failure_are_bounded(tmp_path: Path) -> None:
    with pytest.raises(NvrcError) as caught:
        told(FakeSystem(str(tmp_path)), b'{"code": "E_NVML", "what": "' + b"x" * 100_000 + b'", "hint": "\\ud800"}')
    assert len(caught.value.what) == 4000


def test_tuples_in_a_record_are_checked_as_well() -> None:
    for broken in ([*MADE[:6], "nvidia-smi", [], [], []], [*MADE[:6], [1], [], [], []], [*MADE[:6], [], [], ["1"], []]):
        with pytest.raises(NvrcError, match="holds no CdiMade"):
            read_record(CdiMade, broken)


json_values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(
    st.text(), inner), max_leaves=12)


@given(json_values)
def test_any_json_is_a_record_or_an_error_with_a_code(value: object) -> None:
    try:
        found = read_record(NvmlGpu, value)
    except NvrcError as err:
        assert err.code == "E_NVML_CRASH"
    else:
        assert list(found) == value


def test_a_request_is_given_numbers() -> None:
    assert indices([0, 3]) == (0, 3)
    for value in (None, 3, ["0"], [True]):
        with pytest.raises(TypeError):
            indices(value)


# Deadlines

def test_deadlines_grow_with_the_gpus_of_the_bus(gpu_guest: MakeGuest) -> None:
    facts = gpu_guest("nvrc.timeout.nvml=20 nvrc.timeout.per_gpu=3", gpus=1, on_bus=8).facts
    assert (facts.nvml_patience_s, replace(facts, topology=None).nvml_patience_s) == (44, 20)
    assert [step.deadline_s(facts) for step in (cc_check, cdi, ready_state)] == [93, 49, 49]
    assert gpu_settings.deadline_s(facts) == 3 * 44 + 5


def test_before_their_steps_there_is_nothing_to_tell(gpu_guest: MakeGuest) -> None:
    facts = gpu_guest().facts
    assert [step.tell(facts) for step in (cc_check, cdi, ready_state, gpu_settings)] == ["", "", "", "0 GPUs"]


# The fork

class Crowded(FakeSystem):
    def fork(self, task: Task, privileges: Privileges, ended: Ended = lambda _pid, _status: None, questions: int = -1) -> tuple[int, int]:
        raise OSError(ENOMEM, "Cannot allocate memory")


def test_no_memory_for_a_worker(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest()
    with pytest.raises(NvrcError, match="could not be forked: Cannot allocate memory") as caught:
        prepare_worker(Crowded(str(guest.root)), guest.facts)
    assert caught.value.code == "E_NVML_CRASH"


def test_requests_work_in_any_process(gpu_guest: MakeGuest) -> None:
    """The mapping alone, as the worker serves it, without a fork."""
    guest = gpu_guest()
    requests = make_requests("/", root=str(guest.root), host=guest.host)
    assert list(requests) == [name for name, _action, _code in REQUESTS]
    asked = b'{"ask": "gpus", "given": {}}'
    assert [row[1] for row in json.loads(answer(asked, requests))["ok"]] == ["0000:1a:00.0", "0000:1b:00.0"]
    made = json.loads(answer(b'{"ask": "mig", "given": {"gpus": 3}}', requests))
    assert (made["code"], "not a list of pairs" in made["what"]) == ("E_INTERNAL", True)


# Places of instances

def spans(*rows: tuple[int, int]) -> tuple[_Place, ...]:
    return tuple(_Place(*row) for row in rows)


SMALL = spans(*((start, 1) for start in range(7)))
HALF = spans((0, 4), (4, 4))


def test_an_instance_makes_way_for_one_that_has_a_single_place() -> None:
    assert arrange([HALF, spans((0, 4))]) == spans((4, 4), (0, 4))
    assert arrange([SMALL, HALF]) == spans((0, 1), (4, 4))
    assert arrange([SMALL] * 7) == SMALL
    assert arrange([SMALL] * 8) is None
    assert arrange([]) == ()


@given(st.lists(st.lists(st.builds(_Place, st.integers(0, 6), st.integers(1, 4)), max_size=3), max_size=4))
def test_a_way_is_found_if_there_is_one(places: list[list[_Place]]) -> None:
    def fits(choice: tuple[_Place, ...]) -> bool:
        return sum(place.mask for place in choice).bit_count() == sum(place.size for place in choice) and not any(
            one.mask & other.mask for at, one in enumerate(choice) for other in choice[:at])

    found = arrange(places)
    assert found == next((choice for choice in product(*places) if fits(choice)), None)


def test_a_layout_of_many_gpus_is_made_in_one_request(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest(gpus=2, keys="mig-gb=80")
    session = Session(guest.host, "/", str(guest.root))
    layout = read_layout("0:3g.40gb,4g.40gb;1:off")
    made = make_layout(session, {"gpus": [[0, list(layout.profiles(0) or ())], [1, list(layout.profiles(1) or ())]]})
    assert [(row.changed, row.error) for row in made] == [(True, ""), (False, "")]
