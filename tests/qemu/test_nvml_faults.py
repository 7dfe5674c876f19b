# SPDX-License-Identifier: Apache-2.0
"""Every NVML call of a boot fails in turn, in a machine of its own: own code, right step, no agent. And hangs, crashes.

Forty-seven machines: with NVRC_WHOLE_MATRIX=1 all of them, else none but the plain one, which must get ready with all that
it asks for; the scenarios nvml-* are some of them as files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.lab_image import lab_image
from fakes.nvml_calls import CALLS, EVERYTHING, Call
from nvrc_lab.ground.places import checkout
from nvrc_lab.qemu.qemu import find_qemu
from nvrc_lab.run.runner import Result, default_workers, open_lab, run_all
from nvrc_lab.scenario.hardware import place_gpus
from nvrc_lab.scenario.scenario import parse_scenario
from nvrc_lab.scenario.values import Expectation, Fault, Scenario, Verdict

pytestmark = pytest.mark.qemu

# In need of everything, and short of patience for a library that never answers.
PLAIN = parse_scenario(f"""
summary: Two confidential GPUs, one to be cut anew and one to become whole, and every setting there is.
machine:
  gpus:
    - {{product: H100, confidential: 'on', mig: [7g.80gb]}}
    - {{product: H100, confidential: 'on', mig: [1g.10gb]}}
cmdline: {EVERYTHING} nvrc.timeout.nvml=4 nvrc.timeout.per_gpu=1
expect: {{verdict: ready, mode: gpu, gpus: 2, cdi: 4}}
""", "nvml-plain", "this test")
# One for each request that the worker is asked.
OF_EACH_REQUEST = ("nvmlDeviceGetCount_v2", "nvmlDeviceSetPowerManagementLimit", "nvmlDeviceCreateGpuInstanceWithPlacement",
                   "nvmlSystemGetConfComputeState", "nvmlSystemGetDriverVersion", "nvmlSystemGetConfComputeGpusReadyState")


def failing(call: Call) -> Scenario:
    names = [] if call.gpu is None else [place_gpus(PLAIN.machine)[call.gpu].bdf]
    if call.name in ("nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetName", "nvmlDeviceGetPciInfo_v3"):
        names = [f"GPU {call.gpu}"]  # its bus id is not known yet
    what = (*names, call.words, "NVML_ERROR_UNKNOWN (999)")
    return _broken(call, Fault(name="nvml-fails", call=call.name, gpu=call.gpu, value="999"), call.code, what)


def ending(call: Call, verb: str, code: str) -> Scenario:
    return _broken(call, Fault(name=f"nvml-{verb}", call=call.name), code, ())


def _broken(call: Call, fault: Fault, code: str, what: tuple[str, ...]) -> Scenario:
    expect = Expectation(verdict=Verdict.FAILED, code=code, step=call.step, what=what)
    return replace(PLAIN, name=f"{fault.name}-{call.name}", faults=(fault,), expect=expect)


def all_scenarios() -> tuple[Scenario, ...]:
    if not os.environ.get("NVRC_WHOLE_MATRIX"):
        return (PLAIN,)
    some = [call for call in CALLS if call.name in OF_EACH_REQUEST]
    return (PLAIN, *map(failing, CALLS), *(ending(call, "hangs", "E_NVML_HANG") for call in some),
            *(ending(call, "crashes", "E_NVML_CRASH") for call in some))


SCENARIOS = all_scenarios()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Result]:
    lab = open_lab(checkout(), find_qemu(), lab_image(), SCENARIOS)
    folder: Path = tmp_path_factory.mktemp("consoles")
    return {one.scenario.name: one for one in run_all(lab, SCENARIOS, folder, default_workers())}


@pytest.mark.parametrize("name", [scenario.name for scenario in SCENARIOS])
def test_a_machine_whose_library_does_that(results: Mapping[str, Result], name: str) -> None:
    found = results[name]
    tail = found.console.read_text(errors="replace").splitlines()[-25:] if found.console.exists() else []
    assert found.ok, "\n".join([*found.problems, "", "its last lines:", *tail])
