# SPDX-License-Identifier: Apache-2.0
"""A scenario's machine in the words of the virtual hardware, the stand-in NVML and the stand-in programs."""

from __future__ import annotations

import shlex
from dataclasses import fields, replace

import pytest

from nvrc.boot import BOOT
from nvrc_lab.ground.errors import LabError
from nvrc_lab.run.compose import make_line, make_tree, needed_parts, scenario_texts
from nvrc_lab.scenario.faults import FAULTS, GOES_ON, PROGRAMS, SIGNALS, Effects, collect_effects
from nvrc_lab.scenario.hardware import describe_functions, describe_nvml, make_uuid, place_gpus
from nvrc_lab.scenario.module_damage import OTHER_RELEASE
from nvrc_lab.scenario.scenario import parse_scenario
from nvrc_lab.scenario.tree import place_nics
from nvrc_lab.scenario.values import (
    Agent,
    Confidential,
    Damage,
    Extension,
    Fault,
    Gpu,
    Hardware,
    Link,
    Nic,
    Scenario,
    Tree,
)


def scenario(text: str) -> Scenario:
    return parse_scenario(f"summary: s\nexpect: {{verdict: ready}}\n{text}", "mine", "mine.yaml")


def functions(machine: Hardware, **extra: dict[str, str]) -> list[dict[str, str]]:
    """Each function as its keys, with `at`, `id` and `class`."""
    one = scenario("")
    full = Scenario(summary="", expect=one.expect, machine=machine)
    rows = describe_functions(full, place_gpus(machine), extra).split(",")
    return [dict([("at", head[0]), ("id", head[1]), ("class", head[2]), *(word.split("=", 1) for word in head[3:])])
            for head in (row.split("/") for row in rows if row)]


def test_a_machine_without_devices_has_no_function() -> None:
    assert functions(Hardware()) == []


def test_gpus_are_placed_in_the_order_of_their_addresses() -> None:
    machine = Hardware(gpus=(Gpu(product="H100", count=2, minor=4), Gpu(product="A100", at="0000:01:00.0")))
    placed = place_gpus(machine)
    assert [(one.index, one.bdf, one.minor, one.gpu.product) for one in placed] == [
        (0, "0000:01:00.0", 0, "A100"), (1, "0000:40:00.0", 4, "H100"), (2, "0000:41:00.0", 5, "H100")]
    assert placed[1].uuid == make_uuid("0000:40:00.0") != placed[2].uuid


def test_a_gpu_carries_its_scenario() -> None:
    (row,) = functions(Hardware(gpus=(Gpu(product="H200", attach_ms=300, confidential=Confidential.PPCIE, mig=("1g.18gb", "2g.35gb")),)))
    assert (row["at"], row["id"], row["class"]) == ("0000:40:00.0", "10de:2335", "030200")
    assert (row["attach_ms"], row["cc"], row["minor"], row["model"], row["mig"]) == ("300", "3", "0", "NVIDIA%20H200", "1.0+2.0")
    assert len(row["uuid"]) == 32


def test_boards_and_cards() -> None:
    rows = functions(Hardware(nvswitches=2, switch_product="A100", management_nics=4, nics=(Nic(),), displays=1))
    assert [(row["at"], row["id"], row["class"]) for row in rows] == [
        ("0000:70:00.0", "15b3:1021", "020000"),
        ("0000:50:00.0", "10de:1af1", "068000"), ("0000:50:01.0", "10de:1af1", "068000"),
        *((f"0000:60:0{index}.0", "15b3:1021", "020700") for index in range(4)), ("0000:78:00.0", "1234:1111", "030000")]
    masks = [int(row["port_mask"], 16) >> 10 & 1 for row in rows if "port_mask" in row]
    assert masks == [1, 0, 0, 0], "bit 10: no subnet manager on the first port"


def test_bridged_gpus_have_a_bridge_each() -> None:
    rows = functions(Hardware(gpus=(Gpu(product="H100", count=2),), nics=(Nic(),), tree=Tree.PORTS))
    assert [(row["at"], row.get("bus")) for row in rows] == [
        ("0001:10:00.0", "11-11"), ("0001:11:00.0", None), ("0001:10:01.0", "12-12"), ("0001:12:00.0", None),
        ("0001:10:02.0", "13-13"), ("0001:13:00.0", None)]


