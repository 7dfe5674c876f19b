# SPDX-License-Identifier: Apache-2.0
"""The plan: the boot's own table, parser and decision, run dry."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from nvrc.boot import BOOT
from nvrc.cli import main
from nvrc.engine.facts import Facts
from nvrc.engine.table import DEGRADE, Doing, Step, seconds
from nvrc.params.parse import parse
from nvrc.report import plan as planning


class EmptyBus:
    def list_dir(self, path: str) -> tuple[str, ...]:
        raise FileNotFoundError(2, "No such file or directory", path)

    def read(self, path: str, limit: int = 1 << 20) -> bytes:
        raise AssertionError(f"nothing to read on an empty bus: {path}")


def copy_of_sys(root: Path, gpus: int) -> str:
    (root / "bus/pci/devices").mkdir(parents=True)
    for index in range(gpus):
        folder = root / f"bus/pci/devices/0000:{0x41 + index:02x}:00.0"
        folder.mkdir()
        for name, value in (("vendor", "0x10de"), ("device", "0x2330"), ("class", "0x030200")):
            (folder / name).write_text(value + "\n")
    return str(root)


def call(*argv: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    return main(["plan", *argv], out, err), out.getvalue(), err.getvalue()


def never(_facts: Facts) -> bool:
    return False


def test_plan_is_the_boot_table(tmp_path: Path) -> None:
    status, out, _ = call("--json", "--cmdline", "", "--sysfs", copy_of_sys(tmp_path, 2))
    plan = json.loads(out)
    assert status == 0
    assert [step["name"] for step in plan["steps"]] == [step.name for step in BOOT]
    assert [step["needs"] for step in plan["steps"]] == [list(step.needs) for step in BOOT]
    assert (plan["boots"], plan["mode"], plan["failures"]) == (True, "gpu", [])
    assert plan["topology"] == [
        {"bdf": "0000:41:00.0", "ids": "10de:2330", "pci_class": "030200", "role": "gpu"},
        {"bdf": "0000:42:00.0", "ids": "10de:2330", "pci_class": "030200", "role": "gpu"}]
    assert {p["name"]: p["source"] for p in plan["parameters"]}["nvrc.log"] == "default"


def test_plan_names_codes_and_reasons() -> None:
    def step(name: str, *needs: str) -> Step:
        return Step(name, needs=needs, does=Doing(lambda _system, facts: facts, seconds(2)))

    table = (step("parameters"), step("topology", "parameters"),
             replace(step("dcgm", "topology"), when=never, on_failure=DEGRADE))
    steps = planning.make_plan(table, parse(b""), EmptyBus()).steps
    assert [(s.name, s.runs, s.why, s.deadline_s, s.on_failure) for s in steps] == [
        ("parameters", True, "always", 2.0, "power off"), ("topology", True, "always", 2.0, "power off"),
        ("dcgm", False, "does not apply here", None, "degrade")]
    assert steps[1].codes[:2] == ("E_TOPOLOGY", "E_PCI_READ")
    conditional = replace(table[1], when=lambda facts: facts.mode is not None)
    assert planning.make_plan((conditional,), parse(b""), EmptyBus()).steps[0].why == "applies here"


def test_what_needs_a_failing_step_is_not_reached(tmp_path: Path) -> None:
    status, out, _ = call("--json", "--cmdline", "nvrc.log=loud", "--sysfs", copy_of_sys(tmp_path, 1))
    plan = json.loads(out)
    assert status == 1
    assert not plan["boots"]
    assert [(f["code"], f["step"]) for f in plan["failures"]] == [("E_PARAMETERS", "parameters")]
    assert plan["problems"][0]["severity"] == "error"
    why = {step["name"]: (step["runs"], step["why"]) for step in plan["steps"]}
    assert why["filesystems"] == (True, "always")
    assert why["parameters"] == (True, "fails: E_PARAMETERS")
    assert why["topology"] == (False, "not reached: needs parameters")
    assert why["lock-modules"] == (False, "not reached: needs modules")
    assert plan["mode"] == "gpu", "the bus is shown although the boot would not come so far"


def test_text_form(tmp_path: Path) -> None:
    copy_of_sys(tmp_path, 1)
    extra = tmp_path / "bus/pci/devices/0000:51:00.0"
    extra.mkdir()
    for name, value in (("vendor", "0x8086"), ("device", "0x1237"), ("class", "0x060000")):
        (extra / name).write_text(value + "\n")
    status, out, err = call("--sysfs", str(tmp_path), "--cmdline", "nvrc.mode=cpu nvrc.smi.src=1 nvrc.log=debug")
    assert (status, err) == (0, "")
    head, *lines = out.splitlines()
    assert head == "boots, mode gpu"
    assert lines[1].split() == ["step", "runs", "deadline", "if", "it", "fails", "why"]
    assert out.endswith("""
problems of the command line:
  warning: nvrc.smi.src: unknown, did you mean nvrc.smi.srs?

warnings:
  nvrc.mode=cpu does not hold on this machine, which is gpu: gpu would be right

parameters that are set:
  nvrc.log   debug  (command line)
  nvrc.mode  cpu    (command line)

PCI functions that decide the mode:
  gpu  0000:41:00.0  10de:2330 class 030200
""")


def test_text_form_of_a_machine_that_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bus/pci/devices/0000:41:00.0").mkdir(parents=True)
    status, out, _ = call("--sysfs", str(tmp_path), "--cmdline", "nvrc.strict=on")
    assert status == 1
    assert out.startswith("does not boot\n")
    assert "E_PCI_READ in step topology: 0000:41:00.0: vendor: No such file or directory\n  the function vanished" in out


def test_strict_claim_that_does_not_hold(tmp_path: Path) -> None:
    status, out, _ = call("--sysfs", copy_of_sys(tmp_path, 1), "--cmdline", "nvrc.strict=on nvrc.mode=cpu", "--json")
    plan = json.loads(out)
    assert status == 1
    assert [f["code"] for f in plan["failures"]] == ["E_MODE_MISMATCH"]
    assert [f["bdf"] for f in plan["topology"]] == ["0000:41:00.0"]


def test_command_line_with_other_bytes(tmp_path: Path) -> None:
    status, out, _ = call("--sysfs", copy_of_sys(tmp_path, 0), "--cmdline", "nvrc.\udcff=1")
    assert status == 0
    assert out.isascii()


@pytest.mark.parametrize(("policy", "status", "found"), [
    pytest.param('[deny]\nnames = "x"\n', 1, "E_POLICY", id="broken"),
    pytest.param("", 0, None, id="empty"),
])
def test_policy_is_the_one_that_is_named(tmp_path: Path, policy: str, status: int, found: str | None) -> None:
    (tmp_path / "policy.toml").write_text(policy)
    bus = copy_of_sys(tmp_path / "sys", 0)
    code, out, _ = call("--json", "--sysfs", bus, "--cmdline", "", "--policy", str(tmp_path / "policy.toml"))
    failures = json.loads(out)["failures"]
    assert code == status
    assert [f["code"] for f in failures] == ([found] if found else [])


def test_folder_that_is_not_there_is_a_wrong_call(tmp_path: Path) -> None:
    status, out, err = call("--cmdline", "", "--sysfs", str(tmp_path / "none"))
    assert (status, out) == (2, "")
    assert err == f"nvrc plan: {tmp_path}/none: No such file or directory\n"


def test_this_machine_can_be_planned() -> None:
    status, out, err = call()
    assert status in (0, 1)
    assert "filesystems" in out
    assert err == ""
