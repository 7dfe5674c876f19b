# SPDX-License-Identifier: Apache-2.0
"""Which port the NVLink subnet manager works on: the first of a switch management function that may run one.

A pod may be given ordinary network adapters of the same vendor, so a device counts only if its PCI function is one
that the topology knows by its VPD. Devices are taken in natural order: mlx5_2 before mlx5_10. Port attributes are
those of Documentation/ABI/stable/sysfs-class-infiniband.
"""

from __future__ import annotations

from guest_cdi.lean.light import NamedTuple
from nvrc.machine.system import Files
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError

SM_DISABLED = 1 << 10  # IB_PORT_SM_DISABLED in the port's capability mask
ACTIVE = "4: ACTIVE"
ATTRIBUTE_LIMIT = 256
DIGITS = "0123456789"


class Port(NamedTuple):
    device: str
    guid: str
    refusal: str


def find_port(system: Files, management: tuple[str, ...]) -> str:
    """The GUID of the port to use, as nvlsm and the fabric manager take it; or E_NVLSM with what was seen."""
    try:
        devices = system.list_dir(paths.INFINIBAND)
    except OSError as err:
        raise NvrcError("E_NVLSM", f"{paths.INFINIBAND}: {err.strerror}",
                        "build the mlx5_ib driver into the guest kernel, or load it before") from err
    owners = {device: bdf for bdf in management for device in devices_of(system, bdf)}
    ports = [look_at(system, device, owners.get(device, "")) for device in sorted(devices, key=natural)]
    for port in ports:
        if not port.refusal:
            return port.guid
    seen = "; ".join(f"{port.device} {port.refusal}" for port in ports) or "no InfiniBand device"
    raise NvrcError("E_NVLSM", f"no port for the NVLink subnet manager: {seen}")


def devices_of(system: Files, bdf: str) -> tuple[str, ...]:
    """Names of the InfiniBand devices that a PCI function has."""
    try:
        return system.list_dir(f"{paths.PCI_DEVICES}/{bdf}/infiniband")
    except OSError:
        return ()  # its driver did not take it


def natural(name: str) -> tuple[tuple[str, int], ...]:
    """A key that sorts digits as numbers: the name as pairs of other letters and the number behind them."""
    pairs: list[tuple[str, int]] = []
    rest = name
    while rest:
        text = rest[:next((at for at, letter in enumerate(rest) if letter in DIGITS), len(rest))]
        digits = rest[len(text):len(rest) - len(rest[len(text):].lstrip(DIGITS))]
        pairs.append((text, int(digits or -1)))
        rest = rest[len(text) + len(digits):]
    return (*pairs, ("", -1))


def look_at(system: Files, device: str, bdf: str) -> Port:
    """One device at a management function, or at no known one: its GUID, or why it is not the one."""
    if not bdf:
        return Port(device, "", "is an ordinary adapter")
    try:
        mask = _attribute(system, device, "cap_mask")
    except OSError as err:
        return Port(device, "", f"at {bdf} does not tell its capabilities: {err.strerror}")
    if _read_hex(device, mask) & SM_DISABLED:
        return Port(device, "", f"at {bdf} has its subnet manager disabled")
    return _check_state(system, device, bdf)


def _check_state(system: Files, device: str, bdf: str) -> Port:
    try:
        state = _attribute(system, device, "state")
    except OSError:
        state = ACTIVE  # not every kernel tells
    if state != ACTIVE:
        return Port(device, "", f"at {bdf} is in state {state}")
    try:
        gid = _attribute(system, device, "gids/0")
    except OSError as err:
        return Port(device, "", f"at {bdf} has no GID: {err.strerror}")
    groups = gid.split(":")
    if len(groups) != 8 or not all(_is_hex(group, 4) for group in groups):
        return Port(device, "", f"at {bdf} has an odd GID {gid[:60]!a}")
    return Port(device, "0x" + "".join(group.zfill(4) for group in groups[4:]), "")


def _is_hex(text: str, longest: int) -> bool:
    return 0 < len(text) <= longest and all(letter in "0123456789abcdefABCDEF" for letter in text)


def _attribute(system: Files, device: str, name: str) -> str:
    path = f"{paths.INFINIBAND}/{device}/ports/1/{name}"
    return system.read(path, ATTRIBUTE_LIMIT).decode("ascii", "replace").strip()


def _read_hex(device: str, text: str) -> int:
    """Unlike a mask that cannot be read, one that makes no sense is an error: it says nothing about the port."""
    if not _is_hex(text.removeprefix("0x"), 16):
        raise NvrcError("E_NVLSM", f"{paths.INFINIBAND}/{device}/ports/1/cap_mask reads {text[:40]!a}, no mask")
    return int(text, 16)