def test_a_board_has_a_switch_for_each_pair_and_a_root_bus_for_each_memory_node() -> None:
    machine = Hardware(gpus=(Gpu(product="H100", count=4),), nics=(Nic(count=3), Nic(link=Link.INFINIBAND, virtual=True)),
                       tree=Tree.SWITCHES, numa=2)
    rows = {row["at"]: row for row in functions(machine)}
    assert [one.bdf for one in place_gpus(machine)] == [f"0001:{bus:02x}:00.0" for bus in (0x13, 0x17, 0x53, 0x57)]
    assert [one.bdf for one in place_nics(machine)] == [f"0001:{bus:02x}:00.0" for bus in (0x14, 0x18, 0x54, 0x58)]
    way = ("0001:50:01.0", "0001:55:00.0", "0001:56:01.0", "0001:58:00.0")
    assert [(rows[at].get("port"), rows[at].get("bus")) for at in way] == [
        ("root", "55-58"), ("up", "56-58"), ("down", "58-58"), (None, None)]
    assert [rows[at]["numa"] for at in ("0001:13:00.0", "0001:14:00.0", "0001:57:00.0", "0001:58:00.0")] == ["0", "0", "1", "1"]
    assert (rows["0001:58:00.0"]["id"], rows["0001:58:00.0"]["class"]) == ("15b3:101e", "020700")
    assert len(rows) == 4 * 6


def test_nested_switches_have_the_nic_before_the_gpu() -> None:
    machine = Hardware(gpus=(Gpu(product="H100", count=4, pcie="4x8/5x16"),), nics=(Nic(count=4, pcie="3x8"),), tree=Tree.NESTED, numa=2)
    rows = {row["at"]: row for row in functions(machine)}
    assert [one.bdf for one in place_nics(machine)] == [f"0001:{bus:02x}:00.0" for bus in (0x15, 0x19, 0x55, 0x59)]
    assert [one.bdf for one in place_gpus(machine)] == [f"0001:{bus:02x}:00.0" for bus in (0x16, 0x1A, 0x56, 0x5A)]
    way = ("0001:10:00.0", "0001:11:00.0", "0001:12:01.0", "0001:17:00.0", "0001:18:01.0", "0001:1a:00.0")
    assert [(rows[at].get("port"), rows[at].get("bus")) for at in way] == [
        ("root", "11-1a"), ("up", "12-1a"), ("down", "17-1a"), ("up", "18-1a"), ("down", "1a-1a"), (None, None)]
    assert [(rows[at]["link"], rows[at].get("now")) for at in ("0001:1a:00.0", "0001:19:00.0")] == [("5x16", "4x8"), ("3x8", None)]
    assert rows["0001:5a:00.0"]["numa"] == "1"


def test_a_nic_with_a_place_of_its_own_stands_between_gpus() -> None:
    machine = Hardware(gpus=(Gpu(product="H100", count=2),), nics=(Nic(at="0000:40:01.0"), Nic()))
    assert [one.bdf for one in place_nics(machine)] == ["0000:40:01.0", "0000:70:01.0"]


@pytest.mark.parametrize(("fault", "key", "value"), [
    ("nic-vpd-silent", "vpd-error", "1"), ("nic-no-driver", "faults", "probe"), ("nic-no-gid", "faults", "gid")])
def test_a_fault_of_a_nic_is_a_key_of_its_function(fault: str, key: str, value: str) -> None:
    one = scenario(f"machine: {{nics: [{{count: 2}}]}}\nfaults: [{{name: {fault}, value: '1'}}]")
    rows = functions(one.machine, **{bdf: dict(keys) for bdf, keys in collect_effects(one).keys.items()})
    assert [row.get(key) for row in rows] == [None, value]


def test_what_the_library_says_of_a_gpu_besides_and_later() -> None:
    one = scenario("machine: {gpus: [{product: H100, nvml: {fabric: in-progress}}]}\n"
                   "faults: [{name: fabric-slow, gpu: 0, value: '9'}]")
    assert " fabric=in-progress" in describe_nvml(place_gpus(one.machine), "1", ())
    assert collect_effects(one).events[1:] == ("sleep 9", "append /etc/nvml-mock.conf set gpu=0 fabric=completed")


def test_a_fault_adds_its_keys_to_its_function() -> None:
    rows = functions(Hardware(gpus=(Gpu(product="H100", count=2),), management_nics=1),
                     **{"0000:41:00.0": {"faults": "attach", "attach_ms": "9"}, "0000:60:00.0": {"vpd-error": "1"}})
    assert [row.get("faults") for row in rows] == [None, "attach", None]
    assert [row.get("attach_ms") for row in rows] == ["20", "9", None]
    assert rows[2]["vpd-error"] == "1"


@pytest.mark.parametrize(("mode", "line"), [
    (Confidential.OFF, None),
    (Confidential.ON, "feature=on devtools=off multigpu=none"),
    (Confidential.DEVTOOLS, "feature=on devtools=on"),
    (Confidential.PPCIE, "multigpu=ppcie"),
    (Confidential.UNKNOWN, "feature=7"),
])
def test_nvml_tells_one_mode_for_the_machine(mode: Confidential, line: str | None) -> None:
    text = describe_nvml(place_gpus(Hardware(gpus=(Gpu(product="H100", confidential=mode),))), "1.2", ())
    told = [row for row in text.splitlines() if row.startswith("cc ")]
    assert (line is None and told == []) or (line is not None and line in told[0])


