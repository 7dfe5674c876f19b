# SPDX-License-Identifier: Apache-2.0
"""A scenario's initdata: the disks, whole or damaged, and with what the imitated TEE says it was started."""

from __future__ import annotations

from pathlib import Path

from nvrc.params.initdata import HEADER, MAGIC, PACKED_LIMIT, SECTOR, TEXT_LIMIT, read_initdata
from nvrc.params.initdata_make import make_document, pack_disk
from nvrc_build.output.disk import Partition, boot_record
from nvrc_lab.qemu.machine import Disk
from nvrc_lab.scenario.values import DiskDamage, Hardware, Initdata, Tee

HOST_DATA = 32
TEE_MODULES = ("/lab/configfs.ko", "/lab/tsm.ko")


def make_disks(machine: Hardware, folder: Path) -> tuple[Disk, ...]:
    """In front of any other disk, as the agent takes the first that has it."""
    if machine.initdata is None or machine.initdata.kept_back:
        return ()
    path = folder / "initdata.img"
    path.write_bytes(make_content(machine.initdata))
    disk = Disk(path=path)
    if machine.initdata.damage is DiskDamage.TWO_DISKS:
        return disk, disk
    return (disk, _in_partition(path, folder)) if machine.initdata.damage is DiskDamage.PARTITION else (disk,)


def _in_partition(path: Path, folder: Path) -> Disk:
    place, content = Partition(start=SECTOR, size=path.stat().st_size), path.read_bytes()
    disk = folder / "initdata-partition.img"
    disk.write_bytes(boot_record((place,), 1) + content)
    return Disk(path=disk)


def make_content(initdata: Initdata) -> bytes:
    damage, content = initdata.damage, pack_disk(_document(initdata))
    if damage is DiskDamage.BOMB:
        return pack_disk(bytes(16 * TEXT_LIMIT))
    if damage is DiskDamage.TOO_LARGE:
        return MAGIC + (PACKED_LIMIT + 1).to_bytes(8, "little") + bytes(2 * PACKED_LIMIT)
    if damage is DiskDamage.CUT_SHORT:
        length = int.from_bytes(content[len(MAGIC):HEADER], "little") // 2
        cut = MAGIC + length.to_bytes(8, "little") + content[HEADER:HEADER + length]
        return cut + bytes(-len(cut) % SECTOR)
    return content


def tee_modules(machine: Hardware) -> tuple[str, ...]:
    """What is in the kernel before the init starts, where the guest is in a TEE."""
    if machine.tee is Tee.NONE:
        return ()
    return (*TEE_MODULES, f"/lab/lab_tee.ko host_data={_host_data(machine).hex()}")


def _host_data(machine: Hardware) -> bytes:
    if machine.tee is Tee.NO_INITDATA or machine.initdata is None:
        return bytes(HOST_DATA)
    value = read_initdata(_document(machine.initdata)).bound(HOST_DATA)
    return value if machine.tee is Tee.MATCHING else bytes([value[0] ^ 1]) + value[1:]


def _document(initdata: Initdata) -> bytes:
    return make_document(initdata.entries, "sha256")
