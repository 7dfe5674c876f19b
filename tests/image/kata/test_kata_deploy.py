# SPDX-License-Identifier: Apache-2.0
"""The folder deploy/: every document read as its reader reads it; and the examples of the commands, run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml

from fakes import kata_merge, tdx
from fakes.firmware import make_firmware
from fakes.kata_images import IMAGES, make_image
from fakes.kata_merge import CLASSES
from nvrc.report.plan import PlannedStep
from nvrc_build import cli
from nvrc_build.after import trust
from nvrc_build.cli import main
from nvrc_build.ground.errors import BuildError
from nvrc_build.kata import command as kata_command
from nvrc_build.kata.deploy import write_folder
from nvrc_build.kata.timeouts import (
    CDI_TIMEOUT_S,
    PULL_S,
    SLOWEST_GPU_S,
    START_S,
    START_TEE_S,
    Machine,
    bound_s,
    find_timeouts,
    longest_chain,
)

FILES = ["README.md", "SHA256SUMS", "config.d", "config.d/50-nvrc.toml", "pod.yaml", "runtimeclass.yaml", "values.yaml"]
# Overhead and labels of the RuntimeClasses that kata-deploy's chart makes.
OVERHEAD = {"kata-qemu-nvidia-gpu-snp": ("10240Mi", "1.0"), "kata-qemu-nvidia-cpu": ("320Mi", "250m"),
            "kata-qemu-tdx-runtime-rs": ("2048Mi", "1.0")}
SELECTORS = {
    "kata-qemu-nvidia-gpu-snp": {"nvidia.com/cc.ready.state": "true", "amd.feature.node.kubernetes.io/snp": "true"},
    "kata-qemu-nvidia-gpu-runtime-rs": {"nvidia.com/cc.ready.state": "false"},
    "kata-qemu-nvidia-cpu": {}, "kata-qemu-tdx-runtime-rs": {"intel.feature.node.kubernetes.io/tdx": "true"}}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    for name in IMAGES:
        make_image(tmp_path / "out/images", name)
    return tmp_path / "out"


def deploy(out: Path, kata: str, *words: str, image: str = "") -> Path:
    is_tee = "-snp" in kata or "-tdx" in kata
    name = image or ("nvidia-confidential" if is_tee else "nvidia")
    folder = out.parent / "deploy"
    assert main(["kata-config", name, "--out", str(out), "--runtime-class", kata, "--deploy", str(folder), *words]) == 0
    return folder


def runtimes_of_chart(values: Path) -> dict[str, tuple[str, str]]:
    """As the chart reads values (_helpers.tpl customConfigsConfigMap): handler to base and drop-in."""
    document = yaml.safe_load(values.read_text())["customRuntimes"]
    assert document["enabled"] is True
    found = {}
    for row in document["runtimes"].values():
        handlers = [line.strip().removeprefix("handler:").strip() for line in row["runtimeClass"].split("\n")
                    if line.strip().startswith("handler:")]
        found[handlers[-1]] = (row["baseConfig"], row["dropIn"])
    return found


@pytest.mark.parametrize("kata", CLASSES)
def test_a_custom_runtime_is_the_class_with_our_drop_in(out: Path, kata: str, tmp_path: Path) -> None:
    folder = deploy(out, kata)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) == FILES
    [(handler, (base, drop_in))] = runtimes_of_chart(folder / "values.yaml").items()
    assert base == kata.removeprefix("kata-")
    assert handler == f"kata-nvrc-{base.removeprefix('qemu-')}"
    assert drop_in == (folder / "config.d/50-nvrc.toml").read_text()
    runtime_class = yaml.safe_load((folder / "runtimeclass.yaml").read_text())
    assert runtime_class == yaml.safe_load(next(iter(yaml.safe_load(
        (folder / "values.yaml").read_text())["customRuntimes"]["runtimes"].values()))["runtimeClass"])
    assert (runtime_class["metadata"]["name"], runtime_class["handler"]) == (handler, handler)
    pod = yaml.safe_load((folder / "pod.yaml").read_text())
    assert pod["spec"]["runtimeClassName"] == handler
    # kata-deploy copies the class and puts the drop-in beside it under this name.
    config_d = tmp_path / "custom-runtimes/config.d"
    config_d.mkdir(parents=True)
    (config_d / "50-overrides.toml").write_text(drop_in)
    assert kata_merge.load(kata, config_d).qemu["image"] == ""
    assert str(kata_merge.load(kata, folder / "config.d").qemu["initrd"]).startswith("/opt/nvrc/images/nvidia")


@pytest.mark.parametrize("kata", OVERHEAD)
def test_overhead_of_the_runtime_class(out: Path, kata: str) -> None:
    found = yaml.safe_load((deploy(out, kata) / "runtimeclass.yaml").read_text())
    assert found["overhead"]["podFixed"] == dict(zip(("memory", "cpu"), OVERHEAD[kata], strict=True))


@pytest.mark.parametrize("kata", SELECTORS)
def test_node_selectors_are_texts(out: Path, kata: str) -> None:
    found = yaml.safe_load((deploy(out, kata) / "runtimeclass.yaml").read_text())
    assert found["scheduling"]["nodeSelector"] == {"katacontainers.io/kata-runtime": "true", **SELECTORS[kata]}


@pytest.mark.parametrize(("kata", "snapshotter", "pull"), [
    ("kata-qemu-nvidia-gpu", None, None), ("kata-qemu-nvidia-gpu-runtime-rs", "erofs", None),
    ("kata-qemu-nvidia-gpu-tdx-runtime-rs", "nydus", "guest-pull"),
])
def test_where_container_images_come_from(out: Path, kata: str, snapshotter: str | None, pull: str | None) -> None:
    values = yaml.safe_load((deploy(out, kata) / "values.yaml").read_text())
    [row] = values["customRuntimes"]["runtimes"].values()
    assert (row.get("containerd", {}).get("snapshotter"), row.get("crio", {}).get("pullType")) == (snapshotter, pull)


@pytest.mark.parametrize(("kata", "words", "limits", "image"), [
    ("kata-qemu-nvidia-gpu", (), {"memory": "16Gi", "nvidia.com/pgpu": "1"}, "nvcr.io/nvidia/k8s/cuda-sample:"),
    ("kata-qemu-nvidia-gpu", ("--gpus", "8", "--nvswitch", "4", "--memory", "512Gi"),
     {"memory": "512Gi", "nvidia.com/pgpu": "8", "nvidia.com/nvswitch": "4"}, "nvcr.io/"),
    ("kata-qemu-nvidia-cpu", (), {"memory": "256Mi"}, "docker.io/library/busybox:"),
    ("kata-qemu-nvidia-gpu", ("--pod-image", "registry.example/team/app:1@sha256:00"),
     {"memory": "16Gi", "nvidia.com/pgpu": "1"}, "registry.example/team/app:1@sha256:00"),
], ids=["one", "board", "cpu", "own-image"])
def test_a_pod_asks_for_what_the_machine_gets(out: Path, kata: str, words: tuple[str, ...], limits: dict[str, str],
                                              image: str) -> None:
    [container] = yaml.safe_load((deploy(out, kata, *words) / "pod.yaml").read_text())["spec"]["containers"]
    assert container["resources"] == {"limits": limits}
    assert container["image"].startswith(image)


def test_checksums_are_those_of_the_files_on_the_nodes(out: Path) -> None:
    words = ("--extension", "gpu=nvidia-gpu", "--prefix", "/srv/g")
    folder = deploy(out, "kata-qemu-nvidia-gpu-runtime-rs", *words, image="nvidia-base")
    lines = [line.split("  ") for line in (folder / "SHA256SUMS").read_text().splitlines()]
    rows = {path: digest for digest, path in lines}
    assert rows == {f"/srv/g/{name}": hashlib.sha256((out / "images" / name).read_bytes()).hexdigest()
                    for name in ("nvidia-base/vmlinuz", "nvidia-base/initrd", "nvidia-gpu/disk.img")}
    qemu = tomllib.loads((folder / "config.d/50-nvrc.toml").read_text())["hypervisor"]["qemu"]
    assert {qemu["kernel"], qemu["initrd"], qemu["guest_extension_images"][0]["path"]} == set(rows)


@pytest.mark.parametrize("kata", ["kata-qemu-nvidia-gpu", "kata-qemu-nvidia-gpu-snp-runtime-rs", "kata-qemu-nvidia-gpu-tdx"])
def test_the_readme_has_five_steps_and_the_way_back(out: Path, kata: str) -> None:
    text = (deploy(out, kata, "--debug") / "README.md").read_text()
    assert [line[:5] for line in text.splitlines() if line.startswith("## ")] == [
        "## 1.", "## 2.", "## 3.", "## 4.", "## 5.", "## Th"]
    assert "{" not in text.replace("'{.status.phase}'", "")
    timeout = re.search(r"runtimeRequestTimeout: (\d+)s", text)
    assert timeout is not None
    found = find_timeouts(Machine(gpus=1), "", is_tee=kata != "kata-qemu-nvidia-gpu",
                          pull_s=PULL_S if kata != "kata-qemu-nvidia-gpu" else 0)
    assert int(timeout[1]) == max(found.dial_s, found.create_container_s)
    assert ("nvrc-image measure" in text) == ("snp" in kata)
    name = f"kata-nvrc-{kata.removeprefix('kata-qemu-')}"
    assert f"--set customRuntimes.runtimes.{name.removeprefix('kata-')}=null" in text
    assert f"custom-runtimes/{name}/config.d/50-overrides.toml" in text


@pytest.mark.parametrize(("field", "value"), [
    *(("image", name) for name in ("/", "../../../etc", "a; b", "-rf", "a b", ".x", "", ["a"])), ("filesystem", "zfs"), ("filesystem", ["erofs"])])
def test_a_name_of_an_image_that_is_none_reaches_no_line_for_a_shell(
        out: Path, field: str, value: object, capsys: pytest.CaptureFixture[str]) -> None:
    """Of `/` the way back was `ssh NODE rm -r /`."""
    manifest = out / "images/nvidia/manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), field: value}))
    assert main(["kata-config", "nvidia", "--out", str(out), "--deploy", str(out / "deploy")]) == 1
    assert {"image": "is not a name of letters, digits and ._+-", "filesystem": "is not one of erofs, ext4"}[field] in capsys.readouterr().err
    assert not (out / "deploy").exists()


def test_the_folder_is_made_anew_and_another_is_left_alone(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = deploy(out, "kata-qemu-nvidia-gpu")
    deploy(out, "kata-qemu-nvidia-gpu", "--name", "kata-mine")
    assert "name: kata-mine\n" in (folder / "runtimeclass.yaml").read_text()
    (folder / "config.d/50-nvrc.toml.orig").write_text("")
    assert main(["kata-config", "nvidia", "--out", str(out), "--deploy", str(folder)]) == 2
    assert "has files that this command did not write" in capsys.readouterr().err
    assert "name: kata-mine\n" in (folder / "runtimeclass.yaml").read_text()
    assert [path.name for path in out.parent.iterdir() if path.name.startswith(".")] == []


def test_a_file_in_the_folders_place_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "deploy").write_text("")
    with pytest.raises(BuildError, match="is not a folder"):
        write_folder(tmp_path / "deploy", {"README.md": ""})


@pytest.mark.parametrize("name", ["Kata-X", "kata-" + "x" * 60, "mine", "kata_x", "kata-x\nhandler: y"])
def test_a_name_that_is_none_is_refused(out: Path, tmp_path: Path, name: str) -> None:
    assert main(["kata-config", "nvidia", "--out", str(out), "--deploy", str(tmp_path / "d"), "--name", name]) == 2
    assert not (tmp_path / "d").exists()


def planned(name: str, *needs: str) -> PlannedStep:
    return PlannedStep(name=name, runs=True, why="", needs=needs, deadline_s=None, on_failure="", codes=())


def test_the_longest_chain_is_that_of_time_and_of_what_the_agent_needs() -> None:
    steps = {step.name: step for step in (
        planned("a"), planned("b", "a"), planned("c", "a", "absent"), planned("d", "b"), planned("far", "a"),
        planned("agent", "c", "d"))}
    waits = {"a": 1.0, "b": 2.0, "c": 50.0, "d": 3.0, "far": 500.0, "agent": 4.0}
    assert longest_chain(steps, waits) == ("a", "c", "agent")


@pytest.mark.parametrize(("chain", "whole_s", "expected"), [
    ([10.0, 20.0, 30.0], 600, 60.0), ([300.0, 400.0, 200.0], 600, 900.0), ([300.0, 400.0, 200.0], 300, 700.0),
], ids=["all", "all-of-long-ones", "whole-and-the-longest"])
def test_the_bound_is_the_sum_or_the_whole_and_one_step(chain: list[float], whole_s: float, expected: float) -> None:
    assert bound_s(chain, whole_s) == expected


def test_timeouts_follow_the_guests_own() -> None:
    """In differences, so that a deadline of the boot table may change without this."""
    one = find_timeouts(Machine(gpus=1), "")
    assert find_timeouts(Machine(gpus=0), "").dial_s < one.dial_s < find_timeouts(Machine(gpus=8), "").dial_s < 1200
    assert find_timeouts(Machine(gpus=1), "", is_tee=True).dial_s == one.dial_s + START_TEE_S - START_S
    assert find_timeouts(Machine(gpus=1), "nvrc.timeout.boot=650").dial_s == one.dial_s + 50
    assert one.create_container_s == CDI_TIMEOUT_S + 120
    assert find_timeouts(Machine(gpus=1), "nvrc.timeout.command=60 agent.cdi_timeout=300",
                         pull_s=1000).create_container_s == 300 + 60 + 1000
    early = find_timeouts(Machine(gpus=8), "nvrc.agent.early=on cgroup_no_v1=all nvrc.timeout.boot=700")
    assert (early.create_container_s, early.dial_s < one.dial_s) == (one.create_container_s, True), "containers wait when created"
    longer = find_timeouts(Machine(gpus=1), "nvrc.timeout.persistenced=2000").dial_s
    assert longer == START_S + 600 + 2000 + 10 + SLOWEST_GPU_S


def test_eight_gpus_at_the_slowest_pace_seen_fit() -> None:
    assert find_timeouts(Machine(gpus=8), "").dial_s > 60 + 8 * 34.4


def examples(epilog: str) -> list[str]:
    lines = re.sub(r"\s*\\\n\s*", " ", epilog).splitlines()
    return [re.split(r" {3,}", line.strip())[0] for line in lines if line.startswith("  nvrc-image ")]


RUN = ("nvrc-image kata-config ", "nvrc-image measure ")


@pytest.mark.parametrize("line", [line for text in (cli.EPILOG, kata_command.EPILOG, trust.MEASURE_EPILOG)
                                  for line in examples(text) if line.startswith(RUN)])
def test_examples_run(line: str, out: Path, tmp_path: Path) -> None:
    (tmp_path / "OVMF.amdsev.fd").write_bytes(make_firmware())
    (tmp_path / "OVMF.inteltdx.fd").write_bytes(tdx.make_tdvf())
    if "--tee tdx" in line:
        (out / "images/nvidia-confidential/vmlinuz").write_bytes(tdx.make_kernel())
    rows = kata_merge.read(kata_merge.class_config("kata-qemu-nvidia-gpu-snp-runtime-rs")).extensions
    (tmp_path / "configuration-qemu-nvidia-gpu-snp-runtime-rs.toml").write_text("[hypervisor.qemu]\n" + "".join(
        f'[[hypervisor.qemu.guest_extension_images]]\nname = "{row["name"]}"\npath = "{row["path"]}"\n'
        f'verity_params = "{row["verity_params"]}"\n' for row in rows))
    words = [*shlex.split(line)[1:], "--out", str(out)]
    with contextlib.chdir(tmp_path):
        if "--compare" in words:
            assert main([*words[:words.index("--compare")], "--out", str(out), "-o", "values.json"]) == 0
        assert main(words) == 0
