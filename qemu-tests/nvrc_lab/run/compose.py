# SPDX-License-Identifier: Apache-2.0
"""A scenario and an image as a machine that QEMU can run: initrd, disks, kernel command line.

The kernel unpacks archives one behind the other, so the lab's files go behind the image, and what is about this
scenario goes last: nothing of the image is unpacked or changed here. Everything made lies in the folder that is given.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nvrc_build.output.disk import write_disk
from nvrc_build.output.verity import parse_parameters
from nvrc_build.tree.tree import Origin, Tree
from nvrc_lab.kit.archives import join_archives
from nvrc_lab.kit.image import BootFiles
from nvrc_lab.kit.kit import EXTENSION, VERITY
from nvrc_lab.kit.kit_texts import LIBRARIES
from nvrc_lab.kit.libraries import DRIVER_LIBRARIES, versioned
from nvrc_lab.kit.standins import DRIVER_VERSION
from nvrc_lab.qemu.cmdline import make_cmdline
from nvrc_lab.qemu.machine import Disk, Machine
from nvrc_lab.run import initdata
from nvrc_lab.scenario.faults import NVML, WAIT_MS, Effects, collect_effects
from nvrc_lab.scenario.hardware import Placed, describe_functions, describe_nscq, describe_nvml, place_gpus
from nvrc_lab.scenario.module_damage import OTHER_RELEASE
from nvrc_lab.scenario.node_numbers import probe_commands
from nvrc_lab.scenario.values import GPU_EXTENSION, REAL, Damage, Extension, Hardware, Network, Scenario, Tee

POLICY, NSCQ = "/etc/nvrc/policy.toml", "/etc/nscq-mock.conf"
NO_DEVICE = "none"
# The document is there before the agent runs, or it will never be.
CDI_PATIENCE = "agent.cdi_timeout=5"
# An emulated machine's clock runs ahead of a busy host's, where the runtime is.
FAREWELL_PATIENCE = "nvrc.timeout.farewell=60"
# Nobody but the machine itself ends it here.
NO_HOST = "nvrc.timeout.host_end=0"
# Memory that the kernel leaves alone: the identity registers of the GPUs, for NVIDIA's own driver.
REGISTERS_AT, REGISTERS_MIB = 0x3000_0000, 16
# Who asks its address has to know it before the machine runs.
MAC, HOST, GUEST = "52:54:00:6e:76:01", "10.0.2.2", "10.0.2.15"
NETWORKS: Mapping[Network, tuple[str, ...]] = {Network.NONE: (), Network.USER: (
    "-netdev", "user,id=pod,ipv6=off", "-device", f"virtio-net-pci,netdev=pod,mac={MAC},romfile=")}
_ORIGIN = Origin(slice="scenario")
# Offsets on the disk of an extension: its data partition, and the file system's superblock in that.
DATA_AT, SUPERBLOCK, BLOCK = 1 << 20, 1024, 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """Another init to run in the product's place: a program at /init of the same image, and programs that it starts."""

    program: Path
    files: Mapping[str, Path] = field(default_factory=dict)


def has_hardware(scenario: Scenario) -> bool:
    machine = scenario.machine
    return bool(machine.gpus or machine.nvswitches or machine.management_nics or machine.nics or machine.displays)


def needed_parts(scenario: Scenario, foreign: Foreign | None = None) -> tuple[str, ...]:
    """The parts of the kit, in the order in which they are laid over the image."""
    machine = scenario.machine
    if scenario.driver == REAL:
        return ("base", *(["pci"] if has_hardware(scenario) else []))
    parts = ["base"]
    if has_hardware(scenario) or machine.extensions:
        parts.append("hardware")
    elif machine.initdata or machine.scratch_mib:
        parts.append("disks")  # and nothing over the modules of an image that serves more than the lab's
    if machine.tee is not Tee.NONE:
        parts.append("tee")
    if has_hardware(scenario) and not any(row.name == GPU_EXTENSION for row in machine.extensions):
        parts.append(f"driver@{scenario.driver}" if scenario.driver else "driver")
    if scenario.container:
        parts.append("container")
    disks = dict.fromkeys(_disk_of(row) for row in machine.extensions)
    return (*parts, *(["foreign"] if foreign else []), *collect_effects(scenario).parts, *disks)


