# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E402  (a script: it sets its own import path)
"""What the form of an image costs each start of a VM: one tree as initrds, as root disks, and as a base with an extension.

    python tests/bench/bench_formats.py [IMAGE] [--base IMAGE --extension IMAGE] [--gpu]

Images are folders of out/images, built with a real agent. A machine without GPUs is started once in each form, counted
(QEMU's -icount: a nanosecond is an instruction, whatever else the host does), and ended at READY; --gpu gives it a virtual
H100 and ends it when NVIDIA's driver is loaded, as that never attaches. A row has the size, the moments of the first program
and of the end on the kernel's clock, the memory that QEMU then has of its own, and what was read of disks.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP), str(TOP / "build"), str(TOP / "qemu-tests")]
sys.path.append(str(TOP / "tests"))

from fakes.measured_root import make_first_stage
from nvrc_build.after.contents import read_tree
from nvrc_build.declared.declared import Compression, FileSystem
from nvrc_build.job import EPOCH, open_supply
from nvrc_build.output import disk, pack
from nvrc_build.supply import supply
from nvrc_build.tree.tree import Origin, Tree
from nvrc_lab.ground.places import checkout
from nvrc_lab.kit import standins
from nvrc_lab.kit.archives import join_archives
from nvrc_lab.kit.kit import find_kit
from nvrc_lab.qemu.machine import Accel, Disk, Machine, make_argv
from nvrc_lab.qemu.qemu import find_qemu
from nvrc_lab.run.compose import REGISTERS_AT, REGISTERS_MIB
from nvrc_lab.run.probing import write_initrd

LINE = ("quiet loglevel=4 printk.time=1 panic=1 reboot=k mitigations=off cgroup_no_v1=all rdinit=/lab/init "
        "nvrc.timeout.farewell=9 nvrc.timeout.host_end=0")
MODULES, GPU = "/lab/modules", "0000:40:00.0/10de:2330/030200/minor=0"
FIRST, END = re.compile(r"labinit: clock start=(\d+)"), re.compile(r"\[ *(\d+\.\d+)\] nvrc: (?:READY|step device-nodes ok) ")
MEMORY_MIB = 2048
SIGNATURE = b"~Module signature appended~\n"


@dataclass(frozen=True)
class Form:
    """`size`: of all files that a host keeps for it."""

    name: str
    machine: Machine
    size: int


def pack_forms(image: Path, work: Path, *, has_gpu: bool) -> Iterator[Form]:
    tools = supply.root(open_supply(cache=checkout().cache), "tools")
    kit = find_kit(checkout(), ("base", "pci"))
    (work / "tree").mkdir()
    tree = read_tree(image / "initrd", work / "tree", "bench", tools=tools)
    for kind in Compression:
        packed = work / f"{kind.value}.initrd"
        pack.write_initrd(tree, packed, kind, tools=tools, epoch=EPOCH)
        join_archives([packed, kit["base"], kit["pci"]], lay_lab((), has_gpu=has_gpu), work / "initrd")
        yield Form(f"initrd, {kind.value}", machine_of(image, work / "initrd", has_gpu=has_gpu), packed.stat().st_size)
    stage = make_first_stage(work, checkout().cache)
    for path in stage.programs.values():
        if path.is_relative_to(work):
            path.write_bytes(unsigned(path.read_bytes()))
    programs, modules = dict(stage.programs), stage.texts[MODULES]
    if has_gpu:
        programs["/lab/lab_pci.ko"] = standins.build_modules(standins.open_workshop(checkout())).files["lab_pci"]
        modules += virtual_gpu()
    guest = replace(stage, programs=programs, texts={**stage.texts, MODULES: modules, "/lab/clock": ""})
    write_initrd(guest, work / "initrd")
    for system in FileSystem:
        pack.write_filesystem(system, tree, work / "data", tools=tools, epoch=EPOCH)
        words = disk.write_disk(work / "data", work / "disk").root_parameters(fstype=system.value)
        machine = machine_of(image, work / "initrd", words, Disk(path=work / "disk", serial="image"), has_gpu=has_gpu)
        yield Form(f"disk, {system.value}", machine, (work / "disk").stat().st_size)


def with_extension(base: Path, extension: Path, work: Path, *, has_gpu: bool) -> Form:
    kit = find_kit(checkout(), ("base", "pci", "disks"))
    join_archives([base / "initrd", *kit.values()], lay_lab(("/lab/virtio_blk.ko",), has_gpu=has_gpu), work / "initrd")
    words = f"kata.extension.gpu.verity_params={(extension / 'verity.txt').read_text(encoding='ascii').strip()}"
    machine = machine_of(base, work / "initrd", words, Disk(path=extension / "disk.img", serial="extension-gpu"), has_gpu=has_gpu)
    size = (base / "initrd").stat().st_size + (extension / "disk.img").stat().st_size
    return Form("base and extension", machine, size)


def unsigned(module: bytes) -> bytes:
    """A kernel for such disks has them built in; checking what they are signed with is no cost of the disk."""
    if not module.endswith(SIGNATURE):
        return module
    end = len(module) - len(SIGNATURE)
    return module[:end - 12 - int.from_bytes(module[end - 4:end], "big")]


def virtual_gpu() -> str:
    return f"/lab/lab_pci.ko mmio={REGISTERS_AT:#x} fn={GPU}\n"


def lay_lab(modules: tuple[str, ...], *, has_gpu: bool) -> Tree:
    tree, origin = Tree(), Origin(slice="bench")
    rows = "".join(f"{row}\n" for row in modules) + (virtual_gpu() if has_gpu else "")
    for path, text in {MODULES: rows, "/lab/target": "/init\n", "/lab/clock": ""}.items():
        tree.add_file(path, text.encode(), origin)
    return tree


def machine_of(image: Path, initrd: Path, words: str = "", *disks: Disk, has_gpu: bool) -> Machine:
    registers = f"memmap={REGISTERS_MIB}M${REGISTERS_AT:#x}" if has_gpu else ""
    return Machine(kernel=image / "vmlinuz", initrd=initrd, disks=disks, memory_mib=MEMORY_MIB,
                   cmdline=" ".join((LINE, registers, words)))


def start(form: Form) -> Mapping[str, float]:
    """Megabytes, and seconds of the counted clock."""
    with tempfile.TemporaryDirectory() as folder:
        asked = Path(folder) / "qmp"
        argv = make_argv(replace(form.machine, qmp_socket=asked), find_qemu().program, Accel.COUNTED)
        row = {"MB": form.size / 1e6}
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace") as child:
            assert child.stdout is not None
            try:
                for line in child.stdout:
                    if found := FIRST.search(line):
                        row["init s"] = int(found[1]) / 1e6
                    if found := END.search(line):
                        resident = re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{child.pid}/status").read_text(encoding="ascii"))
                        return {**row, "end s": float(found[1]), "QEMU MB": int(resident[1]) / 1e3 if resident else 0.0,
                                "read MB": ask_reads(asked) / 1e6}
            finally:
                child.kill()
    sys.exit(f"bench_formats: {form.name} came to no end")


def ask_reads(path: Path) -> int:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        with client.makefile("rw", encoding="utf-8") as stream:
            stream.readline()
            for command in ("qmp_capabilities", "query-blockstats"):
                stream.write(json.dumps({"execute": command}) + "\n")
                stream.flush()
                while "return" not in (answer := json.loads(stream.readline())):
                    pass
    return sum(row["stats"]["rd_bytes"] for row in answer["return"])


def main() -> None:
    parser = argparse.ArgumentParser(description="what the form of an image costs each start")
    parser.add_argument("image", nargs="?", default="nvidia")
    parser.add_argument("--base", default="nvidia-base")
    parser.add_argument("--extension", default="nvidia-gpu")
    parser.add_argument("--gpu", action="store_true", help="with NVIDIA's driver loaded for a virtual H100")
    args = parser.parse_args()
    images = TOP / "out/images"
    missing = [name for name in (args.image, args.base, args.extension) if not (images / name).is_dir()]
    if missing:
        sys.exit(f"bench_formats: build first: {', '.join(missing)}")
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        for form in pack_forms(images / args.image, Path(folder), has_gpu=args.gpu):
            tell(form)
        (Path(folder) / "initrd").unlink()
        tell(with_extension(images / args.base, images / args.extension, Path(folder), has_gpu=args.gpu))


def tell(form: Form) -> None:
    figures = "  ".join(f"{name} {value:.2f}" for name, value in start(form).items())
    sys.stdout.write(f"{form.name:<22} {figures}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
