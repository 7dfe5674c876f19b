# SPDX-License-Identifier: Apache-2.0
"""The preflight on recorded hosts: all well, one thing wrong each, half of it absent, and no Kata host at all."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes import kata_merge as second
from fakes.kata_host import (
    CLASSES,
    GO,
    GO_CONFIG,
    GPUS,
    IMAGE,
    PORTS,
    RUST,
    RUST_CONFIG,
    SWITCH,
    KataHost,
    config_with,
    make_host,
    set_register,
)
from nvrc.cli import main
from nvrc.commands.doctor_host import show
from nvrc.preflight import kata
from nvrc.preflight.containerd import read_config
from nvrc.preflight.export import CONDITION, METRICS, export
from nvrc.preflight.host import Host
from nvrc.preflight.kata import second_partition
from nvrc.preflight.kata_merge import merge
from nvrc.preflight.kubelet import read_duration
from nvrc.preflight.preflight import judge
from nvrc.preflight.row import Row, State, bad
from nvrc.preflight.rows import ROWS
from nvrc.vocabulary.records import FormatError
from nvrc.vocabulary.terminal import UNLIMITED

Change = Callable[[KataHost], object]


def states(host: KataHost, *, node: bool = True) -> dict[str, State]:
    found = judge(Host(str(host.root), host.node_json() if node else b""))
    assert found.is_kata_host
    return {result.row.name: result.state for result in found.results}


@pytest.fixture
def host(tmp_path: Path) -> KataHost:
    return make_host(tmp_path)


def test_a_good_host_is_good_in_every_row_that_concerns_it(host: KataHost) -> None:
    found = judge(Host(str(host.root), host.node_json()))
    told = {result.row.name: [one.what for one in result.judgements] for result in found.results
            if result.state not in (State.GOOD, State.UNUSED)}
    assert told == {}
    assert [result.row.name for result in found.results if result.state is State.UNUSED] == ["large-tdx"]
    assert found.is_good


PCI = "/sys/bus/pci/devices"
KATA_DEPLOY = "/opt/kata/containerd/config.d/kata-deploy.toml"
KUBELET = "/var/lib/kubelet/config.yaml"
NEIGHBOUR = "/sys/kernel/iommu_groups/40/devices/0000:17:00.0"
WRONG: dict[str, tuple[str, str, Change]] = {
    # what is wrong: the row that finds it, words of the finding, the change
    "no virtualisation": ("virtualisation", "neither vmx nor svm", lambda h: h.put("/proc/cpuinfo", "flags\t: fpu\n")),
    "no kvm": ("virtualisation", "/dev/kvm is missing", lambda h: h.remove("/dev/kvm")),
    "no vsock": ("vsock", "/dev/vhost-vsock is missing", lambda h: h.remove("/dev/vhost-vsock")),
    "iommu off": ("iommu", "the IOMMU is off", lambda h: shutil.rmtree(h.path("/sys/kernel/iommu_groups"))),
    "no iommufd": ("iommufd", "/dev/iommu is missing", lambda h: h.remove("/dev/iommu")),
    "snp off": ("tee", "neither", lambda h: h.put("/sys/module/kvm_amd/parameters/sev_snp", "N\n")),
    "no gpu": ("gpus", "no NVIDIA GPU", lambda h: (shutil.rmtree(h.path("/sys/bus/pci/devices")), h.path("/sys/bus/pci/devices").mkdir())),
    "gpu on nvidia": ("binding", f"GPU {GPUS[0]} has the driver nvidia",
                      lambda h: h.link(f"{PCI}/{GPUS[0]}/driver", "../../../../bus/pci/drivers/nvidia")),
    "switch unbound": ("binding", f"NVSwitch {SWITCH} has no driver", lambda h: h.remove(f"{PCI}/{SWITCH}/driver")),
    "nouveau": ("host-driver", "nouveau is loaded", lambda h: h.put("/proc/modules", "nouveau 1 0 - Live 0x0\n")),
    "shared group": ("iommu-group", f"GPU {GPUS[0]} shares IOMMU group 40 with 0000:17:00.0", lambda h: h.put(NEIGHBOUR)),
    "no group": ("iommu-group", "is not in an IOMMU group", lambda h: h.remove(f"{PCI}/{GPUS[1]}/iommu_group")),
    "no acs": ("acs", f"port {PORTS[GPUS[0]]} above a GPU has no ACS", lambda h: h.put(f"{PCI}/{PORTS[GPUS[0]]}/config", config_with(1))),
    "no cdev": ("vfio-nodes", "has no /dev/vfio/devices/vfio1", lambda h: h.remove("/dev/vfio/devices/vfio1")),
    "group node only": ("vfio-nodes", "only its group node exists",
                        lambda h: (h.remove(f"{PCI}/{GPUS[1]}/vfio-dev"), h.put("/dev/vfio/41"))),
    "no host cdi": ("host-cdi", "no document of a kind nvidia.com", lambda h: h.remove("/var/run/cdi/nvidia.com-pgpu.yaml")),
    "gpu not in cdi": ("host-cdi", f"GPU {GPUS[0]} (vfio0) is not in", lambda h: h.replace("/var/run/cdi/nvidia.com-pgpu.yaml", '"0"', '"9"')),
    "cdi node gone": ("host-cdi", "which is missing", lambda h: h.replace("/var/run/cdi/nvidia.com-pgpu.yaml", "devices/vfio2", "devices/vfio7")),
    "cdi broken": ("host-cdi", "cannot be read as YAML", lambda h: h.put("/var/run/cdi/a.yaml", "a: [\n")),
    "d3cold": ("power", f"GPU {GPUS[0]} is in D3cold", lambda h: h.put(f"{PCI}/{GPUS[0]}/power_state", "D3cold\n")),
    "d3cold allowed": ("power", "may fall into D3cold", lambda h: h.put(f"{PCI}/{GPUS[0]}/d3cold_allowed", "1\n")),
    "dma limit": ("dma-limit", "dma_entry_limit is 65535",
                  lambda h: h.put("/sys/module/vfio_iommu_type1/parameters/dma_entry_limit", "65535\n")),
    "modes differ": ("cc-mode", "different modes", lambda h: set_register(h, GPUS[1], 0x1182CC, 0)),
    "mode unknown": ("cc-mode", "not a known mode", lambda h: set_register(h, GPUS[1], 0x1182CC, 2)),
    "label lies": ("cc-mode", "labelled cc.mode on", lambda h: [set_register(h, bdf, 0x1182CC, 0) for bdf in GPUS]),
    "label failed": ("labels", "state is failed", lambda h: h.label(cc_mode_state="failed")),
    "label on its way": ("labels", "the switch is not over", lambda h: h.label(cc_mode="off")),
    "label not ready": ("labels", "cc.ready.state is false in mode on", lambda h: h.label(cc_ready_state="false")),
    "label containers": ("labels", "is container", lambda h: h.label(gpu_workload_config="container")),
    "gate off": ("kubelet-get", "is off: the runtime cannot ask", lambda h: h.replace(KUBELET, "Get: true", "Get: false")),
    "gate in words": ("kubelet-get", "kubelet does not start", lambda h: h.replace(KUBELET, "Get: true", 'Get: "true"')),
    "kubelet yaml": ("kubelet-get", "cannot be read as YAML", lambda h: h.put(KUBELET, "a: [")),
    "image gate off": ("kubelet-image-class", "is off", lambda h: h.replace(KUBELET, "CriApi: true", "CriApi: false")),
    "short timeout": ("kubelet-timeout", "is 120 s", lambda h: h.replace(KUBELET, "20m0s", "2m")),
    "no timeout": ("kubelet-timeout", "is 120 s", lambda h: h.replace(KUBELET, "runtimeRequestTimeout: 20m0s\n", "")),
    "timeout in words": ("kubelet-timeout", "is not a duration", lambda h: h.replace(KUBELET, "20m0s", "long")),
    "static cpus": ("cpu-manager", "cpuManagerPolicy is static", lambda h: h.put(KUBELET, h.path(KUBELET).read_text() + "cpuManagerPolicy: static\n")),
    "no kubelet socket": ("kubelet-socket", "kubelet.sock is missing", lambda h: h.remove("/var/lib/kubelet/pod-resources/kubelet.sock")),
    "nothing imported": ("containerd", "knows no runtime of Kata", lambda h: h.replace("/etc/containerd/config.toml", "*.toml", "*.none")),
    "containerd broken": ("containerd", "cannot be read as TOML", lambda h: h.put(KATA_DEPLOY, "[")),
    "old containerd": ("containerd-version", "containerd is 2.0", lambda h: h.node.update(
        status={"nodeInfo": {"containerRuntimeVersion": "containerd://2.0.4"}})),
    "cdi off": ("containerd-cdi", "enable_cdi = false", lambda h: h.replace("/etc/containerd/config.toml", "cdi = true", "cdi = false")),
    "cdi elsewhere": ("containerd-cdi", "the node's documents are in", lambda h: h.replace(
        "/etc/containerd/config.toml", "cdi = true", 'cdi = true\ncdi_spec_dirs = ["/opt/cdi"]')),
    "no annotations": ("containerd-runtime", "passes no io.katacontainers annotation", lambda h: h.replace(KATA_DEPLOY, "io.katacontainers.*", "x")),
    "host devices": ("containerd-runtime", "lacks privileged_without_host_devices",
                     lambda h: h.replace(KATA_DEPLOY, "devices = true", "devices = false")),
    "class gone": ("kata-classes", "which is missing", lambda h: h.remove(GO_CONFIG)),
    "class is a folder": ("kata-classes", "which is not a file", lambda h: (h.remove(GO_CONFIG), h.path(GO_CONFIG).mkdir())),
    "memory in words": ("kata-classes", "default_memory = '8192', and the runtime stops", lambda h: h.replace(
        RUST_CONFIG, "default_memory = 8192", 'default_memory = "8192"')),
    "list of parameters": ("kata-classes", "kernel_params = ['quiet']", lambda h: h.put(f"{GO}/config.d/9", '[hypervisor.qemu]\nkernel_params = ["quiet"]\n')),
    "stray file": ("kata-drop-ins", "pod.yaml cannot be read as TOML", lambda h: h.put(f"{GO}/config.d/pod.yaml", "kind: Pod\n")),
    "backup": ("kata-drop-ins", "not a drop-in by its name", lambda h: h.put(f"{GO}/config.d/50-nvrc.toml~", "")),
    "link under rust": ("kata-drop-ins", "not a regular file", lambda h: h.link(f"{RUST}/config.d/60.toml", "50-nvrc.toml")),
    "no cold plug": ("kata-cold-plug", "cold_plug_vfio = 'no-port'", lambda h: h.put(f"{GO}/config.d/9", '[hypervisor.qemu]\ncold_plug_vfio = "no-port"\n')),
    "few ports": ("kata-cold-plug", "pcie_root_port = 1", lambda h: h.put(f"{RUST}/config.d/90.toml", "[hypervisor.qemu]\npcie_root_port = 1\n")),
    "vfio mode": ("kata-cold-plug", "vfio_mode = 'vfio'", lambda h: h.replace(GO_CONFIG, "guest-kernel", "vfio")),
    "runtime gives up": ("kata-timeouts", "waits 45 s for the agent (reconnect_timeout_ms)", lambda h: h.remove(f"{RUST}/config.d/50-nvrc.toml")),
    "drop-in gives no number": ("kata-timeouts", "waits 0 s for the agent (dial_timeout)",
                                lambda h: h.put(f"{GO}/config.d/60.toml", "[agent.kata]\ndial_timeout = nan\n")),
    "drop-in gives no end": ("kata-timeouts", "waits 0 s for the agent (dial_timeout)",
                             lambda h: h.put(f"{GO}/config.d/60.toml", "[agent.kata]\ndial_timeout = inf\n")),
    "drop-in gives too much": ("kata-timeouts", "waits 0 s for the agent (dial_timeout)",
                               lambda h: h.put(f"{GO}/config.d/60.toml", "[agent.kata]\ndial_timeout = 4294967296\n")),
    "drop-in gives up": ("kata-timeouts", "waits 60 s for the agent (dial_timeout)", lambda h: h.put(f"{GO}/config.d/60.toml", "[agent.kata]\ndial_timeout = 60\n")),
    "longer boot": ("kata-timeouts", "may take 4", lambda h: h.replace(GO_CONFIG, "cgroup_no_v1=all", "nvrc.timeout.boot=3600")),
    "no firmware": ("kata-files", "AMDSEV.fd is missing", lambda h: h.remove("/opt/kata/share/ovmf/AMDSEV.fd")),
    "another image": ("kata-verity", "has root hash", lambda h: h.put(IMAGE, h.path(IMAGE).read_bytes()[:-1] + b"x")),
    "pinned": ("numa-pinning", "enable_numa and enable_vcpus_pinning",
               lambda h: (h.replace(GO_CONFIG, "numa = false", "numa = true"), h.replace(GO_CONFIG, "pinning = false", "pinning = true"))),
    "large tdx": ("large-tdx", "VMs of 65536 MiB", lambda h: (
        h.replace(RUST_CONFIG, "sev_snp_guest = true\n", ""), h.replace(RUST_CONFIG, "default_memory = 8192", "default_memory = 65536"))),
    "kata-manager": ("kata-manager", "labelled for kata-manager", lambda h: h.label(**{"gpu_deploy_kata-manager": "true"})),
    "old kata": ("kata-version", "Kata is 3.20.0", lambda h: h.put("/opt/kata/VERSION", "3.20.0\n")),
    "old qemu": ("qemu-version", "v9.2.0", lambda h: h.replace("/opt/kata/versions.yaml", "v10.1.2", "v9.2.0")),
    "old firmware": ("firmware-version", "edk2-stable202408", lambda h: h.replace("/opt/kata/versions.yaml", "edk2-stable202511", "edk2-stable202408")),
    "new tdx firmware": ("firmware-version", "time out on vsock", lambda h: (
        h.replace(RUST_CONFIG, "sev_snp_guest = true\n", ""), h.replace("/opt/kata/versions.yaml", "202511", "202605"))),
    "old kernel": ("host-kernel", "6.8.0", lambda h: h.put("/proc/sys/kernel/osrelease", "6.8.0-31-generic\n")),
}


@pytest.mark.long
@pytest.mark.parametrize(("row", "words", "change"), WRONG.values(), ids=WRONG)
def test_one_thing_wrong_is_found_by_its_row(host: KataHost, row: str, words: str, change: Change) -> None:
    change(host)
    preflight = judge(Host(str(host.root), host.node_json()))
    found = {result.row.name: result for result in preflight.results}
    assert words in "; ".join(one.what for one in found[row].judgements if one.state in (State.BAD, State.WARNING))
    assert not preflight.is_good
    assert words.split("; ", maxsplit=1)[0] in "\n".join(show(preflight, UNLIMITED))


@pytest.mark.long
def test_one_thing_wrong_is_told_by_the_command(host: KataHost) -> None:
    host.remove("/dev/kvm")
    out, node = io.StringIO(), host.put("/node.json", host.node_json())
    assert main(["doctor", "--host", "--root", str(host.root), "--node", str(node)], out) == 1
    judged = judge(Host(str(host.root), host.node_json()))
    assert out.getvalue().splitlines() == list(show(judged, UNLIMITED))


def test_every_row_has_a_host_on_which_it_finds_something() -> None:
    assert {row for row, _words, _change in WRONG.values()} == {row.name for row in ROWS}


def test_rows_say_all_that_their_reader_needs() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert all((row.asks, row.reads, row.reason, row.remedy, row.command, row.who)), row.name


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
def test_half_of_the_paths_absent_is_judged_to_the_last_row(host: KataHost, seed: int) -> None:
    chance = random.Random(seed)
    for path in sorted(host.root.rglob("*")):
        if not path.is_dir() and os.path.lexists(path) and chance.random() < 0.5:
            path.unlink()
    host.put("/opt/kata/VERSION", "4.1.0")
    found = judge(Host(str(host.root)))
    assert len(found.results) == len(ROWS)
    assert not [one.what for result in found.results for one in result.judgements if "could not be judged" in one.what]


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]\n" for n in range(1, 12))
DEEP = "{a" + ".a" * 100 + " = "
MERGED = "a0: &a0 {" + ", ".join(f"k{number}: 1" for number in range(10)) + "}\n" + "".join(
    f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 10)}]}}\n" for level in range(1, 10))
ODD: dict[str, Change] = {
    "a blank line of modules": lambda h: h.put("/proc/modules", "\x0c\n \n"),
    "other digits": lambda h: h.put("/sys/module/vfio_iommu_type1/parameters/dma_entry_limit", "\u00b2"),
    "endless digits": lambda h: h.put("/opt/kata/VERSION", "9" * 5000 + ".1.0"),
    "a kernel of endless digits": lambda h: h.put("/proc/sys/kernel/osrelease", "9" * 5000 + ".1.0"),
    "no salt": lambda h: h.replace(GO_CONFIG, "salt=", "sugar="),
    "a block of the tree that is no size": lambda h: h.replace(GO_CONFIG, "hash_block_size=4096", "hash_block_size=" + "9" * 30),
    "a partition at the end of the world": lambda h: h.put(IMAGE, gpt(1 << 60)),
    "a NUL in a path": lambda h: h.put(f"{GO}/config.d/9", '[hypervisor.qemu]\nkernel = "/a\\u0000b"\n'),
    "a NUL in an import": lambda h: h.put("/etc/containerd/config.toml", 'version = 3\nimports = ["/a\\u0000b/*", "/opt/kata/containerd/config.d/*"]\n'),
    "an empty number": lambda h: h.put(KUBELET, 'a: !!int ""\n'),
    "aliases of aliases": lambda h: h.put(KUBELET, BOMB + "featureGates: {x: *a11}\n"),
    "merged again and again": lambda h: h.put(KUBELET, MERGED),
    "a mapping merged into itself": lambda h: h.put(KUBELET, "a: &a {<<: *a}\n"),
    "a list in itself": lambda h: h.put("/opt/kata/versions.yaml", "a: &a [*a]\n"),
    "deep tables": lambda h: h.put(f"{RUST}/config.d/9.toml", "x = " + DEEP * 20 + "1" + "}" * 20 + "\n"),
    "a name that is no UTF-8": lambda h: h.put(f"{GO}/config.d/" + os.fsdecode(b"\xff.toml"), ""),
}


@pytest.mark.parametrize(("text", "found"), [
    pytest.param("a: &a {b: 1, c: 2}\nd: {<<: *a, c: 3}\ne: {<<: [*a, {f: 4}]}\n",
                 {"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}, "e": {"b": 1, "c": 2, "f": 4}}, id="merge keys"),
    pytest.param("a: 1:30\nb: 0x1F\nc: 1_000\n", {"a": 90, "b": 31, "c": 1000}, id="numbers"),
    pytest.param("a: 1" + ":1" * 600 + "\n", {"a": "1" + ":1" * 600}, id="a number that is none"),
])
def test_yaml_is_read_as_ever(tmp_path: Path, text: str, found: object) -> None:
    (tmp_path / "x").write_text(text)
    assert Host(str(tmp_path)).yaml("/x") == (found, "")


def test_merge_keys_stand_for_no_more_than_a_file_may_have(tmp_path: Path) -> None:
    """Nine lines had PyYAML make a billion entries before anybody counted them."""
    (tmp_path / "x").write_text(MERGED)
    assert Host(str(tmp_path)).yaml("/x") == (None, "cannot be read as YAML: its merge keys make it larger than a file may be")


@pytest.mark.parametrize(("path", "most"), [(KUBELET, 256), (f"{GO}/config.d/9.toml", 1024)], ids=["YAML", "TOML"])
def test_a_document_larger_than_any_host_has_is_not_read(host: KataHost, path: str, most: int) -> None:
    """A pure reader of YAML takes a minute and more for four megabytes."""
    host.put(path, f"# {'x' * (most << 10)}\n")
    told = [one.what for result in judge(Host(str(host.root))).results for one in result.judgements]
    assert any(f"{path} has more than {most} KiB" in what for what in told)


def test_a_host_that_takes_too_long_to_read_is_no_good_host(host: KataHost) -> None:
    ticks = iter(range(10**6))
    found = judge(Host(str(host.root), now=lambda: float(next(ticks))))
    assert (len(found.results), found.is_good) == (len(ROWS), False)
    assert found.results[-1].judgements == (
        bad("it was not judged: rows before it took 60 s; find files of the host that are too large or too many"),)


def test_folders_are_not_found_again_by_their_links(host: KataHost) -> None:
    """Of links to the folder itself, sixteen took seconds, and the fourth power of their number more."""
    recorded = Host(str(host.root))
    before = list(kata._installed(recorded, kata.DEFAULTS, kata.DEEPEST))
    for number in range(30):
        (host.root / kata.DEFAULTS[1:] / f"link{number}").symlink_to(".")
    assert before
    assert list(kata._installed(recorded, kata.DEFAULTS, kata.DEEPEST)) == before


@pytest.mark.parametrize("program", ["/a\0b", "bin/sh", "sh", ""])
def test_a_program_that_is_no_path_is_not_asked(program: str) -> None:
    assert Host("/").version_of(program) is None


def gpt(start: int) -> bytes:
    head = bytearray(34 * 512)
    head[512:520], head[584:592], head[596:600] = b"EFI PART", (2).to_bytes(8, "little"), (128).to_bytes(4, "little")
    head[2 * 512 + 128 + 32:2 * 512 + 128 + 40] = start.to_bytes(8, "little")
    return bytes(head)


@pytest.mark.long
@pytest.mark.parametrize("change", ODD.values(), ids=ODD)
def test_what_nobody_would_write_is_judged_to_the_last_row(host: KataHost, change: Change) -> None:
    change(host)
    recorded = Host(str(host.root), host.node_json())
    for row in ROWS:
        assert list(row.judge(recorded)), row.name


def test_each_import_is_read_once(host: KataHost) -> None:
    folder = "/opt/kata/containerd/config.d"
    host.put("/etc/containerd/config.toml", f'version = 3\nimports = {["/opt/kata/containerd/*.d/../config.d/*"] * 9 + [f"{folder}/*"] * 9}\n')
    host.put(f"{folder}/again.toml", f'imports = ["{folder}/*"]\n')
    assert len(read_config(Host(str(host.root))).documents) == 3


def test_nothing_but_kata_is_mostly_unknown_and_never_good_about_devices(tmp_path: Path) -> None:
    (tmp_path / "opt/kata").mkdir(parents=True)
    found = states(KataHost(tmp_path, {"kind": "Node"}), node=False)
    assert {found[name] for name in ("virtualisation", "vsock", "iommu", "gpus", "host-driver", "labels")} == {State.UNKNOWN}


def test_a_machine_that_is_no_kata_host_says_so_shortly(tmp_path: Path) -> None:
    out = io.StringIO()
    assert main(["doctor", "--host", "--root", str(tmp_path)], out) == 1
    assert out.getvalue().count("\n") == 1
    assert out.getvalue().startswith("not a Kata host: ")
    out = io.StringIO()
    assert main(["doctor", "--host", "--json", "--root", str(tmp_path)], out) == 1
    assert json.loads(out.getvalue())["kata_host"] is False


def test_json_has_every_row_with_its_remedy(host: KataHost) -> None:
    node = host.put("/node.json", host.node_json())
    out = io.StringIO()
    assert main(["doctor", "--host", "--json", "--root", str(host.root), "--node", str(node)], out) == 0
    document = json.loads(out.getvalue())
    assert (document["schema"], document["kata_host"], document["good"]) == (1, True, True)
    assert [row["name"] for row in document["rows"]] == [row.name for row in ROWS]
    assert set(document["rows"][0]) == {"name", "state", "asks", "reads", "judgements", "reason", "remedy", "command", "who"}


CALLS = {
    "a log as well": (["doctor", "--host", "x.log"], "reads no log"),
    "no folder": (["doctor", "--host", "--root", "/no/such"], "is not a folder"),
    "root alone": (["doctor", "--root", "/tmp"], "--root, --node and --export are for --host"),
}


@pytest.mark.parametrize(("argv", "words"), CALLS.values(), ids=CALLS)
def test_a_wrong_call_is_refused(argv: list[str], words: str) -> None:
    err = io.StringIO()
    assert main(argv, io.StringIO(), err) == 2
    assert words in err.getvalue()


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"kind": "Pod"}'], ids=["broken", "a list", "a Pod"])
def test_what_is_no_node_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match="kubectl get node"):
        Host("/", data)


def test_links_of_a_recorded_host_stay_in_it(host: KataHost) -> None:
    host.link("/etc/out", "/etc/passwd")
    host.link("/etc/up", "../../../../../../../../etc/passwd")
    host.link("/etc/ring", "ring")
    seen = Host(str(host.root))
    assert [seen.read(f"/etc/{name}") for name in ("out", "up", "ring")] == [None, None, None]


@pytest.mark.parametrize("name", [
    "/etc/containerd/config.toml", GO_CONFIG, "/proc/modules", "/opt/kata/VERSION", IMAGE, "/var/run/cdi/nvidia.com-pgpu.yaml"])
def test_a_pipe_in_a_recorded_host_is_not_waited_for(host: KataHost, name: str) -> None:
    host.remove(name)
    os.mkfifo(host.path(name))
    recorded = Host(str(host.root))
    assert recorded.read(name) is None
    assert recorded.block(name, 0, 10) is None
    assert recorded.register(name, 0) is None
    assert recorded.refused == {name}


def test_a_row_that_fails_itself_is_unknown(host: KataHost) -> None:
    def broken(_host: Host) -> object:
        raise RuntimeError("oops")

    row = Row(name="x", asks="x", reads="x", reason="x", remedy="x", command="x", judge=broken)  # type: ignore[arg-type]
    result, = judge(Host(str(host.root)), [row]).results
    assert (result.state, result.judgements[0].what) == (State.UNKNOWN, "it could not be judged: RuntimeError: oops")


def test_a_real_socket_is_one(host: KataHost) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(host.path("/s")))
        assert Host(str(host.root)).is_socket("/s")


# The merged configuration ---------------------------------------------------------------------------------------------

DROP_INS = {
    "scalars": {"10.toml": "[hypervisor.qemu]\ndefault_memory = 1\n", "20.toml": "[hypervisor.qemu]\ndefault_memory = 2\n"},
    "a list": {"50.toml": "[hypervisor.qemu]\nenable_annotations = ['a']\n"},
    "an empty list": {"50.toml": "[hypervisor.qemu]\nguest_extension_images = []\n"},
    "lists of tables": {"50.toml": '[[hypervisor.qemu.guest_extension_images]]\nname = "gpu"\npath = "/x"\nverity_params = ""\n'},
    "agent and runtime": {"50.toml": "[agent.kata]\nlaunch_process_timeout = 15\n[runtime]\nenable_debug = true\n"},
    "order of bytes": {"9.toml": "[hypervisor.qemu]\ndefault_vcpus = 9\n", "10.toml": "[hypervisor.qemu]\ndefault_vcpus = 10\n"},
    "another hypervisor": {"50.toml": "[hypervisor.clh]\npath = '/x'\n"},
}


@pytest.mark.parametrize("name", second.CLASSES)
@pytest.mark.parametrize("files", DROP_INS.values(), ids=DROP_INS)
def test_classes_are_merged_as_their_runtime_merges_them(tmp_path: Path, name: str, files: dict[str, str]) -> None:
    """Against the other writing of Kata's rule, with the classes of Kata 4.1."""
    folder = tmp_path / "class"
    (folder / "config.d").mkdir(parents=True)
    (folder / "configuration.toml").write_text(as_toml(second.class_config(name)))
    for entry, text in files.items():
        (folder / "config.d" / entry).write_text(text)
    found = merge(Host(str(tmp_path)), "/class/configuration.toml", is_rust=name.endswith("-runtime-rs"))
    assert found is not None
    assert found.problems == ()
    loaded = second.load(name, folder / "config.d")
    table = json.loads(json.dumps(found.table))
    assert (table["hypervisor"]["qemu"], table["agent"]["kata"], table["runtime"]) == (loaded.qemu, loaded.agent, loaded.runtime)