def _disk_of(extension: Extension) -> str:
    return f"{EXTENSION}@{OTHER_RELEASE}" if extension.damage is Damage.OTHER_KERNEL else EXTENSION


def compose(scenario: Scenario, image: BootFiles, parts: Mapping[str, Path], folder: Path, *,
            foreign: Foreign | None = None, events: Sequence[str] = (), early: Sequence[str] = ()) -> Machine:
    """`early`: modules that are in the kernel before the init starts, as if they were built in."""
    effects, gpus = collect_effects(scenario), place_gpus(scenario.machine)
    effects = replace(effects, events=(*effects.events, *events))
    initrd = folder / "initrd"
    layers = [image.initrd, *(path for name, path in parts.items() if not name.startswith(EXTENSION))]
    tree = make_tree(scenario, effects, gpus, foreign, has_clocks=bool(events), early=early)
    join_archives(layers, tree, initrd)
    disks, words = make_extensions(scenario, parts, folder)
    disks = (*initdata.make_disks(scenario.machine, folder), *make_scratch(scenario.machine, folder), *disks)
    return Machine(kernel=image.kernel, initrd=initrd, memory_mib=scenario.machine.memory_mib,
                   cpus=scenario.machine.cpus, numa=scenario.machine.numa, disks=disks,
                   extra=NETWORKS[scenario.machine.network], cmdline=make_line(scenario, words))


def make_scratch(machine: Hardware, folder: Path) -> tuple[Disk, ...]:
    if not machine.scratch_mib:
        return ()
    path = folder / "scratch.img"
    path.touch()
    os.truncate(path, machine.scratch_mib << 20)
    return (Disk(path=path, is_read_only=False),)


def make_tree(scenario: Scenario, effects: Effects, gpus: Sequence[Placed], foreign: Foreign | None, *,
              has_clocks: bool = False, early: Sequence[str] = ()) -> Tree:
    """What is about this scenario alone."""
    tree = Tree()
    for path, text in scenario_texts(scenario, effects, gpus, early).items():
        tree.add_file(path, text.encode(), _ORIGIN)
    for path, text in effects.scripts.items():
        tree.add_file(path, text.encode(), _ORIGIN, mode=0o755)
    for path, target in {**effects.links, **_left_out(effects.without)}.items():
        tree.add_link(path, target, _ORIGIN)
    if has_clocks:
        tree.add_file("/lab/clock", b"", _ORIGIN)
    if foreign is not None:
        tree.add_file("/lab/devtmpfs", b"", _ORIGIN)
        for path, file in {**foreign.files, "/init": foreign.program}.items():
            tree.add_file(path, file, _ORIGIN, mode=0o755)
    return tree


def scenario_texts(scenario: Scenario, effects: Effects, gpus: Sequence[Placed],
                   early: Sequence[str] = ()) -> Mapping[str, str]:
    texts = {"/lab/faults": _lines(effects.programs), "/lab/target": "/init\n", **scenario.files,
             **effects.texts}
    has_disks = scenario.machine.extensions or scenario.machine.initdata or scenario.machine.scratch_mib
    modules = [*early, *(["/lab/virtio_blk.ko"] if has_disks else []), *initdata.tee_modules(scenario.machine)]
    if has_hardware(scenario):
        functions = describe_functions(scenario, gpus, effects.keys)
        registers = f" mmio={REGISTERS_AT:#x}" if scenario.driver == REAL and gpus else ""
        modules.append(f"/lab/lab_pci.ko{registers} fn={functions}")
        texts[NVML] = describe_nvml(gpus, DRIVER_VERSION, effects.nvml)
        texts[NSCQ] = describe_nscq(scenario.machine, gpus, effects.nscq)
    if modules:
        texts["/lab/modules"] = _lines(modules)
    near = [f"/sys/bus/pci/devices/{gpu.bdf}/numa_node" for gpu in gpus if gpu.gpu.numa is not None]
    looks = [line for path in near for line in (f"wait {path} {WAIT_MS}", f"cat {path}")]
    if scenario.driver == REAL and gpus:
        looks += probe_commands([gpu.minor for gpu in gpus])
    if effects.events or looks:
        texts["/lab/events"] = _lines((*looks, *effects.events))
    if scenario.agent.seconds and scenario.expect.warnings:
        texts["/lab/until"] = _lines(scenario.expect.warnings)
    if scenario.policy:
        texts[POLICY] = scenario.policy
    if scenario.container:
        texts["/lab/container"] = _lines(scenario.container.devices or (NO_DEVICE,))
    return texts


