# SPDX-License-Identifier: Apache-2.0
"""Which disks carry extension images, and whether they and the command line agree, one to one. Opens no disk.

A disk says what it is by its serial, `extension-<name>`; partition 1 holds the data, partition 2 the hash tree. The
disk comes from the host, which is not trusted, so everything sysfs says is judged: names by the rule of the command
line, sizes against what the parameters need.
"""

from __future__ import annotations

from guest_cdi.lean.light import TYPE_CHECKING, NamedTuple
from nvrc.machine.system import Files
from nvrc.params.extension import Extension, VerityParams, read_name
from nvrc.params.values import MalformedError
from nvrc.vocabulary import paths
from nvrc.vocabulary.digits import is_number
from nvrc.vocabulary.errors import NvrcError

if TYPE_CHECKING:
    from nvrc.vocabulary.errors import Code

BLOCK = "/sys/block"
PREFIX = b"extension-"
DATA, HASHES = 1, 2
SECTOR = 512
DIGEST = 32          # SHA-256
BLOCK_DEVICE, SCSI_HOST = 2, 8  # of the virtio specification
_SERIAL_LIMIT = 256  # virtio-blk has 20 bytes; what is longer is no name of ours


class Partition(NamedTuple):
    """`device` is major:minor, as device-mapper takes and prints it."""

    device: str
    size_bytes: int


class Disk(NamedTuple):
    name: str
    block: str
    data: Partition | None
    hashes: Partition | None


class Pair(NamedTuple):
    """What belongs together: an extension of the command line, and its disk's partitions."""

    extension: Extension
    data: Partition
    hashes: Partition


def has_controller(system: Files, *kinds: int) -> bool:
    """Whether there may be a disk that no driver has shown yet; none may be overlooked.

    The virtio bus says what a device is. On PCI it may look like another: the kernel goes by an old one's subsystem.
    """
    return any(_is_one_of(system, device, kinds) for device in _entries(system, paths.VIRTIO_DEVICES))


def _is_one_of(system: Files, device: str, kinds: tuple[int, ...]) -> bool:
    try:
        return int(system.read(f"{paths.VIRTIO_DEVICES}/{device}/device", 16), 16) in kinds
    except (OSError, ValueError):
        return True


def disk_names(system: Files) -> tuple[str, ...]:
    """The disks on virtio-blk and SCSI, whole ones, that drivers show."""
    return tuple(name for name in _entries(system, BLOCK) if name.startswith(("vd", "sd")))


def partition_names(system: Files, disk: str) -> tuple[str, ...]:
    return tuple(name for name in _entries(system, f"{BLOCK}/{disk}")
                 if system.exists(f"{BLOCK}/{disk}/{name}/partition"))


def find_disks(system: Files, answer_s: float | None = None) -> tuple[Disk, ...]:
    """Every disk whose serial says that it carries an extension; other disks are nobody's business here."""
    try:
        blocks = system.list_dir(BLOCK)
    except FileNotFoundError:
        return ()
    except OSError as err:
        raise NvrcError("E_EXTENSION_DEVICE", f"{BLOCK}: {err.strerror}") from err
    return tuple(_disk(system, block, serial) for block in blocks
                 if (serial := _serial_within(system, block, answer_s)).startswith(PREFIX))


def absent(disks: tuple[Disk, ...], wanted: tuple[Extension, ...]) -> tuple[str, ...]:
    """What the extensions of the command line still lack, one entry each for disk, data and hash partition."""
    there = {disk.name: disk for disk in disks}
    found: list[str] = []
    for extension in wanted:
        disk = there.get(extension.name)
        if disk is None:
            found += [f"{extension.name}: disk", f"{extension.name}: partition 1", f"{extension.name}: partition 2"]
            continue
        found += [f"{extension.name}: partition {number}" for number, part in ((DATA, disk.data), (HASHES, disk.hashes))
                  if part is None]
    return tuple(found)


def reconcile(disks: tuple[Disk, ...], wanted: tuple[Extension, ...]) -> tuple[Pair, ...]:
    """Disks and parameters one to one. What is alone, twice or too small ends the boot, each kind in one message."""
    blocks: dict[str, list[str]] = {}
    for disk in disks:
        blocks.setdefault(disk.name, []).append(disk.block)
    named = {extension.name for extension in wanted}
    _refuse("E_EXTENSION_DEVICE", [f'extension "{name}": disks {", ".join(found)} all have its serial'
                                   for name, found in blocks.items() if len(found) > 1])
    _refuse("E_EXTENSION_PARAMS", [f'extension "{name}": device {found[0]} has no verity parameters'
                                   for name, found in blocks.items() if name not in named],
            "add kata.extension.<name>.verity_params with root_hash, salt, data_blocks and both block sizes (the bare "
            "key is not enough), or detach the disk")
    _refuse("E_EXTENSION_DEVICE", [f'extension "{extension.name}": no disk has the serial extension-{extension.name}'
                                   for extension in wanted if extension.name not in blocks])
    there = {disk.name: disk for disk in disks}
    pairs = [_pair(extension, there[extension.name]) for extension in wanted]
    _refuse("E_EXTENSION_LAYOUT", [pair for pair in pairs if isinstance(pair, str)])
    return tuple(pair for pair in pairs if isinstance(pair, Pair))


