# SPDX-License-Identifier: Apache-2.0
"""dm-verity over an extension's disk, by ioctl: no veritysetup, no superblock, SHA-256, hash type 1.

The device is opened twice. First with plain I/O errors, to read the first block through it: a root hash, salt or tree
that does not belong to the data shows here, as a failure with a code. Only then the table with the wanted corruption
policy takes its place: were that `panic` from the start, a wrong root hash would end the VM without a word of ours. The
table at work is read back and compared before anybody mounts. Follows
Documentation/admin-guide/device-mapper/verity.rst.
"""

from __future__ import annotations

import errno
import stat

from nvrc.extensions import dm
from nvrc.extensions.disks import SECTOR, Pair
from nvrc.hardware.module_failure import kernel_words
from nvrc.machine.system import Files, Kernel, Node, System
from nvrc.params.values import Corruption
from nvrc.vocabulary.errors import NvrcError

FOLDER = "/dev/mapper"
_PROBE_BYTES = 4096
_OPTIONS = {
    Corruption.IO_ERROR: "",
    Corruption.PANIC: " 1 panic_on_corruption",
    Corruption.RESTART: " 1 restart_on_corruption",
}


def make_table(pair: Pair, corruption: Corruption) -> dm.Table:
    """As the kernel prints it back, so that the two can be compared."""
    verity = pair.extension.verity
    return dm.Table(
        sectors=verity.data_blocks * verity.data_block_size // SECTOR, target="verity",
        params=(f"1 {pair.data.device} {pair.hashes.device} {verity.data_block_size} {verity.hash_block_size} "
                f"{verity.data_blocks} 0 sha256 {verity.root_hash} {verity.salt}{_OPTIONS[corruption]}"))


def open_verity(system: System, pair: Pair, corruption: Corruption) -> bytes:
    """Have /dev/mapper/extension-<name> show verified data only; its first bytes. On failure nothing is left behind."""
    name = device_name(pair)
    numbers = _create(system, pair)
    try:
        _use_table(system, pair, Corruption.IO_ERROR)
        _make_node(system, pair, numbers)
        first = _read_first(system, pair)
        if corruption is not Corruption.IO_ERROR:
            _use_table(system, pair, corruption)
    except BaseException:
        try:
            dm.remove(system, name)
        except OSError:
            pass  # what went wrong first is what has to be told
        raise
    return first


def device_name(pair: Pair) -> str:
    return f"extension-{pair.extension.name}"


def _create(system: Kernel, pair: Pair) -> tuple[int, int]:
    try:
        return dm.create(system, device_name(pair))
    except OSError as err:
        if err.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
            raise _failed(pair, f"{dm.CONTROL} does not work: {err.strerror}",
                          "build the guest kernel with CONFIG_BLK_DEV_DM and CONFIG_DM_VERITY, or add the modules"
                          ) from err
        raise _failed(pair, f"the device {device_name(pair)} cannot be created: {err.strerror}",
                      "another program made a device of that name before, or the device-mapper is damaged") from err


def _use_table(system: Kernel, pair: Pair, corruption: Corruption) -> None:
    """Load a table, put it to work, and see that it is the one at work."""
    table = make_table(pair, corruption)
    try:
        dm.load_table(system, device_name(pair), table)
        dm.activate(system, device_name(pair))
        found = dm.read_table(system, device_name(pair))
    except OSError as err:
        said = kernel_words(system, "device-mapper: table")
        words = f'; the kernel says "{said[-1][:160]}"' if said else ""
        raise _failed(pair, f"dm-verity was refused: {err.strerror}{words}",
                      "build the guest kernel with CONFIG_DM_VERITY and SHA-256; use block sizes up to a page") from err
    if found != table:
        raise _failed(pair, f'the active table is "{found.sectors} {found.target} {found.params[:400]}", not '
                            f'"{table.sectors} {table.target} {table.params}"')


def _make_node(system: System, pair: Pair, numbers: tuple[int, int]) -> None:
    """Without udev there is /dev/dm-<N> only; the name below /dev/mapper is ours to make."""
    path = f"{FOLDER}/{device_name(pair)}"
    try:
        system.make_dir(FOLDER)
        system.make_node(path, Node(stat.S_IFBLK | 0o600, *numbers))
        found = system.find_node(path)
    except OSError as err:
        raise _failed(pair, f"cannot make {path}: {err.strerror}", "/dev must be writable and hold nothing of that name"
                      ) from err
    if found is None or not stat.S_ISBLK(found.mode) or (found.major, found.minor) != numbers:
        raise _failed(pair, f"{path} is not the block device {numbers[0]}:{numbers[1]}")


def _read_first(system: Files, pair: Pair) -> bytes:
    path = f"{FOLDER}/{device_name(pair)}"
    try:
        first = system.read(path, _PROBE_BYTES)
    except OSError as err:
        raise _failed(pair, f"the data do not verify against root hash {pair.extension.verity.root_hash[:16]}... "
                            f"({path}: {err.strerror})") from err
    if not first:
        raise _failed(pair, f"{path} is empty")
    return first


def _failed(pair: Pair, what: str, hint: str = "") -> NvrcError:
    return NvrcError("E_VERITY", f'extension "{pair.extension.name}": {what}', hint)
