# SPDX-License-Identifier: Apache-2.0
"""Scenario files: mistakes that are found before a machine is made, and every file of this checkout."""

from __future__ import annotations

from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from fakes.cases import Case
from nvrc_lab.ground.errors import LabError
from nvrc_lab.ground.places import checkout
from nvrc_lab.kit.kit import PARTS
from nvrc_lab.scenario.faults import FAULTS, collect_effects
from nvrc_lab.scenario.scenario import find_scenario, list_scenarios, parse_scenario, read_scenario
from nvrc_lab.scenario.values import Confidential, Damage, Gpu, Hardware, Scenario, Verdict

READY = "expect: {verdict: ready}"
GPU = "machine: {gpus: [{product: H100}]}"


def parse(text: str) -> Scenario:
    return parse_scenario(text, "mine", "mine.yaml")


def test_the_smallest_scenario() -> None:
    scenario = parse(f"summary: nothing\n{READY}")
    assert (scenario.name, scenario.expect.verdict, scenario.agent.does) == ("mine", Verdict.READY, ("poweroff",))


@pytest.mark.parametrize(("text", "problem"), [
    pytest.param("machine: {gpus: [{product: H1OO}]}", "machine.gpus[0].product: 'H1OO' is unknown; known: A100", id="product"),
    pytest.param("machine: {gpus: [{product: GH200, count: 0}]}", "count 0", id="count"),
    pytest.param("machine: {gpus: [{product: H100, count: 2, uuid: GPU-1}]}", "one GPU each", id="uuid-of-two"),
    pytest.param("machine: {switch_product: B200}", "machine.switch_product: 'B200' is unknown", id="switch"),
    pytest.param("machine: {memory_mib: 0}", "machine.memory_mib: 0 is not above zero", id="memory"),
    pytest.param("deadline_s: -1", "deadline_s: -1.0 is not above zero", id="deadline"),
    pytest.param("faults: [{name: atach-fails, gpu: 0}]", "did you mean attach-fails?", id="fault"),
    pytest.param("faults: [{name: attach-fails}]", "attach-fails needs gpu", id="fault-needs"),
    pytest.param("faults: [{name: attach-fails, gpu: 3}]", "gpu 3: the machine has 0", id="no-such-gpu"),
    pytest.param(f"{GPU}\nfaults: [{{name: attach-fails, gpu: 0, value: x}}]", "attach-fails takes no value", id="fault-takes"),
    pytest.param("faults: [{name: program-hangs, program: bash}]", "program 'bash' is not one of", id="program"),
    pytest.param("faults: [{name: program-killed, program: nvlsm}]", "program-killed needs value", id="killed-when"),
    pytest.param("faults: [{name: program-killed, program: nvlsm, value: later}]", "value 'later' is not one of starting, ", id="killed"),
    pytest.param("faults: [{name: program-killed, program: nvlsm, value: attaching}]", "nvlsm attaches no GPU", id="attaching"),
    pytest.param("machine: {gpus: [{product: H100, numa: 1}]}", "machine.gpus[0].numa: 1; machine.numa is 1", id="memory-node"),
    pytest.param("machine: {numa: 0}", "machine.numa: 0 is not above zero", id="memory-nodes"),
    pytest.param("container: {devices: [nvidia.com/gpu=0]}", "container and expect.container belong together", id="container"),
    pytest.param("machin: {}", "machin: unknown key; did you mean machine?", id="unknown-key"),
])
def test_mistakes_of_a_machine(text: str, problem: str) -> None:
    with pytest.raises(LabError) as caught:
        parse(f"summary: s\n{READY}\n{text}")
    assert problem in caught.value.what
    assert caught.value.what.startswith("mine.yaml: ")


@pytest.mark.parametrize(("expect", "problem"), [
    pytest.param("{verdict: ready, code: E_MOUNT}", "neither code nor step", id="ready-with-code"),
    pytest.param("{verdict: failed}", "expect.code: missing; verdict failed has one", id="no-code"),
    pytest.param("{verdict: failed, code: E_NONE}", "E_NONE is not a failure code", id="code"),
    pytest.param("{verdict: failed, code: E_MOUNT, step: filesystem}", "did you mean filesystems?", id="step"),
    pytest.param("{verdict: fine}", "expected one of ready, failed, lost, panic", id="verdict"),
])
def test_mistakes_of_an_expectation(expect: str, problem: str) -> None:
    with pytest.raises(LabError) as caught:
        parse(f"summary: s\nexpect: {expect}")
    assert problem in caught.value.what


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="cannot be read"):
        read_scenario(tmp_path / "none.yaml")
    with pytest.raises(LabError) as caught:
        find_scenario("gpu-10", checkout().scenarios)
    assert caught.value.hint == "did you mean gpu-1?"
    assert find_scenario("./x.yaml", tmp_path) == Path("./x.yaml")


PATHS = list_scenarios(checkout().scenarios)


def test_every_scenario_of_this_checkout_is_sound() -> None:
    for path in PATHS:
        with Case(path.stem):
            scenario = read_scenario(path)
            assert scenario.summary.endswith(".")
            collect_effects(scenario)


def test_there_are_enough_of_them_and_names_are_words() -> None:
    assert len(PATHS) >= 40
    assert all(path.stem == path.stem.lower().replace("_", "-") for path in PATHS)
    assert len({read_scenario(path).summary for path in PATHS}) == len(PATHS)


def test_faults_are_used_by_some_scenario() -> None:
    used = {fault.name for path in PATHS for fault in read_scenario(path).faults}
    # One is for NVIDIA's own driver, the others are for scenarios that people bring along.
    assert set(FAULTS) - used == {"chip-unknown", "driver-says", "program-exits"}


def test_every_word_about_a_machine_is_used_by_some_scenario() -> None:
    machines = [read_scenario(path).machine for path in PATHS]
    rows = [*machines, *(gpu for machine in machines for gpu in machine.gpus)]
    unused = {f"{kind.__name__}.{field.name}" for kind in (Hardware, Gpu) for field in fields(kind) if field.default is not MISSING
              and all(getattr(row, field.name) == field.default for row in rows if isinstance(row, kind))}
    assert unused == {"Hardware.switch_product"}  # both boards that have NVSwitches of their own are a matter of one id
    assert {row.damage for machine in machines for row in machine.extensions} == set(Damage)
    assert {gpu.confidential for machine in machines for gpu in machine.gpus} == set(Confidential)


def test_the_page_names_every_key_fault_and_part() -> None:
    from nvrc_lab.scenario.values import Agent, Expectation, Extension, Fault, Gpu, Hardware, Seen

    text = (checkout().root / "docs/lab.md").read_text(encoding="utf-8")
    keys = {row.name for kind in (Scenario, Hardware, Gpu, Extension, Fault, Agent, Expectation, Seen) for row in fields(kind)}
    missing = sorted(word for word in (keys - {"name"}) | set(FAULTS) | set(PARTS) if f"`{word}`" not in text)
    assert missing == []


def test_the_page_tells_every_fault_as_its_row_does() -> None:
    text = (checkout().root / "docs/lab.md").read_text(encoding="utf-8")
    rows = [f"| `{name}` | {', '.join(row.needs) or '–'} | {row.about} |" for name, row in FAULTS.items()]
    assert [row for row in rows if row not in text] == []
