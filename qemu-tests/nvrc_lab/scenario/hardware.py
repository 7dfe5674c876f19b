# SPDX-License-Identifier: Apache-2.0
"""The machine of a scenario in the words of those who imitate it: PCI functions for lab_pci.ko (lab_keys.c has the
keys) and a description for the stand-in NVML (standins/nvml/README.md). Pure.

Places are fixed (tree.py), GPUs from 0000:40:00.0 on where there are no bridges, so that scenarios can name bus ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from nvrc.vocabulary.products import GIB, PRODUCTS, SWITCHES, Product
from nvrc_lab.scenario.tree import Site, link_keys, place_nics, sites, with_bridges
from nvrc_lab.scenario.values import Confidential, Gpu, Hardware, Scenario

SWITCH_BUS, MANAGEMENT_BUS, DISPLAY_BUS = 0x50, 0x60, 0x78
# The mailbox has a number for each mode; any other is a mode that nobody knows.
MODES: Mapping[Confidential, int] = {Confidential.OFF: 0, Confidential.ON: 1, Confidential.DEVTOOLS: 2,
                                     Confidential.PPCIE: 3, Confidential.UNKNOWN: 9}
# What NVML says about the whole machine in each mode. A number stands for a value that has no name.
NVML_MODES: Mapping[Confidential, str] = {
    Confidential.ON: "environment=prod feature=on devtools=off multigpu=none",
    Confidential.DEVTOOLS: "environment=prod feature=on devtools=on multigpu=none",
    Confidential.PPCIE: "environment=prod feature=on devtools=off multigpu=ppcie",
    Confidential.UNKNOWN: "environment=prod feature=7 devtools=off multigpu=none",
}
# NSCQ's numbers for the mode of an NVSwitch.
SWITCH_OFF, SWITCH_LOCKED = 0, 3
# Capability mask of an InfiniBand port; bit 10: no subnet manager may run here. The second port is the first usable.
PORT_MASKS = (0xA651EC48, 0xA651E848, 0xA651E848, 0xA651E848)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """One GPU of the machine: where it is and what it says of itself."""

    index: int
    bdf: str
    uuid: str
    minor: int
    gpu: Gpu
    product: Product
    site: Site
    keys: Mapping[str, str] = field(default_factory=dict)


def place_gpus(machine: Hardware) -> tuple[Placed, ...]:
    """The GPUs in order of their bus ids, which is the order of NVML's indices."""
    single = [replace(gpu, count=1, minor=None if gpu.minor is None else gpu.minor + offset)
              for gpu in machine.gpus for offset in range(gpu.count)]
    placed = [(Site(bdf=gpu.at) if gpu.at else site, gpu)
              for gpu, site in zip(single, sites(machine)[0], strict=True)]
    rows = []
    for index, (site, gpu) in enumerate(sorted(placed, key=lambda row: row[0].bdf)):
        minor = index if gpu.minor is None else gpu.minor
        rows.append(Placed(index=index, bdf=site.bdf, uuid=gpu.uuid or make_uuid(site.bdf), minor=minor, gpu=gpu,
                           product=PRODUCTS[gpu.product], site=site))
    return tuple(rows)


def make_uuid(bdf: str) -> str:
    """A GPU keeps its identity from run to run."""
    digest = hashlib.sha256(bdf.encode()).hexdigest()
    return f"GPU-{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-8{digest[17:20]}-{digest[20:32]}"


def describe_functions(scenario: Scenario, gpus: Sequence[Placed], extra: Mapping[str, Mapping[str, str]]) -> str:
    """The parameter `fn=` of lab_pci.ko; `extra` are a fault's keys by bus id."""
    machine = scenario.machine
    nics = place_nics(machine)
    own = {placed.bdf: _gpu_row(placed, extra.get(placed.bdf, {})) for placed in gpus}
    own |= {nic.bdf: nic.row + _keys(extra.get(f"nic {nic.index}", {})) for nic in nics}
    found = {placed.bdf: placed.site for placed in gpus} | {nic.bdf: nic.site for nic in nics}
    rows = list(with_bridges(own, found))
    switch = SWITCHES[machine.switch_product]
    rows += [f"0000:{SWITCH_BUS:02x}:{index:02x}.0/10de:{switch:04x}/068000" for index in range(machine.nvswitches)]
    rows += [_management_row(index) for index in range(machine.management_nics)]
    rows += [f"0000:{DISPLAY_BUS:02x}:{index:02x}.0/1234:1111/030000" for index in range(machine.displays)]
    known = {row.split("/")[0] for row in rows}
    for bdf, keys in extra.items():
        rows = [row + _keys(keys) if row.startswith(f"{bdf}/") and bdf not in {gpu.bdf for gpu in gpus} else row
                for row in rows] if bdf in known else rows
    return ",".join(rows)


