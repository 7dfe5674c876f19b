# SPDX-License-Identifier: Apache-2.0
"""What PCI configuration and BAR0 tell of a GPU: the ports above it, and its confidential mode. Nothing is woken.

Register numbers as NVIDIA's gpu-admin-tools has them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from nvrc.preflight.devices import NO_GPU, PCI, Device, devices
from nvrc.preflight.host import Host
from nvrc.preflight.row import Judgement, bad, good, unknown, unused, warning

ALL_ONES = 0xFFFFFFFF
ACS = 0x000D
# The first device id of a generation, the register of BAR0 that tells the mode, and its bits as words. gpu-admin-tools.
HOPPER, BLACKWELL = range(0x2300, 0x2400), (*range(0x2900, 0x2A00), *range(0x2B00, 0x2C00), *range(0x3180, 0x3200))
HOPPER_CC, BLACKWELL_CC = 0x1182CC, 0x590
MODES: Mapping[int, str] = {0: "off", 1: "on", 3: "devtools"}
NO_MODE = "unknown"


def judge_acs(host: Host) -> Iterator[Judgement]:
    found = devices(host)
    if not found:
        yield unused(NO_GPU)
        return
    ports = {port for device in found if (port := _port_above(host, device.bdf))}
    if not ports:
        yield unknown(
            "no port above a GPU is visible: the copy of /sys lacks the tree of devices, or they sit on the root bus"
        )
        return
    readable = {port: config for port in sorted(ports) if len(config := host.read(f"{PCI}/{port}/config") or b"") > 256}
    lacking = [port for port, config in readable.items() if not _has_capability(config, ACS)]
    yield from (
        warning(f"port {port} above a GPU has no ACS: peer traffic is not checked by the IOMMU") for port in lacking
    )
    if len(readable) < len(ports):
        yield unknown("the extended configuration of PCI ports is readable by root only")
    elif not lacking:
        yield good(f"{len(ports)} ports above GPUs have ACS")


def _port_above(host: Host, bdf: str) -> str | None:
    place = host.place(f"{PCI}/{bdf}")
    if place is None:
        return None
    above = os.path.realpath(place).rstrip("/").split("/")[-2]
    return above if above.count(":") == 2 else None


def _has_capability(config: bytes, wanted: int) -> bool:
    offset, seen = 0x100, set[int]()
    while 0x100 <= offset <= len(config) - 4 and offset not in seen:
        seen.add(offset)
        header = int.from_bytes(config[offset : offset + 4], "little")
        if header in (0, ALL_ONES):
            return False
        if header & 0xFFFF == wanted:
            return True
        offset = header >> 20 & 0xFFC
    return False


def cc_mode(host: Host, device: Device) -> tuple[str | None, str]:
    """The mode as its register tells it, or None and why not. An asleep GPU answers with ones, and is left asleep."""
    is_hopper = device.function.device in HOPPER
    if not is_hopper and device.function.device not in BLACKWELL:
        return "off", ""
    state = host.text(f"{PCI}/{device.bdf}/power_state")
    if state not in (None, "D0", "unknown"):
        return None, f"it sleeps in {state}"
    value = host.register(f"{PCI}/{device.bdf}/resource0", HOPPER_CC if is_hopper else BLACKWELL_CC)
    if value is None:
        return None, "its registers are readable by root only, with kernel lockdown off"
    if value == ALL_ONES:
        return None, "it answers with ones: asleep, or lost"
    return MODES.get(value & 3, NO_MODE), ""


def judge_cc_mode(host: Host) -> Iterator[Judgement]:
    gpus = [device for device in devices(host) if device.function.is_gpu]
    if not gpus:
        yield unused(NO_GPU)
        return
    told = {device: cc_mode(host, device) for device in gpus}
    modes = {mode for mode, _why in told.values() if mode}
    silent = [(device, why) for device, (mode, why) in told.items() if mode is None]
    if NO_MODE in modes:
        yield bad(
            "the mode register of "
            + ", ".join(device.bdf for device, (mode, _why) in told.items() if mode == NO_MODE)
            + " has a value that is not a known mode; an unknown mode is never off"
        )
    elif len(modes) > 1:
        yield bad(
            "GPUs are in different modes: "
            + ", ".join(f"{device.bdf} {mode}" for device, (mode, _why) in told.items() if mode)
        )
    label = (host.labels or {}).get("nvidia.com/cc.mode.state") or (host.labels or {}).get("nvidia.com/cc.mode")
    if NO_MODE in modes:
        pass
    elif label and len(modes) == 1 and label not in (*modes, "ppcie"):
        yield bad(f"the node is labelled cc.mode {label}, its GPUs are in mode {next(iter(modes))}")
    elif len(modes) == 1 and not silent:
        yield good(f"all GPUs are in mode {next(iter(modes))}")
    if silent:
        yield unknown(f"{', '.join(device.bdf for device, _why in silent)}: {silent[0][1]}")