def test_nvml_has_the_same_gpus() -> None:
    placed = place_gpus(Hardware(gpus=(Gpu(product="T4", minor=3), Gpu(product="H100", mig=("3g.40gb",)))))
    rows = [dict(word.split("=", 1) for word in shlex.split(row)[2:]) for row in
            describe_nvml(placed, "1.2", ("fail nvmlInit 1",)).splitlines() if row.startswith("gpu ")]
    assert [(row["bus"], row["minor"], row["mig"], row["pci"]) for row in rows] == [
        ("0000:40:00.0", "3", "unsupported", "10de:1eb8"), ("0000:41:00.0", "1", "on", "10de:2330")]


FAULT_EFFECTS = [
    ("{name: attach-slow, gpu: 1, value: '700'}", "keys", {"0000:41:00.0": {"attach_ms": "700"}}),
    ("{name: program-slow, program: nvlsm, value: '5'}", "programs", ("nvlsm.slow_ms=5",)),
    ("{name: program-hangs, program: nvlsm}", "programs", ("nvlsm.hang=1",)),
    ("{name: nvml-fails, call: nvmlInit, value: '3'}", "nvml", ("fail nvmlInit 3",)),
    ("{name: nvml-hangs, call: nvmlDeviceGetUUID, gpu: 1}", "nvml", ("hang nvmlDeviceGetUUID gpu=1",)),
    ("{name: part-missing, value: libcuda}", "without", ("libcuda",)),
    ("{name: agent-missing}", "links", {"/usr/bin/kata-agent": "/lab/nothing"}),
    ("{name: program-missing, program: nvlsm}", "links", {"/usr/sbin/nvlsm": "/lab/nothing"}),
    ("{name: no-marker}", "programs", ("nv-fabricmanager.no_marker=1",)),
]


@pytest.mark.parametrize(("fault", "field", "value"), FAULT_EFFECTS, ids=[row[0] for row in FAULT_EFFECTS])
def test_what_a_fault_does(fault: str, field: str, value: object) -> None:
    effects = collect_effects(scenario(f"machine: {{gpus: [{{product: H100, count: 2}}]}}\nfaults: [{fault}]"))
    assert getattr(effects, field) == value


def test_faults_of_one_gpu_are_joined() -> None:
    effects = collect_effects(scenario("machine: {gpus: [{product: H100}]}\nfaults: [{name: attach-fails, gpu: 0}, "
                                       "{name: nvlink-waits, gpu: 0}, {name: xid, gpu: 0, value: '79'}]"))
    assert effects.keys == {"0000:40:00.0": {"faults": "attach+nvlink"}}
    assert effects.events[-1] == "write /proc/nvidia-lab xid 0000:40:00.0 79 told by the lab"


def test_every_fault_has_an_effect() -> None:
    sample = {"gpu": "gpu: 0", "program": "program: nvidia-persistenced", "call": "call: nvmlInit", "value": "value: '1'"}
    for name, row in FAULTS.items():
        value = "value: running" if name in SIGNALS else sample["value"]
        value = "value: nvidia-uvm" if name.startswith("module-") else value
        words = ", ".join([f"name: {name}", *(value if need == "value" else sample[need] for need in row.needs)])
        one = scenario(f"machine: {{gpus: [{{product: H100}}], management_nics: 2}}\nfaults: [{{{words}}}]")
        effects = collect_effects(one)
        assert any(getattr(effects, field.name) for field in fields(Effects)), name


@pytest.mark.parametrize(("phase", "programs", "events"), [
    ("starting", ("nvlsm.hang=1",), ("await nvlsm 120000", "sleep 300", "kill nvlsm 9")),
    ("booting", (), ("await nv-fabricmanager 120000", "kill nvlsm 9")),
    ("running", (), ("heard 120000 nvrc: READY", "kill nvlsm 9")),
    ("restarted", (), ("heard 120000 nvrc: warn nvlsm was restarted", "kill nvlsm 9")),
])
def test_when_a_daemon_is_killed(phase: str, programs: tuple[str, ...], events: tuple[str, ...]) -> None:
    effects = collect_effects(scenario(f"faults: [{{name: program-killed, program: nvlsm, value: {phase}}}]"))
    assert (effects.programs, effects.events) == (programs, events)


@pytest.mark.parametrize("daemon", PROGRAMS)
def test_a_daemon_is_struck_when_the_init_has_it_and_goes_on(daemon: str) -> None:
    faults = f"faults: [{{name: program-crashes, program: {daemon}, value: booting}}]"
    effects = collect_effects(scenario(f"machine: {{gpus: [{{product: H100}}]}}\n{faults}"))
    assert effects.events == (GOES_ON[daemon], f"kill {daemon} 11")
    told = GOES_ON[daemon].partition("step ")[2].split()
    assert not told or (told[0] in {step.name for step in BOOT} and told[1:] == ["ok"])