def hash_bytes(params: VerityParams) -> int:
    """The size of the hash tree: levels of digests, one digest for each block of the level below, down to one block."""
    per_block = params.hash_block_size // DIGEST
    blocks, total = params.data_blocks, 0
    while blocks > 1:
        blocks = -(-blocks // per_block)
        total += blocks
    return total * params.hash_block_size


def _pair(extension: Extension, disk: Disk) -> Pair | str:
    where = f'extension "{extension.name}": device {disk.block}'
    if disk.data is None or disk.hashes is None:
        lacks = [str(number) for number, part in ((DATA, disk.data), (HASHES, disk.hashes)) if part is None]
        return f"{where} has no partition {' and no partition '.join(lacks)}"
    data = extension.verity.data_blocks * extension.verity.data_block_size
    if data > disk.data.size_bytes:
        return f"{where}: the parameters describe {data} bytes, partition 1 has {disk.data.size_bytes}"
    if hash_bytes(extension.verity) > disk.hashes.size_bytes:
        return (f"{where}: the hash tree takes {hash_bytes(extension.verity)} bytes, "
                f"partition 2 has {disk.hashes.size_bytes}")
    return Pair(extension, disk.data, disk.hashes)


def _refuse(code: Code, wrong: list[str], hint: str = "") -> None:
    if wrong:
        raise NvrcError(code, "; ".join(wrong), hint)


def _disk(system: Files, block: str, serial: bytes) -> Disk:
    try:
        name = read_name(serial.removeprefix(PREFIX).decode("latin-1"))
    except MalformedError as err:
        raise NvrcError("E_EXTENSION_DEVICE", f"device {block}: its serial {serial[:40]!a} names no extension: {err}",
                        "give the disk a serial extension-<name> with a name of the command line") from err
    parts = _partitions(system, block)
    return Disk(name, block, parts.get(DATA), parts.get(HASHES))


def _serial_within(system: Files, block: str, answer_s: float | None) -> bytes:
    """The kernel asks the disk itself, and would wait for ever for one that does not answer."""
    if not system.exists(f"{BLOCK}/{block}/serial"):
        return b""
    from nvrc.machine.patience import DISK_ANSWER_S, run_within  # what a machine without disks goes without
    from nvrc.machine.wait import OverdueError

    limit_s = DISK_ANSWER_S if answer_s is None else answer_s
    try:
        return run_within(limit_s, lambda: _serial(system, block))
    except OverdueError as err:
        raise NvrcError("E_EXTENSION_DEVICE", f"device {block} does not tell its serial within {limit_s:g} s",
                        "find on the host the disk of the VM that does not answer, or detach it") from err


def _serial(system: Files, block: str) -> bytes:
    """The disk's serial; empty for a kind of disk that has none, or one that just went away."""
    try:
        return system.read(f"{BLOCK}/{block}/serial", _SERIAL_LIMIT).removesuffix(b"\n").rstrip(b"\0")
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as err:
        raise NvrcError("E_EXTENSION_DEVICE", f"device {block}: its serial cannot be read: {err.strerror}") from err


def _partitions(system: Files, block: str) -> dict[int, Partition]:
    """The partitions that sysfs shows completely, by number."""
    found: dict[int, Partition] = {}
    for entry in _entries(system, f"{BLOCK}/{block}"):
        folder = f"{BLOCK}/{block}/{entry}"
        number = _attribute(system, f"{folder}/partition")
        if number is None:
            continue
        size, device = _attribute(system, f"{folder}/size"), _attribute(system, f"{folder}/dev")
        if size is None or device is None:
            continue
        major, colon, minor = device.partition(":")
        if not (colon and all(is_number(text, 19) for text in (number, size, major, minor))):
            raise NvrcError("E_EXTENSION_LAYOUT", f"{folder}: partition {number[:20]!a}, size {size[:20]!a} and dev "
                            f"{device[:20]!a} are not numbers")
        if int(number) in found:
            raise NvrcError("E_EXTENSION_LAYOUT", f"device {block} has two partitions {int(number)}")
        found[int(number)] = Partition(device, int(size) * SECTOR)
    return found


def _entries(system: Files, folder: str) -> tuple[str, ...]:
    try:
        return system.list_dir(folder)
    except OSError:
        return ()


def _attribute(system: Files, path: str) -> str | None:
    """An attribute's text; None where it does not exist. While a disk appears its attributes come one by one."""
    try:
        return system.read(path, 64).decode("latin-1").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as err:
        raise NvrcError("E_EXTENSION_LAYOUT", f"{path}: {err.strerror}") from err
