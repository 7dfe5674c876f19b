# SPDX-License-Identifier: Apache-2.0
"""kata-config under the policy of an image: the whole line of each class, the runtime's own words and extensions included."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fakes.kata_images import LINE, make_image
from nvrc.vocabulary.paths import POLICY
from nvrc_build.cli import main
from nvrc_build.ground.errors import BuildError
from nvrc_build.kata.classes import CLASSES, KataClass, Tee
from nvrc_build.kata.extensions import Extension
from nvrc_build.kata.line import check_line, whole_line
from nvrc_build.papers.inventory import Inventory, read_inventory

SHIPPED = (Path(__file__).parents[3] / "rootfs/files/policy-confidential.toml").read_text(encoding="utf-8")
CONFIDENTIAL = [row for row in CLASSES.values() if row.tee is not Tee.NONE and row.has_gpus]


def image(folder: Path, name: str = "nvidia-confidential", policy: str = SHIPPED) -> Inventory:
    return read_inventory(make_image(folder / "images", name, policy) / "manifest.json")


@pytest.mark.parametrize("kata", CONFIDENTIAL, ids=lambda row: row.name)
def test_the_confidential_image_boots_with_the_line_of_every_class_it_is_for(tmp_path: Path, kata: KataClass) -> None:
    image(tmp_path)
    assert main(["kata-config", "nvidia-confidential", "--out", str(tmp_path), "--runtime-class", kata.name]) == 0


@pytest.mark.parametrize(("policy", "words", "says"), [
    pytest.param(SHIPPED, ["--kernel-params", "nvrc.ready=always"], ["nvrc.ready: is always"], id="a parameter"),
    pytest.param(SHIPPED, ["--kernel-params", "lockdown=none"], ["lockdown: is never a pod author's"], id="never"),
    pytest.param(SHIPPED, ["--debug"], ["debug: is not among the words", "agent.log: is 'debug'"], id="what --debug has the runtime write"),
    pytest.param("words = []", [], ["reboot: is not among the words", "console: is not", "panic: is not"], id="the runtime's own words"),
    pytest.param('allow = ["nvrc.log"]', [], ["nvrc.smi.srs: is not on the list"], id="the class's own parameter"),
    pytest.param(SHIPPED, ["--class-config", "class.toml"], ["memtest: is not among the words"], id="the class as a node has it"),
    pytest.param('allow = ["nvrc.*"]', ["--class-config", "class.toml"], ["kata.extension.mine.verity_params: is not on"], id="its extension"),
])
def test_what_the_guest_would_refuse_is_refused_here(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], policy: str, words: list[str], says: list[str]) -> None:
    image(tmp_path, policy=policy)
    (tmp_path / "class.toml").write_text(
        f'[hypervisor.qemu]\nkernel_params = "cgroup_no_v1=all memtest=1"\n[[hypervisor.qemu.guest_extension_images]]\n'
        f'name = "mine"\npath = "/x"\nverity_params = "{LINE}"\n')
    words = [str(tmp_path / word) if word.endswith(".toml") else word for word in words]
    assert main(["kata-config", "nvidia-confidential", "--out", str(tmp_path), "--runtime-class",
                 "kata-qemu-nvidia-gpu-snp-runtime-rs", *words]) == 1
    shown = capsys.readouterr().err
    assert "image nvidia-confidential would not boot with the line of this class: its policy refuses it" in shown
    assert [text for text in says if text not in shown] == [], shown


@pytest.mark.parametrize("kata", CLASSES.values(), ids=lambda row: row.name)
def test_a_measured_root_and_extensions_are_in_the_line(tmp_path: Path, kata: KataClass) -> None:
    """Judged by the smallest policy that there is: what the runtimes write, and extensions."""
    disk = image(tmp_path, "kata-base", 'allow = ["nvrc.*", "kata.extension.*"]')
    extension = Extension(name="gpu", path="/x", parameters=LINE)
    line = whole_line(disk, kata, kata.kernel_params, (extension,), verity=LINE)
    check_line(disk, line)
    assert "root=/dev/dm-0" in line and f'kata.extension.gpu.verity_params={LINE}' in line
    with pytest.raises(BuildError, match="its policy refuses it"):
        check_line(disk, f"{line} agent.debug_console")


def test_a_text_that_is_not_the_images_policy_is_refused(tmp_path: Path) -> None:
    manifest = make_image(tmp_path, "nvidia-confidential", SHIPPED) / "manifest.json"
    document = json.loads(manifest.read_text())
    document["policy"]["text"] += "\nwords = []\n"
    manifest.write_text(json.dumps(document))
    with pytest.raises(BuildError, match="has the text of another policy"):
        read_inventory(manifest)


def test_a_policy_whose_text_is_elsewhere_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An overlay brought it."""
    manifest = make_image(tmp_path / "images", "nvidia-confidential") / "manifest.json"
    document = json.loads(manifest.read_text())
    document["files"].append({"path": POLICY, "kind": "file", "mode": "0644", "slice": "overlay", "sha256": "ab"})
    document["policy"] = {"sha256": "ab", "slice": "overlay"}
    manifest.write_text(json.dumps(document))
    assert main(["kata-config", "nvidia-confidential", "--out", str(tmp_path), "--runtime-class",
                 "kata-qemu-nvidia-gpu-snp-runtime-rs"]) == 0
    assert "is not in its manifest, so the line was not judged by it" in capsys.readouterr().err
