# SPDX-License-Identifier: Apache-2.0
"""kata-config, read back as Kata's runtimes read it: each class, each way to its extensions, each refusal."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Protocol

import pytest

from fakes import kata_merge
from fakes.kata_images import IMAGES, LINE, make_image
from fakes.kata_merge import CLASSES, NVIDIA, NVIDIA_TEE, PLAIN, KataError, Loaded
from nvrc_build.cli import main
from nvrc_build.kata.classes import CLASSES as KNOWN
from nvrc_build.kata.extensions import read_class
from nvrc_build.kata.timeouts import PULL_S, Machine, find_timeouts

GPU, COCO = ("--extension", "gpu=nvidia-gpu"), ("--extension", "coco=nvidia-coco")
BASE_RS = "kata-qemu-nvidia-gpu-runtime-rs"
SNP_RS = "kata-qemu-nvidia-gpu-snp-runtime-rs"


class Merge(Protocol):
    def __call__(self, image: str, kata: str, *words: str) -> Loaded: ...


@pytest.fixture
def out(tmp_path: Path) -> Path:
    for name in IMAGES:
        make_image(tmp_path / "out/images", name)
    return tmp_path / "out"


@pytest.fixture
def merged(out: Path, tmp_path: Path) -> Merge:
    """Run kata-config for a class into a config.d with kata-deploy's own files, and load all that as its runtime does."""
    def run(image: str, kata: str, *words: str) -> Loaded:
        config_d = tmp_path / "config.d"
        config_d.mkdir(exist_ok=True)
        (config_d / "30-kernel-params.toml").write_text(
            '[hypervisor.qemu]\nkernel_params = "agent.https_proxy=http://proxy"\n' if "--proxy" in words else "")
        words = tuple(word for word in words if word != "--proxy")
        assert main(["kata-config", image, "--out", str(out), "--runtime-class", kata, "-d", str(config_d), *words]) == 0
        return kata_merge.load(kata, config_d)
    return run


def refusal(out: Path, image: str, *words: str, capsys: pytest.CaptureFixture[str], status: int = 1) -> str:
    """What does not go together is a finding. A name or a value that is none is a wrong call, with status 2."""
    ended, shown = main(["kata-config", image, "--out", str(out), *words]), capsys.readouterr()
    assert (shown.out, ended) == ("", status)
    return shown.err


def test_the_table_knows_the_classes_of_kata_and_what_each_says() -> None:
    """Against the second list of the tests, and each other."""
    assert sorted(KNOWN) == sorted(CLASSES)
    for name, row in KNOWN.items():
        params, extensions, *_ = {**kata_merge.GO, **kata_merge.RUST}[row.shim]
        assert (row.kernel_params, row.extensions, row.runtime.value) == (
            params, extensions, "Go" if row.shim in kata_merge.GO else "Rust"), name


@pytest.mark.parametrize("kata", CLASSES)
def test_every_class_boots_the_image_and_waits_as_long_as_the_guest_may_take(
        kata: str, merged: Merge, out: Path) -> None:
    is_tee, has_gpus = "-snp" in kata or "-tdx" in kata, "-nvidia-gpu" in kata
    image = "nvidia-confidential" if is_tee else "nvidia" if has_gpus else "nvidia-base"
    config = merged(image, kata)
    qemu = config.qemu
    folder = out / "images" / image
    assert (qemu["kernel"], qemu["initrd"], qemu["image"]) == (str(folder / "vmlinuz"), str(folder / "initrd"), "")
    # The image has it all, so what the class would have attached is gone.
    assert config.extensions == []
    expected = NVIDIA_TEE if is_tee and has_gpus else NVIDIA if "nvidia" in kata else PLAIN
    assert qemu["kernel_params"] == expected
    agent, runtime = config.agent, config.runtime
    found = find_timeouts(Machine(gpus=int(has_gpus)), expected, is_tee=is_tee, pull_s=PULL_S if is_tee else 0)
    dial_s, create_s = found.dial_s, found.create_container_s
    if kata.endswith("-runtime-rs"):
        assert (agent["reconnect_timeout_ms"], agent["create_container_timeout"]) == (dial_s * 1000, create_s)
        assert agent["dial_timeout_ms"] == kata_merge.RUST[kata.removeprefix("kata-")].between_ms
        assert "create_container_timeout" not in runtime
    else:
        assert (agent["dial_timeout"], runtime["create_container_timeout"]) == (dial_s, create_s)
    assert qemu["default_memory"] == 8192  # what is not ours stays