def _lines(rows: Sequence[str]) -> str:
    return "".join(f"{row}\n" for row in rows)


def _left_out(words: Sequence[str]) -> Mapping[str, str]:
    """A file of the kit cannot be taken away, but a link that leads nowhere can take its place."""
    files = [f"{LIBRARIES}/{name}" for soname in DRIVER_LIBRARIES for name in (soname, versioned(soname))]
    return {path: "/lab/nothing" for path in files for word in words if word in path}


def make_line(scenario: Scenario, more: Sequence[str] = ()) -> str:
    acts = ",".join((*(["container"] if scenario.container else []), *scenario.agent.does))
    words = ["rdinit=/lab/init", "nvrc.report=console", FAREWELL_PATIENCE, NO_HOST, f"lab.agent={acts}", CDI_PATIENCE]
    if scenario.agent.seconds:
        words.append(f"lab.agent.seconds={scenario.agent.seconds:g}")
    if scenario.driver == REAL and scenario.machine.gpus:
        size = REGISTERS_MIB * sum(gpu.count for gpu in scenario.machine.gpus)
        words.append(f"memmap={size}M${REGISTERS_AT:#x}")
    return make_cmdline(" ".join([*words, *more, *scenario.cmdline.split("\n")]).strip(), has_standin=False)


def make_extensions(scenario: Scenario, parts: Mapping[str, Path], folder: Path) -> tuple[tuple[Disk, ...], list[str]]:
    disks: list[Disk] = []
    words: list[str] = []
    for extension in scenario.machine.extensions:
        more, line = _make_extension(extension, parts[_disk_of(extension)], folder)
        disks += more
        words += line
    return tuple(disks), words


def _make_extension(extension: Extension, source: Path, folder: Path) -> tuple[list[Disk], list[str]]:
    damage = extension.damage
    path, parameters = source, (source.parent / VERITY).read_text(encoding="ascii").strip()
    if damage not in (Damage.NONE, Damage.OTHER_KERNEL):
        path = folder / f"{extension.name}.img"
        parameters = damage_disk(source, parameters, damage, path)
    disk = Disk(path=path, serial=f"extension-{extension.name}")
    disks = {Damage.NO_DISK: [], Damage.TWO_DISKS: [disk, disk]}.get(damage, [disk])
    line = f"kata.extension.{extension.name}.verity_params={parameters}"
    return disks, [] if damage is Damage.NO_PARAMETERS else [line]


def damage_disk(source: Path, parameters: str, damage: Damage, target: Path) -> str:
    """A disk of its own for this scenario, broken as asked; and the parameters that are told about it."""
    if damage is Damage.NOT_EROFS:
        data = target.with_suffix(".data")
        data.write_bytes(b"no file system " * BLOCK)
        return write_disk(data, target).parameters()
    shutil.copyfile(source, target)
    found = parse_parameters(parameters)
    if damage is Damage.FLIPPED_BIT:
        _flip(target, DATA_AT + SUPERBLOCK)
    if damage is Damage.FLIPPED_LATER:
        # Every block from the middle on, so that whatever is read next of a large file is hit.
        for block in range(found.data_blocks // 2, found.data_blocks):
            _flip(target, DATA_AT + block * BLOCK + 7)
    if damage is Damage.WRONG_HASH:
        other = found.root_hash[1:] + ("0" if found.root_hash[0] != "0" else "1")
        return parameters.replace(found.root_hash, other)
    return parameters


def _flip(path: Path, at: int) -> None:
    with path.open("r+b") as stream:
        stream.seek(at)
        byte = stream.read(1)
        stream.seek(at)
        stream.write(bytes([byte[0] ^ 1]))
