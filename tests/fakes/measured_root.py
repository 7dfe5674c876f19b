# SPDX-License-Identifier: Apache-2.0
"""A machine whose root is an image's disk, on a kernel that has device-mapper as a module.

Kata's kernel acts on the runtime's line by itself (CONFIG_DM_INIT); here a first program does the same from the same line
(standins/rootstage.c) and is gone when the init starts. Nothing of the initramfs is in the root.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nvrc_build import pipeline
from nvrc_build.output.verity import parse_parameters
from nvrc_build.products import kernel as kernels
from nvrc_build.products.products import kernel_root
from nvrc_lab.ground.places import checkout
from nvrc_lab.kit import standins
from nvrc_lab.kit.unpacked_boot import unpack_kernel
from nvrc_lab.qemu.machine import Accel, Disk, Machine, make_argv
from nvrc_lab.qemu.qemu import find_qemu
from nvrc_lab.run.probing import Guest, write_initrd
from nvrc_lab.watch.console import Story
from nvrc_lab.watch.watch import Limits, watch

# What a guest kernel for measured roots has built in.
MODULES = ("virtio_blk", "dm-verity", "erofs", "ext4")
LIST = "/lab/modules"


@dataclass(frozen=True)
class Went:
    story: Story
    lines: tuple[str, ...]

    def has(self, text: str) -> bool:
        return any(text in line for line in self.lines)


def make_first_stage(folder: Path, cache: Path) -> Guest:
    """The kernel of the lab, and what loads its modules and makes the root."""
    shop = standins.open_workshop(checkout())
    root = kernel_root(pipeline.make_inputs(pipeline.open_job("lab", cache=cache)))
    chosen = {module.path: module for module in kernels.select_modules(root, MODULES)}
    programs = {"/lab/init": standins.build_program(shop, "labinit"),
                "/lab/rootstage": standins.build_program(shop, "rootstage")}
    order: list[str] = []
    for row in kernels.modules_dep(tuple(chosen.values())).decode().splitlines():
        path, _, needs = row.partition(":")
        order += [each for each in (*reversed(needs.split()), path) if each not in order]
    for path in order:
        (folder / Path(path).name).write_bytes(chosen[path].data)
        programs[f"/lab/{Path(path).name}"] = folder / Path(path).name
    texts = {"/lab/target": "/lab/rootstage\n", LIST: "".join(f"/lab/{Path(path).name}\n" for path in order)}
    return Guest(kernel=unpack_kernel(kernels.image_path(root), checkout()), programs=programs, texts=texts)


def with_functions(stage: Guest, functions: str) -> Guest:
    """The same with virtual PCI functions, which are there before the root is."""
    module = standins.build_modules(standins.open_workshop(checkout())).files["lab_pci"]
    return replace(stage, programs={**stage.programs, "/lab/lab_pci.ko": module},
                   texts={**stage.texts, LIST: f"{stage.texts[LIST]}/lab/lab_pci.ko fn={functions}\n"})


def boot(stage: Guest, folder: Path, words: str, disks: Sequence[Disk], *, memory_mib: int = Machine().memory_mib) -> Went:
    write_initrd(stage, folder / "initrd")
    machine = Machine(kernel=stage.kernel, initrd=folder / "initrd", disks=tuple(disks), memory_mib=memory_mib, cmdline=(
        f"console=ttyS0 quiet loglevel=4 panic=1 reboot=k cgroup_no_v1=all rdinit=/lab/init {words}"))
    lines: list[str] = []
    went = watch(make_argv(machine, find_qemu().program, Accel.TCG), folder / "console", Limits(total_s=120),
                 lambda _story, new, _seconds: lines.extend(new))
    return Went(story=went.story, lines=(*lines, went.complaint))


def root_words(image: pipeline.Image, parameters: str = "", fstype: str = "erofs") -> str:
    return parse_parameters(parameters or image.verity.read_text(encoding="ascii")).root_parameters(fstype=fstype)