def as_toml(table: dict[str, object]) -> str:
    lines = []
    for section, rows in table.items():
        assert isinstance(rows, dict)
        inner = rows if all(isinstance(row, dict) for row in rows.values()) else {None: rows}
        for name, fields in inner.items():
            lines.append(f"[{section}.{name}]" if name else f"[{section}]")
            lines += [f"{key} = {_value(value)}" for key, value in fields.items()]
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_value(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)


@pytest.mark.parametrize(("text", "seconds"), [("20m0s", 1200.0), ("1h", 3600.0), ("1.5m", 90.0), ("90s", 90.0), ("100ms", 0.1),
                                               ("0", 0.0), ("", None), ("5", None), ("5 m", None), ("m5", None),
                                               ("\uff12\uff10m", None), ("9" * 400 + "h", None), ("2562047h", 9223369200.0), ("2562048h", None)])
def test_durations_are_read_as_go_writes_them(text: str, seconds: float | None) -> None:
    assert read_duration(text) == seconds


def test_partitions_of_both_kinds() -> None:
    gpt = bytearray(34 * 512)
    gpt[512:520] = b"EFI PART"
    gpt[584:592], gpt[596:600] = (2).to_bytes(8, "little"), (128).to_bytes(4, "little")
    gpt[2 * 512 + 128 + 32:2 * 512 + 128 + 40] = (2048).to_bytes(8, "little")
    assert second_partition(bytes(gpt)) == 2048
    assert second_partition(b"") is None
    assert second_partition(bytes(512)) is None


def test_installed_classes_count_where_containerd_names_none(host: KataHost) -> None:
    host.remove("/etc/containerd/config.toml")
    found = {result.row.name: result for result in judge(Host(str(host.root))).results}
    assert found["kata-classes"].judgements[0].what == "2 classes: qemu-nvidia-gpu-snp-runtime-rs, qemu-nvidia-gpu"
    assert host.path(CLASSES).is_dir()


def test_what_lies_in_the_folder_of_metrics_is_not_written_through(host: KataHost, tmp_path: Path) -> None:
    """It belongs to the account of node_exporter, which can guess the name, and this runs as root."""
    folder, victim = tmp_path / "textfile", tmp_path / "victim"
    folder.mkdir()
    victim.write_text("as it was")
    victim.chmod(0o600)
    (folder / f".{METRICS}.{os.getpid()}").symlink_to(victim)
    export(judge(Host(str(host.root))), str(folder), 1.0)
    assert (victim.read_text(), victim.stat().st_mode & 0o777) == ("as it was", 0o600)
    assert {path.name for path in folder.iterdir()} == {METRICS, CONDITION}
    assert (folder / METRICS).stat().st_mode & 0o777 == 0o644
    assert not (folder / METRICS).is_symlink()