def test_an_agent_ends_when_the_log_has_what_is_expected_of_it() -> None:
    one = scenario("agent: {does: [poweroff], seconds: 4}")
    one = replace(one, expect=replace(one.expect, warnings=("was restarted", "E_GPU_FAULT")))
    assert scenario_texts(one, collect_effects(one), ())["/lab/until"] == "was restarted\nE_GPU_FAULT\n"
    assert "/lab/until" not in scenario_texts(replace(one, agent=Agent()), collect_effects(one), ())


def test_a_faulty_agent_can_be_executed() -> None:
    one = scenario("faults: [{name: agent-no-program}]")
    (entry,) = [entry for entry in make_tree(one, collect_effects(one), (), None) if entry.path == "/usr/bin/kata-agent"]
    assert (entry.mode, entry.read()) == (0o755, b"no program\n")


def test_memory_nodes_are_asked_for_in_the_guest() -> None:
    one = scenario("machine: {gpus: [{product: H100, numa: 1}], numa: 2}")
    texts = scenario_texts(one, collect_effects(one), place_gpus(one.machine))
    assert "/numa=1" in texts["/lab/modules"]
    assert texts["/lab/events"].splitlines()[-1] == "cat /sys/bus/pci/devices/0000:40:00.0/numa_node"


def test_what_is_laid_over_an_image() -> None:
    assert needed_parts(scenario("")) == ("base",)
    assert needed_parts(scenario("machine: {scratch_mib: 8}")) == ("base", "disks")
    assert needed_parts(scenario("machine: {nics: [{}]}")) == ("base", "hardware", "driver")
    assert needed_parts(scenario("machine: {gpus: [{product: T4}]}\ndriver: 1.2")) == ("base", "hardware", "driver@1.2")
    machine = Hardware(gpus=(Gpu(product="H100"),), extensions=(Extension(name="gpu"),))
    assert needed_parts(Scenario(summary="", expect=scenario("").expect, machine=machine)) == ("base", "hardware", "extension")
    broken = scenario("machine: {gpus: [{product: T4}]}\nfaults: [{name: module-lacks-symbol, value: nvidia-uvm}]")
    assert needed_parts(broken)[-1] == "module@nvidia-uvm.lacks-symbol"
    other = replace(machine, extensions=(Extension(name="gpu", damage=Damage.OTHER_KERNEL),))
    assert needed_parts(replace(broken, machine=other, faults=()))[-1] == f"extension@{OTHER_RELEASE}"


@pytest.mark.parametrize(("machine", "module", "problem"), [
    ("machine: {gpus: [{product: T4}]}", "nvidia-drm", "module 'nvidia-drm' is not one of nvidia, nvidia-uvm"),
    ("machine: {gpus: [{product: T4}]}\ndriver: real", "nvidia", "NVIDIA's own modules are left alone"),
    ("machine: {gpus: [{product: T4}], extensions: [{name: gpu}]}", "nvidia", "comes from the GPU extension here"),
])
def test_a_module_fault_names_a_module_that_the_lab_lays_over_the_image(machine: str, module: str, problem: str) -> None:
    with pytest.raises(LabError, match=problem):
        scenario(f"{machine}\nfaults: [{{name: module-missing, value: {module}}}]")


def test_files_of_a_scenario() -> None:
    one = scenario("machine: {gpus: [{product: H100}]}\npolicy: |\n  deny = []\nfaults: [{name: early-client}]")
    texts = scenario_texts(replace(one, files={"/etc/x": "y"}), collect_effects(one), place_gpus(one.machine))
    assert texts["/etc/x"] == "y"
    assert texts["/etc/nvrc/policy.toml"] == "deny = []\n"
    assert texts["/lab/modules"].startswith("/lab/lab_pci.ko fn=0000:40:00.0/10de:2330/030200/")
    assert texts["/lab/faults"] == "nvidia-persistenced.after=/lab/early-client\n"
    assert texts["/lab/events"].splitlines()[-2:] == ["run /usr/bin/nvidia-smi -L", "write /lab/early-client done"]
    assert set(scenario_texts(scenario(""), collect_effects(scenario("")), ())) == {"/lab/faults", "/lab/target"}


def test_the_kernel_command_line() -> None:
    one = Scenario(summary="", expect=scenario("").expect, cmdline="a=1\nb=2", faults=(Fault(name="no-marker"),))
    words = make_line(one, ["c=3"]).split()
    assert words[-3:] == ["c=3", "a=1", "b=2"]
    assert "lab.agent=poweroff" in words
    assert "lab.agent.seconds=2" in make_line(scenario("agent: {seconds: 2}")).split()