def _management_row(index: int) -> str:
    mask = PORT_MASKS[index % len(PORT_MASKS)]
    return (f"0000:{MANAGEMENT_BUS:02x}:{index:02x}.0/15b3:1021/020700/vpd=SW_MNG/port_mask={mask:#x}/port_state=4"
            f"/guid=b83fd20300a1c{index:03x}")


def _gpu_row(placed: Placed, extra: Mapping[str, str]) -> str:
    keys = {
        "attach_ms": str(placed.gpu.attach_ms), "cc": str(MODES[placed.gpu.confidential]),
        "minor": str(placed.minor), "uuid": placed.uuid.removeprefix("GPU-").replace("-", ""),
        "model": placed.product.model, **link_keys(placed.gpu.pcie), **extra,
    }
    if placed.gpu.mig:
        keys["mig"] = "+".join(f"{instance}.0" for instance in range(1, len(placed.gpu.mig) + 1))
    numa = placed.site.numa if placed.gpu.numa is None else placed.gpu.numa
    if numa is not None:
        keys["numa"] = str(numa)
    return f"{placed.bdf}/10de:{placed.product.device:04x}/{placed.product.pci_class:06x}{_keys(keys)}"


def _keys(keys: Mapping[str, str]) -> str:
    return "".join(f"/{key}={_escape(value)}" for key, value in keys.items())


def _escape(text: str) -> str:
    """The separators of the list, and blanks, as %XX."""
    return "".join(f"%{ord(char):02X}" if char in " ,/%" else char for char in text)


def describe_nvml(gpus: Sequence[Placed], version: str, faults: Sequence[str]) -> str:
    lines = [f"driver {version}", "nodes /dev", "state /tmp/lab-nvml-state", "door /proc/nvidia-lab"]
    mode = _common_mode(gpus)
    if mode is not None:
        lines.append(f"cc {NVML_MODES[mode]} cpu=snp gpus=capable ready=off")
    for placed in gpus:
        lines += [_nvml_gpu(placed), *_nvml_mig(placed)]
    return "\n".join([*lines, *faults]) + "\n"


def describe_nscq(machine: Hardware, gpus: Sequence[Placed], faults: Sequence[str]) -> str:
    """The NVSwitches as the library for them tells them: protected and locked where the GPUs are in protected PCIe."""
    mode = SWITCH_LOCKED if _common_mode(gpus) is Confidential.PPCIE else SWITCH_OFF
    rows = (f"0000:{SWITCH_BUS:02x}:{index:02x}.0" for index in range(machine.nvswitches))
    return "\n".join(["nodes /dev", *(f"switch {make_uuid(bdf).replace('GPU-', 'SWX-')} {bdf} {mode}" for bdf in rows),
                      *faults]) + "\n"


def _common_mode(gpus: Sequence[Placed]) -> Confidential | None:
    """NVML knows one mode for the whole machine: that of the first GPU that has any."""
    return next((placed.gpu.confidential for placed in gpus if placed.gpu.confidential is not Confidential.OFF), None)


def _nvml_gpu(placed: Placed) -> str:
    product = placed.product
    words = [
        f'gpu {placed.index} name="{product.model}" uuid={placed.uuid} minor={placed.minor} bus={placed.bdf}',
        f"pci=10de:{product.device:04x} memory={product.memory_gib * GIB}",
        f"compute-capability={product.capability[0]},{product.capability[1]}",
        f"mig={'on' if placed.gpu.mig else 'off' if product.has_mig else 'unsupported'}",
        *(["mig-needs-reset=on"] if product.has_mig and product.capability < (9, 0) else []),
        *(["cc=on"] if placed.gpu.confidential is not Confidential.OFF else []),
        *(f"{key}={value}" for key, value in placed.gpu.nvml.items()),
    ]
    return " ".join(words)


def _nvml_mig(placed: Placed) -> list[str]:
    return [f"mig gpu={placed.index} gi={instance} ci=0 profile={profile}"
            for instance, profile in enumerate(placed.gpu.mig, start=1)]
