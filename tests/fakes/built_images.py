# SPDX-License-Identifier: Apache-2.0
"""Images as clusters boot them, built for the lab: without a driver of NVIDIA's, and with stand-ins for what others make."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

from fakes.lab_image import packed_image
from nvrc_build import pipeline
from nvrc_build.after.contents import read_tree
from nvrc_build.cli import main as image_main
from nvrc_build.job import EPOCH, open_supply
from nvrc_build.supply import supply
from nvrc_build.tree.cpio import write_cpio
from nvrc_build.tree.tree import Kind, Tree
from nvrc_lab.ground.places import checkout
from nvrc_lab.kit import standins
from nvrc_lab.kit.image import BootFiles, build_image

CONFIDENTIAL = "lab-confidential"
# What is asked of the lab's image is asked of these as well, where somebody waits the minutes that they take to build.
IMAGES = ("lab", *(("nvidia-base", "nvidia-confidential", "kata-base") if os.environ.get("NVRC_BUILT_IMAGES") else ()))
# As Kata's build lays them out.
COMPONENTS = ("api-server-rest", "attestation-agent", "confidential-data-hub")
_TEXTS = {
    "etc/ocicrypt_config.json": {"key-providers": {"attestation-agent": {"ttrpc": "unix:///run/confidential-containers/cdh.sock"}}},
    "pause_bundle/config.json": {"ociVersion": "1.0.2", "process": {"args": ["/pause"], "cwd": "/"}, "root": {"path": "rootfs"}},
}


def declare_confidential(folder: Path) -> tuple[str, ...]:
    """`nvidia-confidential` without the driver, from its own declaration, whose line decides all: words of a build."""
    declared = tomllib.loads((checkout().root / "rootfs/images/nvidia-confidential.toml").read_text())
    slices = [name for name in declared["slices"] if not name.startswith("nvidia-") and name != "policy-confidential"]
    (folder / "images").mkdir()
    text = {**{key: value for key, value in declared.items() if key != "driver"}, "lock": "preferred", "slices": slices,
            "summary": "nvidia-confidential without a driver, for the lab."}
    (folder / f"images/{CONFIDENTIAL}.toml").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in text.items()))
    policy = folder.with_name(f"{folder.name}-policy.toml")  # beside, as nothing else may lie in there
    policy.write_text('words = ["*"]\n')
    assert image_main(["lock", CONFIDENTIAL, "--declarations", str(folder)]) == 0
    return ("--declarations", str(folder), "--policy", str(policy))


def make_components(folder: Path) -> Path:
    """Programs that do nothing where the guest components would be."""
    program = standins.build_program(standins.open_workshop(checkout()), "prober").read_bytes()
    for path in (*(f"usr/local/bin/{name}" for name in COMPONENTS), "pause_bundle/rootfs/pause"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(program)
        (folder / path).chmod(0o755)
    for path, value in _TEXTS.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(json.dumps(value))
    return folder


def unpack_disk(name: str, agent: Path, folder: Path) -> BootFiles:
    """What is on an image's disk as an initrd, with the lab's kernel and its modules: such an image brings neither."""
    image, lab = pipeline.build(name, out=folder / "out", cache=checkout().cache, agent=agent), pipeline.build()
    tools = supply.root(open_supply(cache=checkout().cache), "tools")
    (folder / "work").mkdir()
    trees = [read_tree(image.disk, folder / "work", name, tools=tools), Tree()]
    (folder / "lab").mkdir()
    for entry in read_tree(lab.initrd, folder / "lab", "lab", tools=tools):
        if entry.path.startswith("/usr/lib/modules/") and entry.kind is Kind.FILE:
            trees[1].add_file(entry.path, entry.content, entry.origin, entry.mode)
    with (folder / "initrd").open("wb") as out:
        out.writelines(chunk for tree in trees for chunk in write_cpio(tree, EPOCH))
    return BootFiles(kernel=lab.kernel, initrd=folder / "initrd")


def build(name: str, folder: Path) -> BootFiles:
    """By the factory, with the lab's agent."""
    if name == "lab":
        return packed_image()
    agent = standins.build_program(standins.open_workshop(checkout()), "agent")
    if name == "kata-base":
        return unpack_disk(name, agent, folder)
    if name != "nvidia-confidential":
        return build_image(name, agent=agent)
    (folder / "declarations").mkdir()
    options = declare_confidential(folder / "declarations")
    components = make_components(folder / "components")
    return build_image(CONFIDENTIAL, agent=agent, options=(*options, "--components", str(components), "--agent-policy", "allow-all"))