@pytest.mark.parametrize("kata", CLASSES)
def test_debugging_is_switched_on_in_all_three_places(kata: str, merged: Merge) -> None:
    image = "nvidia-confidential" if "-snp" in kata or "-tdx" in kata else "nvidia"
    config = merged(image, kata, "--debug")
    assert config.qemu["enable_debug"] is True
    assert config.agent["enable_debug"] is True
    assert config.runtime["enable_debug"] is True


@pytest.mark.parametrize(("image", "kata", "words", "names"), [
    ("nvidia-base", BASE_RS, GPU, ["gpu"]),
    ("nvidia-base", SNP_RS, (*GPU, *COCO), ["gpu", "coco"]),
    ("nvidia-base", SNP_RS, (*COCO, *GPU), ["coco", "gpu"]),
    ("nvidia-base", SNP_RS, (*GPU, "--drop", "coco"), ["gpu"]),
    ("nvidia", SNP_RS, COCO, ["coco"]),
    ("nvidia", SNP_RS, ("--drop", "coco"), []),
    ("nvidia-base", "kata-qemu-nvidia-gpu", GPU, ["gpu"]),
    ("nvidia-base", "kata-qemu-nvidia-gpu", ("--drop", "gpu"), []),
    ("nvidia-base", "kata-qemu", ("--extension", "mine=nvidia-gpu"), ["mine"]),
], ids=["rust", "rust-tee", "order", "rust-drop", "own-driver", "own-driver-drop", "go", "go-without", "further"])
def test_the_list_of_extensions_is_whole(image: str, kata: str, words: tuple[str, ...], names: list[str],
                                         merged: Merge) -> None:
    rows = merged(image, kata, *words).extensions
    assert [row["name"] for row in rows] == names
    paths = {"gpu": "nvidia-gpu", "mine": "nvidia-gpu", "coco": "nvidia-coco"}
    assert [row["path"].split("/")[-2:] for row in rows] == [[paths[name], "disk.img"] for name in names]
    assert {row["verity_params"] for row in rows} <= {LINE}


def write_class(path: Path, kata: str) -> Path:
    rows = kata_merge.read(kata_merge.class_config(kata)).extensions
    path.write_text("[hypervisor.qemu]\n" + "".join(
        "[[hypervisor.qemu.guest_extension_images]]\n" + "".join(f'{key} = "{value}"\n' for key, value in row.items())
        for row in rows))
    return path


def test_the_classs_own_extensions_are_carried_over_whole(tmp_path: Path,
                                                          merged: Merge) -> None:
    """With its configuration at hand: coco is kept as it is, gpu gives way to ours."""
    known = write_class(tmp_path / "configuration.toml", SNP_RS)
    rows = merged("nvidia-base", SNP_RS, *GPU, "--class-config", str(known)).extensions
    assert [(row["name"], row["path"], row["verity_params"]) for row in rows] == [
        ("gpu", str(tmp_path / "out/images/nvidia-gpu/disk.img"), LINE),
        ("coco", "/opt/kata/coco.img", kata_merge.LINE)]


