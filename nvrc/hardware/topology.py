# SPDX-License-Identifier: Apache-2.0
"""What is on the PCI bus, and which supported machine that is.

A scan turns sysfs into frozen facts; a table turns counts into a mode. A machine that is in no row is refused, and so
is a bus that cannot be read: a missing bridge or a GPU that just fell off must not make a plainer machine out of a
bigger one. Nothing here touches a device: vendor, device and class are the kernel's cached copies, and VPD is read
from functions of one network vendor only. A network function whose VPD does not answer is never taken for one that
manages switches, nor given to containers; the machine is refused where the answer would make another one of it.
Follows Documentation/ABI/testing/sysfs-bus-pci.
"""

from __future__ import annotations

import errno

from guest_cdi.lean.light import TYPE_CHECKING, NamedTuple, dataclass
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.mode import Mode
from nvrc.vocabulary.paths import PCI_DEVICES

if TYPE_CHECKING:
    from nvrc.machine.system import Readable

NVIDIA, MELLANOX = 0x10DE, 0x15B3
DISPLAY = 0x03        # base class; a GPU's audio function is 0x0403 and does not count
NVSWITCH = 0x0680     # "other bridge"
NETWORK = (0x0200, 0x0207)  # Ethernet, InfiniBand
# On an NVL5 board the switches are managed through network functions, told from ordinary NICs only by this word.
VPD_MARK = b"SW_MNG"
VPD_LIMIT = 64 << 10
VPD_ANSWER_S = 60.0   # for those of all functions together
ATTRIBUTE_LIMIT = 64
_GONE = (errno.ENOENT, errno.ENODEV)

