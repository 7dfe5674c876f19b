# SPDX-License-Identifier: Apache-2.0
"""The plan: the boot's own table, parser and decision, run dry."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from fakes.steps import Doing
from nvrc.boot import BOOT
from nvrc.cli import main
from nvrc.commands.recording import record
from nvrc.engine.facts import Facts
from nvrc.engine.table import DEGRADE, Step, seconds
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
  nvrc.mode=cpu does not match this machine, which is gpu: gpu would be right

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
    assert "E_PCI_READ in step topology: 0000:41:00.0: vendor: No such file or directory\n  check the device on the host: the function vanished" in out


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


@pytest.mark.parametrize(("machine", "status", "mode"), [
    ("H100*8,nvswitch*4", 0, "gpu-nvl4"), ("b200*8, management-nic*4", 0, "gpu-nvl5"), ("L40S", 0, "gpu"), ("cpu", 0, "cpu"),
    ("A100*8,nvswitch*4", 0, "gpu-nvl4"), ("nvswitch*4", 0, "servicevm-nvl4"), ("H100*2,nic", 0, "gpu"),
    ("H100*8,nvswitch*3", 1, None), ("H100*4,nvswitch*4", 1, None)])
def test_a_machine_in_words(machine: str, status: int, mode: str | None) -> None:
    code, out, err = call("--json", "--machine", machine, "--cmdline", "nvrc.gpus=all")
    plan = json.loads(out)
    assert (code, plan["mode"], err) == (status, mode, "")
    assert [f["code"] for f in plan["failures"]] == (["E_TOPOLOGY"] if status else [])


def test_switches_are_those_of_the_product() -> None:
    functions = json.loads(call("--json", "--machine", "A100*8,nvswitch*4")[1])["topology"]
    assert {f["ids"] for f in functions} == {"10de:20b2", "10de:1af1"}
    assert functions[0]["bdf"] == "0000:40:00.0"


@pytest.mark.parametrize(("machine", "said"), [
    pytest.param("H10", "'H10' is not a product, did you mean H100?", id="near-miss"),
    pytest.param("voodoo", "'voodoo' is not a product; known are A100, A30", id="unknown"),
    pytest.param("H100*0,nvswitc*4", "machine 'H100*0': a count is a number from 1 to 16; machine 'nvswitc' is not a product, did you mean "
                 "nvswitch?", id="all-at-once"),
    pytest.param("H100*9,H200*9", "more than 16 of one kind", id="too-many"),
    pytest.param("H100*", "a count is a number", id="no-count"), pytest.param("", "'' is not a product", id="empty")])
def test_a_machine_that_is_none_is_a_wrong_call(machine: str, said: str) -> None:
    status, out, err = call("--machine", machine)
    assert (status, out) == (2, "")
    assert said in err


class Recorded(EmptyBus):
    """A guest with a GPU, a management port, a function that cannot be read, a line and a policy."""

    FILES: ClassVar[dict[str, bytes]] = {
        "/proc/cmdline": b"nvrc.log=debug\n", "/etc/nvrc/policy.toml": b'pin.nvrc.gpus = "1"\n',
        "/sys/bus/pci/devices/0000:41:00.0/vendor": b"0x10de\n", "/sys/bus/pci/devices/0000:41:00.0/device": b"0x2330\n",
        "/sys/bus/pci/devices/0000:41:00.0/class": b"0x030200\n", "/sys/bus/pci/devices/0000:41:00.0/vpd": b"SERIAL",
        "/sys/bus/pci/devices/0000:42:00.0/vendor": b"0x15b3\n", "/sys/bus/pci/devices/0000:42:00.0/device": b"0x1021\n",
        "/sys/bus/pci/devices/0000:42:00.0/class": b"0x020700\n", "/sys/bus/pci/devices/0000:42:00.0/vpd": b"SERIAL SW_MNG SERIAL",
    }

    def list_dir(self, path: str) -> tuple[str, ...]:
        return ("0000:41:00.0", "0000:42:00.0", "0000:43:00.0")

    def read(self, path: str, limit: int = 1 << 20) -> bytes:
        try:
            return self.FILES[path]
        except KeyError:
            raise FileNotFoundError(2, "No such file or directory", path) from None


def test_a_record_holds_what_the_plan_needs_and_no_serial_number(tmp_path: Path) -> None:
    folder = tmp_path / "guest"
    assert record(Recorded(), str(folder)) == 3
    assert b"SERIAL" not in b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert (folder / "sys/bus/pci/devices/0000:42:00.0/vpd").read_bytes() == b"SW_MNG"
    status, out, _ = call("--root", str(folder), "--json")
    plan = json.loads(out)
    assert status == 1, "one GPU and one management port are no supported machine"
    assert "1 GPU, 1 management NIC" in plan["failures"][0]["what"]
    given = {p["name"]: (p["value"], p["source"]) for p in plan["parameters"]}
    assert given["nvrc.log"] == ("debug", "command line")
    assert given["nvrc.gpus"] == ("1", "policy")


def test_an_empty_bus_can_be_recorded(tmp_path: Path) -> None:
    assert record(EmptyRecord(), str(tmp_path / "x")) == 0


class EmptyRecord(EmptyBus):
    def read(self, path: str, limit: int = 1 << 20) -> bytes:
        raise FileNotFoundError(2, "No such file or directory", path)


def test_a_record_does_not_mix_with_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    status, out, err = call("--record", str(tmp_path))
    assert (status, out) == (2, "")
    assert "not empty" in err


def test_this_machine_can_be_recorded(tmp_path: Path) -> None:
    status, out, err = call("--record", str(tmp_path / "a"))
    assert (status, err) == (0, "")
    assert "PCI functions" in out
    assert call("--root", str(tmp_path / "a"))[0] in (0, 1)
    assert json.loads(call("--record", str(tmp_path / "b"), "--json")[1])["folder"] == str(tmp_path / "b")


def test_a_policy_of_an_image_for_an_imagined_machine(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text('deny = ["nvrc.mig"]\n')
    status, out, _ = call("--machine", "H100", "--cmdline", "nvrc.mig=all:off", "--policy", str(tmp_path / "policy.toml"))
    assert status == 1
    assert "E_PARAMETERS" in out
