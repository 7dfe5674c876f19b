# SPDX-License-Identifier: Apache-2.0
"""Whether the agent may start before the GPUs attach: asked for, and not refused by the line, the policy or the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.system import FakeSystem, bare_guest
from nvrc.engine.facts import Facts
from nvrc.steps import parameters

ASKED = "nvrc.agent.early=on cgroup_no_v1=all"


def read(tmp_path: Path, line: str, *files: tuple[str, str]) -> Facts:
    system: FakeSystem = bare_guest(str(tmp_path))
    system.put("/proc/cmdline", f"{line}\n")
    for path, content in files:
        system.put(path, content)
    return parameters.run(system, Facts())


@pytest.mark.parametrize(("line", "is_early"), [
    (ASKED, True),
    ("nvrc.agent.early=on nvrc.agent.pidns=off", True),
    (f"{ASKED} nvrc.smi.srs=1 nvrc.gpus=8 nvrc.cc=off", True),
    ("nvrc.agent.early=off cgroup_no_v1=all", None),
    ("cgroup_no_v1=all", None),
])
def test_it_is_asked_for(tmp_path: Path, line: str, is_early: bool | None) -> None:
    facts = read(tmp_path, line)
    assert facts.early is is_early
    assert facts.warnings == ()


@pytest.mark.parametrize(("more", "why"), [
    ("nvrc.cc=on", "confidential GPUs are asked for"),
    ("nvrc.cc=ppcie", "confidential GPUs are asked for"),
    ("nvrc.ready=attested", "GPUs are held back until they are attested"),
    ("nvrc.mig=all:1g.10gb*7", "the names of MIG devices are known only after the attach"),
    ("nvrc.gpus=min:1", "which GPUs are left out is known only after the attach"),
])
def test_what_the_line_asks_for_besides_refuses_it(tmp_path: Path, more: str, why: str) -> None:
    facts = read(tmp_path, f"{ASKED} {more}")
    assert facts.early is False
    assert [one.what for one in facts.warnings] == [f"nvrc.agent.early=on has no effect: {why}"]


def test_cgroups_of_version_1_refuse_it(tmp_path: Path) -> None:
    facts = read(tmp_path, "nvrc.agent.early=on")
    assert facts.early is False
    assert [one.what for one in facts.warnings] == ["nvrc.agent.early=on has no effect: it takes cgroup v2, cgroup_no_v1=all"]


@pytest.mark.parametrize("sign", [("/sys/devices/platform/sev-guest/x", ""), ("/sys/devices/system/cpu/sev/vmpl", "0"),
                                  ("/sys/devices/platform/arm-cca-dev/x", ""), ("/proc/cpuinfo", "flags\t\t: fpu tdx_guest\n")])
def test_what_makes_a_guest_confidential(tmp_path: Path, sign: tuple[str, str]) -> None:
    """That such a guest refuses it, whatever the line says, is the scenario `early-tee`."""
    system = bare_guest(str(tmp_path))
    assert not parameters.is_tee(system)
    system.put(*sign)
    assert parameters.is_tee(system)


def test_a_policy_decides_over_the_line(tmp_path: Path) -> None:
    facts = read(tmp_path, "nvrc.agent.early=off", ("/etc/nvrc/policy.toml", 'words = ["*"]\n[pin]\n"nvrc.agent.early" = false\n'))
    assert facts.early is None