# Names for messages only; nothing is decided by them. Exact device ids: "GH200" contains "H200".
PRODUCTS = {
    0x1AF1: "A100 NVSwitch", 0x1DB1: "V100 SXM2 16GB", 0x1DB4: "V100 PCIe 16GB", 0x1DB5: "V100 SXM2 32GB",
    0x1DB6: "V100 PCIe 32GB", 0x1EB8: "T4", 0x20B0: "A100 SXM4 40GB", 0x20B2: "A100 SXM4 80GB",
    0x20B5: "A100 PCIe 80GB", 0x20B7: "A30", 0x20BD: "A800 SXM4 40GB", 0x20F1: "A100 PCIe 40GB",
    0x20F3: "A800 SXM4 80GB", 0x2235: "A40", 0x2236: "A10",
    0x22A3: "H100/H200 NVSwitch", 0x2321: "H100 NVL", 0x2322: "H800 PCIe", 0x2324: "H800 SXM5", 0x2329: "H20",
    0x232C: "H20-3e", 0x2330: "H100 SXM5", 0x2331: "H100 PCIe", 0x2335: "H200 SXM", 0x233B: "H200 NVL",
    0x2342: "GH200",
    0x26B5: "L40", 0x26B9: "L40S", 0x27B8: "L4", 0x2901: "B200", 0x2941: "GB200", 0x29BC: "B100",
    0x2BB5: "RTX PRO 6000 Blackwell Server", 0x3182: "B300",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PciFunction:
    bdf: str
    vendor: int
    device: int
    pci_class: int
    manages_switches: bool = False
    vpd_error: str = ""  # why its VPD could not be read

    @property
    def is_nic(self) -> bool:
        """A network function that containers may have."""
        return self.vendor == MELLANOX and self.pci_class >> 8 in NETWORK and not self.manages_switches

    @property
    def is_gpu(self) -> bool:
        return self.vendor == NVIDIA and self.pci_class >> 16 == DISPLAY

    @property
    def is_nvswitch(self) -> bool:
        return self.vendor == NVIDIA and self.pci_class >> 8 == NVSWITCH

    @property
    def identity(self) -> str:
        """`10de:2330 class 030200 (H100 SXM5)`, the way lspci writes ids."""
        name = PRODUCTS.get(self.device) if self.vendor == NVIDIA else "SW_MNG" if self.manages_switches else None
        return f"{self.vendor:04x}:{self.device:04x} class {self.pci_class:06x}" + (f" ({name})" if name else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    gpus: tuple[PciFunction, ...] = ()
    nvswitches: tuple[PciFunction, ...] = ()
    management_nics: tuple[PciFunction, ...] = ()
    others: tuple[PciFunction, ...] = ()

    @property
    def nics(self) -> tuple[PciFunction, ...]:
        return tuple(function for function in self.others if function.is_nic)

    @property
    def counts(self) -> tuple[int, int, int]:
        return len(self.nvswitches), len(self.gpus), len(self.management_nics)


class Row(NamedTuple):
    """One supported machine: how many of each it has, and what it is then."""

    nvswitches: range
    gpus: range
    management_nics: range
    mode: Mode
    machine: str


def _exactly(count: int) -> range:
    return range(count, count + 1)


_NONE = _exactly(0)
_SOME = range(1, 1 << 16)

TABLE: tuple[Row, ...] = (
    #   NVSwitch      GPU          SW_MNG       mode                what it is
    Row(_NONE,        _NONE,       _NONE,       Mode.CPU,           "no NVIDIA device"),
    Row(_NONE,        _SOME,       _NONE,       Mode.GPU,           "GPUs without a switched fabric"),
    Row(_exactly(4),  _exactly(8), _NONE,       Mode.GPU_NVL4,      "HGX board with NVSwitch functions, whole"),
    Row(_exactly(4),  _NONE,       _NONE,       Mode.SERVICE_NVL4,  "service VM that runs the NVSwitches"),
    Row(_NONE,        _exactly(8), _exactly(4), Mode.GPU_NVL5,      "HGX board with managed NVLink 5 switches, whole"),
    Row(_NONE,        _NONE,       _exactly(4), Mode.SERVICE_NVL5,  "service VM that runs the NVLink 5 switches"),
)
# The first three columns in words, one and many.
COLUMNS = (("NVSwitch", "NVSwitches"), ("GPU", "GPUs"), ("management NIC", "management NICs"))


def scan(sys: Readable, answer_s: float = VPD_ANSWER_S) -> tuple[PciFunction, ...]:
    """Every function on the bus, in address order. No PCI directory is a machine without PCI."""
    functions = tuple(_read_ids(sys, name) for name in _addresses(sys))
    if all(function.vendor != MELLANOX for function in functions):
        return functions
    return _add_vpds(sys, functions, answer_s)


def _addresses(sys: Readable) -> tuple[str, ...]:
    try:
        return tuple(sorted(sys.list_dir(PCI_DEVICES)))
    except FileNotFoundError:
        return ()
    except OSError as err:
        raise NvrcError("E_PCI_READ", f"{PCI_DEVICES}: {err.strerror or err}") from err


def gpus_on_bus(sys: Readable) -> frozenset[str]:
    """The GPUs that are there now, by the ids that a scan goes by as well; VPD is not asked for."""
    return frozenset(bdf for bdf in _addresses(sys) if _read_ids(sys, bdf).is_gpu)


def classify(functions: tuple[PciFunction, ...]) -> Topology:
    return Topology(
        gpus=tuple(f for f in functions if f.is_gpu),
        nvswitches=tuple(f for f in functions if f.is_nvswitch),
        management_nics=tuple(f for f in functions if f.manages_switches),
        others=tuple(f for f in functions if not (f.is_gpu or f.is_nvswitch or f.manages_switches)),
    )


def decide(topology: Topology) -> Mode:
    """The mode of the one row that fits; anything else is refused with what was seen and which rows come near."""
    _check_silent(topology)
    for row in TABLE:
        if _distance(row, topology) == 0:
            return row.mode
    counted = ", ".join(map(counting, topology.counts, COLUMNS))
    near = "; ".join(_difference(row, topology) for row in _nearest(topology))
    raise NvrcError("E_TOPOLOGY", f"{counted}: no supported machine; nearest: {near}; seen: {_seen(topology)}")


def _check_silent(topology: Topology) -> None:
    """Refuse the machine that would be another one if functions that do not answer manage switches after all."""
    silent = [function for function in topology.others if function.vpd_error]
    for extra in range(1, len(silent) + 1):
        counts = (*topology.counts[:2], topology.counts[2] + extra)
        if any(all(count in allowed for count, allowed in zip(counts, row[:3], strict=True)) for row in TABLE):
            raise NvrcError("E_PCI_READ", silent[0].vpd_error)


def counting(count: int, words: tuple[str, str]) -> str:
    return f"{count} {words[0 if count == 1 else 1]}"


def _add_vpds(sys: Readable, functions: tuple[PciFunction, ...], answer_s: float) -> tuple[PciFunction, ...]:
    """A device has an eighth of a second for every four bytes, and the kernel asks for all of them in one call."""
    from nvrc.machine.patience import run_within  # most machines have no such function
    from nvrc.machine.wait import OverdueError

    asked: list[str] = []
    try:
        return run_within(answer_s, lambda: tuple(_add_vpd(sys, function, asked) for function in functions))
    except OverdueError as err:
        raise NvrcError("E_PCI_READ", f"{asked[-1]}: vpd: not read within {answer_s:g} s, with those before it",
                        "find on the host why the function answers so slowly, or detach it") from err


def _add_vpd(sys: Readable, found: PciFunction, asked: list[str]) -> PciFunction:
    if found.vendor != MELLANOX:
        return found
    asked.append(found.bdf)
    vpd, vpd_error = _read_vpd(sys, found.bdf)
    return PciFunction(bdf=found.bdf, vendor=found.vendor, device=found.device, pci_class=found.pci_class,
                       manages_switches=VPD_MARK in vpd, vpd_error=vpd_error)


def _read_ids(sys: Readable, bdf: str) -> PciFunction:
    if not _is_bdf(bdf):
        raise NvrcError("E_PCI_READ", f"{PCI_DEVICES}: entry {bdf[:40]!a} is not a PCI address")
    return PciFunction(bdf=bdf, vendor=_read_id(sys, bdf, "vendor", 4), device=_read_id(sys, bdf, "device", 4),
                       pci_class=_read_id(sys, bdf, "class", 6))


def _read_id(sys: Readable, bdf: str, name: str, digits: int) -> int:
    try:
        data = sys.read(f"{PCI_DEVICES}/{bdf}/{name}", ATTRIBUTE_LIMIT)
    except OSError as err:
        raise _unreadable(bdf, name, err) from err
    text = data.decode("latin-1").removesuffix("\n")
    if not (text.startswith("0x") and _is_hex(text[2:], digits)):
        raise NvrcError("E_PCI_READ", f"{bdf}: {name} reads {text[:16]!a}, expected 0x and {digits} hex digits")
    return int(text, 16)


def _read_vpd(sys: Readable, bdf: str, tries: int = 2) -> tuple[bytes, str]:
    """The function's VPD, empty when it has none, and why it could not be read.

    A failed read is tried once more: a busy device may time out. A VPD that never answers reads
    as an empty file on Linux 6.12, without an error; one that has content never does.
    """
    try:
        if vpd := sys.read(f"{PCI_DEVICES}/{bdf}/vpd", VPD_LIMIT):
            return vpd, ""
        raise OSError(errno.ENODEV, "reads empty")
    except FileNotFoundError:
        return b"", ""
    except OSError as err:
        if tries > 1:
            return _read_vpd(sys, bdf, tries - 1)
        return b"", f"{bdf}: vpd: {err.strerror or err}"


def _unreadable(bdf: str, name: str, err: OSError) -> NvrcError:
    what = f"{bdf}: {name}: {err.strerror or err}"
    if err.errno in _GONE:
        # A cold-plugged machine loses no function while it boots: the device died, or its VPD storage is blank.
        return NvrcError("E_PCI_READ", what, "check the device on the host: the function vanished or does not answer")
    return NvrcError("E_PCI_READ", what)


def _is_hex(text: str, digits: int) -> bool:
    return len(text) == digits and all(char in "0123456789abcdef" for char in text)


def _is_bdf(name: str) -> bool:
    """`0000:41:00.0`; a domain has more digits behind some host bridges."""
    domain, _, rest = name.partition(":")
    return (4 <= len(domain) <= 8 and _is_hex(domain, len(domain)) and len(rest) == 7 and rest[2] == ":"
            and rest[5] == "." and _is_hex(rest[0:2] + rest[3:5], 4) and rest[6] in "01234567")


def _gaps(row: Row, topology: Topology) -> tuple[int, ...]:
    """Per column how many devices are too many (positive) or missing (negative) for this row."""
    return tuple(
        count - wanted.start if count < wanted.start else max(0, count - wanted.stop + 1)
        for wanted, count in zip(row[:3], topology.counts, strict=True)
    )


def _distance(row: Row, topology: Topology) -> int:
    return sum(abs(gap) for gap in _gaps(row, topology))


def _nearest(topology: Topology) -> list[Row]:
    """The two rows that need the fewest changes; stable, so a tie goes to the earlier row."""
    return sorted(TABLE, key=lambda row: _distance(row, topology))[:2]


def _difference(row: Row, topology: Topology) -> str:
    parts = [f"{counting(abs(gap), words)} {'too many' if gap > 0 else 'missing'}"
             for words, gap in zip(COLUMNS, _gaps(row, topology), strict=True) if gap]
    return f"{row.mode.value} ({', '.join(parts)})"


def _seen(topology: Topology) -> str:
    """Counted functions first, then others of the two vendors, grouped by what they are; the rest as a number."""
    counted = topology.nvswitches + topology.gpus + topology.management_nics
    kin = tuple(f for f in topology.others if f.vendor in (NVIDIA, MELLANOX))
    groups: dict[str, list[str]] = {}
    for function in counted + kin:
        groups.setdefault(function.identity, []).append(function.bdf)
    parts = [f"{identity} at {' '.join(bdfs)}" for identity, bdfs in groups.items()]
    foreign = len(topology.others) - len(kin)
    return ", ".join([*parts, f"{counting(foreign, ('function', 'functions'))} of other vendors"])
