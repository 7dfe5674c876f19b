# SPDX-License-Identifier: Apache-2.0
"""The host's GPUs and NVSwitches, and what stands between them and a VM: binding, groups, nodes, power.

From sysfs alone. Classes 03xxxx and 0680xx of NVIDIA are what Kata's device plugin passes to VMs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nvrc.hardware.topology import NVIDIA, PciFunction
from nvrc.preflight.containerd import CDI
from nvrc.preflight.host import Host, dig, rows
from nvrc.preflight.row import Judgement, bad, good, unknown, unused, warning
from nvrc.vocabulary.digits import is_number

PCI = "/sys/bus/pci/devices"
VFIO_DRIVERS = ("vfio-pci", "nvgrace-gpu-vfio-pci")
HOST_DRIVERS = ("nvidia", "nouveau", "nvidia_drm", "nova_core")
DMA_LIMIT = "/sys/module/vfio_iommu_type1/parameters/dma_entry_limit"
DMA_DEFAULT = 65535
NO_GPU = "no NVIDIA GPU or NVSwitch on the PCI bus"


@dataclass(frozen=True, slots=True)
class Device:
    """`vfio`: the name of its character device for iommufd, such as vfio0."""

    function: PciFunction
    driver: str
    group: str | None
    vfio: str | None

    @property
    def bdf(self) -> str:
        return self.function.bdf

    def __str__(self) -> str:
        return f"{'GPU' if self.function.is_gpu else 'NVSwitch'} {self.bdf}"


def devices(host: Host) -> tuple[Device, ...]:
    found = []
    for bdf in host.listing(PCI):
        function = _function(host, bdf)
        if function is not None and (function.is_gpu or function.is_nvswitch):
            found.append(
                Device(
                    function,
                    host.link(f"{PCI}/{bdf}/driver") or "",
                    host.link(f"{PCI}/{bdf}/iommu_group"),
                    next(iter(host.listing(f"{PCI}/{bdf}/vfio-dev")), None),
                )
            )
    return tuple(found)


def _function(host: Host, bdf: str) -> PciFunction | None:
    numbers = [host.text(f"{PCI}/{bdf}/{name}") for name in ("vendor", "device", "class")]
    try:
        vendor, device, pci_class = (int(number or "", 16) for number in numbers)
    except ValueError:
        return None
    return PciFunction(bdf=bdf, vendor=vendor, device=device, pci_class=pci_class) if vendor == NVIDIA else None


def judge_presence(host: Host) -> Iterator[Judgement]:
    found = devices(host)
    gpus = sum(device.function.is_gpu for device in found)
    if not found and not host.exists(PCI):
        yield unknown(f"{PCI} is missing")
        return
    yield good(f"{gpus} GPUs and {len(found) - gpus} NVSwitches") if gpus else warning(NO_GPU)


def judge_binding(host: Host) -> Iterator[Judgement]:
    found = devices(host)
    if not found:
        yield unused(NO_GPU)
        return
    wrong = [device for device in found if device.driver not in VFIO_DRIVERS]
    yield from (
        bad(f"{device} has {f'the driver {device.driver}' if device.driver else 'no driver'}; a VM requires vfio-pci")
        for device in wrong
    )
    if not wrong:
        yield good(f"{len(found)} devices are bound to {', '.join(sorted({device.driver for device in found}))}")


def judge_host_driver(host: Host) -> Iterator[Judgement]:
    text = host.text("/proc/modules")
    if text is None:
        yield unknown("/proc/modules is missing")
        return
    loaded = sorted({line.partition(" ")[0] for line in text.splitlines()} & set(HOST_DRIVERS))
    yield (
        bad(f"{', '.join(loaded)} is loaded on the host and takes GPUs before vfio-pci")
        if loaded
        else good("no GPU driver is loaded on the host")
    )


def judge_group(host: Host) -> Iterator[Judgement]:
    found = devices(host)
    if not found:
        yield unused(NO_GPU)
        return
    ours, is_good = {device.bdf.rpartition(".")[0] for device in found}, True
    for device in found:
        if device.group is None:
            yield bad(f"{device} is not in an IOMMU group")
            is_good = False
            continue
        others = [
            bdf for bdf in host.listing(f"{PCI}/{device.bdf}/iommu_group/devices") if bdf.rpartition(".")[0] not in ours
        ]
        if others:
            yield bad(f"{device} shares IOMMU group {device.group} with {', '.join(others)}")
            is_good = False
    if is_good:
        yield good("each device is alone in its IOMMU group, or with functions of GPUs")


def judge_cdev(host: Host) -> Iterator[Judgement]:
    bound = [device for device in devices(host) if device.driver in VFIO_DRIVERS]
    if not bound:
        yield unused("no GPU is bound to vfio-pci")
        return
    missing = [device for device in bound if device.vfio is None or not host.exists(f"/dev/vfio/devices/{device.vfio}")]
    for device in missing:
        legacy = host.exists(f"/dev/vfio/{device.group}")
        where = f"/dev/vfio/devices/{device.vfio}" if device.vfio else f"{PCI}/{device.bdf}/vfio-dev"
        yield (warning if legacy else bad)(f"{device} has no {where}{'; only its group node exists' if legacy else ''}")
    if not missing:
        yield good(f"{len(bound)} devices have a node below /dev/vfio/devices")


def judge_cdi(host: Host) -> Iterator[Judgement]:
    bound = [device for device in devices(host) if device.driver in VFIO_DRIVERS]
    if not bound:
        yield unused("no GPU is bound to vfio-pci")
        return
    named, nodes, problems, files = _host_cdi(host)
    yield from (bad(problem) for problem in problems)
    if not files:
        yield bad("no document of a kind nvidia.com/... below /var/run/cdi; the device plugin has not written one")
        return
    lost = [
        device for device in bound if not {device.vfio, (device.vfio or "").removeprefix("vfio"), device.group} & named
    ]
    yield from (
        bad(f"{device} ({device.vfio or f'group {device.group}'}) is not in {', '.join(files)}") for device in lost
    )
    gone = sorted(node for node in nodes if not host.exists(node))
    yield from (bad(f"{', '.join(files)} names {node}, which is missing") for node in gone)
    if not lost and not gone and not problems:
        yield good(f"{', '.join(files)} has all {len(bound)} devices")


def _host_cdi(host: Host) -> tuple[set[str | None], set[str], list[str], list[str]]:
    named: set[str | None] = set()
    nodes, problems, files = set[str](), list[str](), list[str]()
    for path in (
        f"{folder}/{name}" for folder in CDI for name in host.listing(folder) if name.endswith((".yaml", ".json"))
    ):
        document, wrong = host.yaml(path)
        if document is None:
            problems.append(f"{path} {wrong}")
        elif str(document.get("kind")).startswith("nvidia.com/"):
            files.append(path)
            for device in rows(document.get("devices")):
                named.add(str(dig(device, "name")))
                nodes |= {str(dig(node, "path")) for node in rows(dig(device, "containerEdits", "deviceNodes"))}
    return named, nodes, problems, files


def judge_power(host: Host) -> Iterator[Judgement]:
    found = devices(host)
    if not found:
        yield unused(NO_GPU)
        return
    states = {device: host.text(f"{PCI}/{device.bdf}/power_state") for device in found}
    asleep = [device for device, state in states.items() if state == "D3cold"]
    yield from (bad(f"{device} is in D3cold; QEMU does not get it back") for device in asleep)
    risky = [
        device for device in found if device not in asleep and host.text(f"{PCI}/{device.bdf}/d3cold_allowed") == "1"
    ]
    yield from (warning(f"{device} may fall into D3cold while it is idle (d3cold_allowed is 1)") for device in risky)
    if not any(states.values()):
        yield unknown("the kernel does not tell power states")
    elif not asleep and not risky:
        yield good("no device is in D3cold or may get there")


def judge_dma_limit(host: Host) -> Iterator[Judgement]:
    text = host.text(DMA_LIMIT)
    if text is None or not is_number(text, 20):
        yield unknown(f"{DMA_LIMIT} is missing: vfio_iommu_type1 is not loaded, as with iommufd alone")
    elif int(text) > DMA_DEFAULT:
        yield good(f"dma_entry_limit is {text}")
    else:
        yield warning(f"dma_entry_limit is {text}; a large confidential VM needs more than {DMA_DEFAULT} mappings")