@pytest.mark.parametrize(("image", "kata", "words", "said"), [
    ("nvidia-base", SNP_RS, GPU, f"class {SNP_RS} needs coco, which neither image nvidia-base nor an extension has"),
    ("nvidia-base", SNP_RS, (), f"class {SNP_RS} needs gpu and coco"),
    ("nvidia-base", "kata-qemu-nvidia-gpu", (), "class kata-qemu-nvidia-gpu needs gpu"),
    ("nvidia", "kata-qemu-nvidia-gpu-snp", (), "class kata-qemu-nvidia-gpu-snp needs coco"),
    ("nvidia", BASE_RS, GPU, "image nvidia has the driver itself; extension gpu would be a second one"),
    ("nvidia-base", BASE_RS, ("--extension", "gpu=nvidia"), "image nvidia is not a disk, so it cannot be extension gpu"),
    ("nvidia-base", BASE_RS, ("--extension", "gpu=kata-base"), "image kata-base has an init, so it is not an extension"),
    ("nvidia-gpu", BASE_RS, (), "image nvidia-gpu has no init: it is an extension; give the base image"),
    ("nvidia", "kata-qemu-nvidia-gpu", ("--gpus", "3", "--nvswitch", "4"), "no boot comes to the agent: E_TOPOLOGY"),
])
def test_what_would_not_work_is_refused(image: str, kata: str, words: tuple[str, ...], said: str, out: Path,  # noqa: PLR0917
                                        capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refusal(out, image, "--runtime-class", kata, *words, capsys=capsys)


@pytest.mark.parametrize(("image", "kata", "words", "said"), [
    ("nvidia", BASE_RS, ("--drop", "coco"), f"--drop coco: class {BASE_RS} has no such extension; name one of: gpu"),
    ("nvidia-base", BASE_RS, (*GPU, *GPU), "extension gpu is given and given or dropped again"),
    ("nvidia-base", BASE_RS, (*GPU, "--drop", "gpu"), "extension gpu is given and given or dropped again"),
    ("nvidia-base", BASE_RS, ("--extension", "far-too-long=nvidia-gpu"), "extension name 'far-too-long' does not fit"),
    ("nvidia-base", BASE_RS, ("--extension", "gpu"), "--extension 'gpu' is not NAME=IMAGE"),
    ("nvidia", "kata-clh", (), "runtime class 'kata-clh' is unknown; there are: kata-qemu-nvidia-gpu, "),
    ("nvidia-base", "kata-qemu", ("--gpus", "1"), "class kata-qemu passes no devices to the VM"),
    ("nvidia", "kata-qemu-nvidia-gpu", ("--gpus", "-1"), "-1 GPUs and 0 NVSwitches cannot be"),
    ("nvidia", "kata-qemu-nvidia-gpu", ("--prefix", "images"), "--prefix images is not a folder of a node"),
    ("nvidia", "kata-qemu-nvidia-gpu", ("--prefix", "/a", "--kernel", "b"), "kernel b is not a path of a node"),
    ("nvidia", "kata-qemu-nvidia-gpu", ("--memory", "16"), "'16' is not valid as amount of memory"),
    ("nvidia", "kata-qemu-nvidia-gpu", ("--pod-image", "a b"), "'a b' is not valid as container image"),
    ("nvidia", "kata-qemu-nvidia-gpu", ("--name", "kata-x"), "--name is the name of a custom runtime"),
    ("nvidia", "kata-qemu-nvidia-gpu", ("--deploy", "x", "-d", "y"), "--deploy writes drop-in and Pod itself"),
])
def test_a_value_that_is_none_is_a_wrong_call(image: str, kata: str, words: tuple[str, ...], said: str, out: Path,  # noqa: PLR0917
                                              capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refusal(out, image, "--runtime-class", kata, *words, capsys=capsys, status=2)


@pytest.mark.parametrize(("kata", "given", "line"), [
    ("kata-qemu-nvidia-gpu", "nvrc.log=debug", f"{NVIDIA} nvrc.log=debug"),
    ("kata-qemu-nvidia-gpu-snp", "nvrc.smi.srs=0", f"{NVIDIA} nvrc.smi.srs=0"),
    ("kata-qemu-nvidia-gpu", "pci=nommconf  agent.log=debug", f"{NVIDIA} pci=nommconf agent.log=debug"),
    ("kata-qemu", "nvrc.log=info", f"{PLAIN} nvrc.log=info"),
    ("kata-qemu", "", "agent.https_proxy=http://proxy"),
], ids=["added", "in-place-of-the-class's", "others'", "plain-class", "plain-class-bare"])
def test_parameters_stand_beside_those_of_the_class(kata: str, given: str, line: str,
                                                    merged: Merge) -> None:
    image = "nvidia-confidential" if "snp" in kata else "nvidia"
    config = merged(image, kata, "--kernel-params", given, "--proxy")
    assert config.qemu["kernel_params"] == line


def test_without_parameters_the_class_keeps_its_own_line(merged: Merge) -> None:
    """And what kata-deploy has added to it, like a proxy."""
    config = merged("nvidia", "kata-qemu-nvidia-gpu", "--proxy")
    assert config.qemu["kernel_params"] == "agent.https_proxy=http://proxy"


@pytest.mark.parametrize(("own", "given", "line"), [
    ("cgroup_no_v1=all site=1", "nvrc.log=debug", "cgroup_no_v1=all site=1 nvrc.log=debug"),
    ("cgroup_no_v1=all site=1", "", NVIDIA),
    ("", "", "cgroup_no_v1=all"),
], ids=["added", "left-alone", "bare"])
def test_the_line_that_a_node_has_counts_for_more_than_kata_s(own: str, given: str, line: str, tmp_path: Path,
                                                              merged: Merge) -> None:
    """With the class's configuration at hand. "left-alone": the merge here has Kata's own line below, not the node's."""
    known = tmp_path / "c.toml"
    known.write_text(f'[hypervisor.qemu]\nkernel_params = "{own}"\n')
    config = merged("nvidia", "kata-qemu-nvidia-gpu", "--class-config", str(known), "--kernel-params", given)
    assert config.qemu["kernel_params"] == line


@pytest.mark.parametrize(("given", "said"), [
    ("nvrc.smi.lcg=1000", "nvrc.smi.lcg: unknown, did you mean nvrc.smi.lgc?"),
    ("nvcr.log=debug", "nvcr.log: unknown, did you mean nvrc.log?"),
    ("nvrc.log=loud", "nvrc.log: "),
    ("nvrc.smi.lgc=fast", "nvrc.smi.lgc: 'fast' is not a whole number of MHz"),
    ("nvrc.log=info nvrc.log=debug", "nvrc.log: given more than once with different values"),
    ('a="b c"', "kernel parameters with a quote"),
    ("a\\b", "kernel parameters with a quote, a backslash"),
    ("a=\n", "kernel parameters with a quote, a backslash or a character that cannot be printed"),
    ("kata.extension.gpu.verity_params=x", "kata.extension.gpu.verity_params is written by the runtime"),
    ("agent.cdi_timeout=soon", "agent.cdi_timeout=soon is not a number of seconds"),
    ("x=" + "y" * 2100, "command line: has "),
], ids=["near-miss", "near-prefix", "level", "number", "twice", "quote", "backslash", "line-break", "extension",
        "cdi-timeout", "too-long"])
def test_mistakes_in_parameters_do_not_reach_a_node(given: str, said: str, out: Path, tmp_path: Path,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refusal(out, "nvidia", "--kernel-params", given, "-d", str(tmp_path / "d"), capsys=capsys)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("kata", ["kata-qemu-nvidia-cpu", "kata-qemu-nvidia-cpu-runtime-rs"])
def test_a_disk_is_a_block_device_with_its_hashes(kata: str, merged: Merge,
                                                  out: Path) -> None:
    """Never NVDIMM: the image has no header for it. The host's own kernel stays the class's."""
    qemu = merged("kata-base", kata).qemu
    assert {key: qemu[key] for key in ("image", "initrd", "rootfs_type", "kernel_verity_params", "kernel")} == {
        "image": str(out / "images/kata-base/disk.img"), "initrd": "", "rootfs_type": "erofs",
        "kernel_verity_params": LINE, "kernel": "/opt/kata/vmlinuz"}
    assert qemu["disable_image_nvdimm"] is True
    assert qemu.get("vm_rootfs_driver") == ("virtio-blk-pci" if kata.endswith("-rs") else None)


def test_paths_of_the_nodes_need_not_exist_here(merged: Merge) -> None:
    config = merged("nvidia-base", BASE_RS, *GPU, "--prefix", "/srv/guests")
    assert (config.qemu["kernel"], config.qemu["initrd"]) == ("/srv/guests/nvidia-base/vmlinuz", "/srv/guests/nvidia-base/initrd")
    assert [row["path"] for row in config.extensions] == ["/srv/guests/nvidia-gpu/disk.img"]


def test_files_that_are_gone_are_named(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("nvidia-base/initrd", "nvidia-gpu/disk.img"):
        (out / "images" / name).unlink()
    said = refusal(out, "nvidia-base", "--runtime-class", BASE_RS, *GPU, capsys=capsys)
    assert f"the drop-in's initrd {out / 'images/nvidia-base/initrd'} does not exist" in said
    assert f"extension gpu: {out / 'images/nvidia-gpu/disk.img'} does not exist" in said


def test_root_ports_for_a_whole_board(merged: Merge) -> None:
    """The Rust runtime makes as many as it is told; the Go runtime counts the devices."""
    words = ("--gpus", "8", "--nvswitch", "4")
    assert merged("nvidia", BASE_RS, *words).qemu["pcie_root_port"] == 12
    qemu = merged("nvidia", "kata-qemu-nvidia-gpu", *words).qemu
    assert "pcie_root_port" not in qemu


@pytest.mark.parametrize("text", ["", "[hypervisor]\n", "a: b\n", "[hypervisor.qemu]\nguest_extension_images = 3\n",
                                  "[hypervisor.qemu]\n[[hypervisor.qemu.guest_extension_images]]\nname = 'coco'\n",
                                  f"[hypervisor.qemu]\n#{'x' * (1 << 20)}\n"],
                         ids=["nothing", "no class", "no TOML", "no extensions", "an extension without parameters", "too large"])
def test_what_is_no_configuration_of_a_class(tmp_path: Path, out: Path, text: str,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.toml").write_text(text)
    assert "c.toml is not a configuration of a class" in refusal(
        out, "nvidia", "--class-config", str(tmp_path / "c.toml"), capsys=capsys)


def test_an_extension_of_the_class_that_is_not_measured_is_not_kept(tmp_path: Path, out: Path, merged: Merge,
                                                                    capsys: pytest.CaptureFixture[str]) -> None:
    known = write_class(tmp_path / "c.toml", BASE_RS)
    assert [row.name for row in read_class(known).extensions] == ["gpu"]
    known.write_text(known.read_text().replace(kata_merge.LINE, ""))
    words = ("--runtime-class", BASE_RS, "--class-config", str(known))
    assert "extension gpu of the class has no verity parameters, and the guest would refuse it" in refusal(
        out, "nvidia-base", *words, capsys=capsys)
    assert [row["path"].split("/")[-2] for row in merged("nvidia-base", BASE_RS, *GPU, *words[2:]).extensions] == [
        "nvidia-gpu"]


def test_notes_say_what_is_left_away(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kata-config", "nvidia", "--out", str(out), "--runtime-class", SNP_RS, "--drop", "coco", "--debug",
                 "--json"]) == 0
    shown = capsys.readouterr()
    assert shown.err.splitlines()[-2:] == [
        "nvrc-image: extension gpu of the class is left out: image nvidia has the driver itself",
        "nvrc-image: extension coco of the class is dropped, as --drop says"]
    assert "launch measurement" in shown.err
    assert sorted(json.loads(shown.out)["files"]) == ["50-nvrc.toml", "pod.yaml"]


def test_the_merge_rule_of_the_tests_finds_what_kata_would_refuse(tmp_path: Path) -> None:
    """A key of the other runtime breaks a Go class; that is what makes the tests above say something."""
    for name, text in (("60-x.toml", "[agent.kata]\nreconnect_timeout_ms = 1\n"), ("x.yaml", "a: b\n")):
        (tmp_path / name).write_text(text)
        with pytest.raises(KataError):
            kata_merge.load("kata-qemu", tmp_path)
        (tmp_path / name).unlink()
    (tmp_path / "60-x.toml").write_text("[hypervisor.qemu]\nkernel_params = 'a'\n[runtime]\nname = 'b'\n")
    both = [kata_merge.load(kata, tmp_path) for kata in ("kata-qemu", "kata-qemu-runtime-rs")]
    assert [one.qemu["kernel_params"] for one in both] == ["a", "a"]
    assert [one.runtime["name"] for one in both] == ["b", "b"]
    assert tomllib.loads((tmp_path / "60-x.toml").read_text())
