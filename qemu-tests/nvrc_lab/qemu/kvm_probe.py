# SPDX-License-Identifier: Apache-2.0
"""A guest of 210 bytes that ends QEMU with a known status if, and only if, 64-bit code ran. Pure data.

It takes the place of the firmware: QEMU maps 64 KiB below 4 GiB and the processor starts 16 bytes before their end.
Real mode alone proves nothing: on a host whose KVM is itself paravirtual, real mode ran and even reached a boot loader,
while the first kernel hung without a word. So the guest turns on paging and long mode, as every kernel must. It needs
isa-debug-exit at PORT: writing v there ends QEMU with status 2 v + 1 (docs/specs in QEMU's source).
"""

from __future__ import annotations

PORT = 0xF4
DEVICE = f"isa-debug-exit,iobase={PORT:#x},iosize=1"
STATUS = 2 * 0x10 + 1
SIZE = 0x10000

# fmt: off
_CODE = bytes.fromhex("".join((
    # 16 bits, CS base 0xffff0000
    "fa",                       # cli
    "2e660f0116d000",           # lgdtl %cs:0xd0
    "0f20c0", "0c01", "0f22c0",  # cr0.PE = 1
    "66ea1800ffff0800",         # ljmpl $8, $0xffff0018
    # 32 bits
    "66b81000", "8ed8", "8ec0", "8ed0",          # ds = es = ss = flat data
    "bc00800000",               # mov $0x8000, %esp
    "31c0", "bf00100000", "b900140000", "f3ab",  # clear the tables from 0x1000 on
    "c7050010000003200000",     # level 4: first entry -> 0x2000
    "c7050020000003300000",     # level 3: 0..1 GiB -> 0x3000
    "c7051820000003400000",     # level 3: 3..4 GiB -> 0x4000
    "c7050030000083000000",     # level 2: first 2 MiB as one page
    "c705f84f00008300e0ff",     # level 2: last 2 MiB below 4 GiB, where this code is
    "b800100000", "0f22d8",     # cr3 = 0x1000
    "0f20e0", "83c820", "0f22e0",                # cr4.PAE = 1
    "b9800000c0", "0f32", "0d00010000", "0f30",  # EFER.LME = 1
    "0f20c0", "0d00000080", "0f22c0",            # cr0.PG = 1
    "ea9800ffff1800",           # ljmpl $24, $0xffff0098
    # 64 bits
    "48c7c400500000", "50", "5b",                # use a stack
    "31c0", "0fa2",             # cpuid
    "b010", f"e6{PORT:02x}",    # outb $0x10, PORT
    "f4", "ebfd",               # hlt for ever
)))
_GDT_AT, _GDTR_AT, _RESET_AT = 0xB0, 0xD0, 0xFFF0
_GDT = bytes.fromhex("0000000000000000" "ffff0000009bcf00" "ffff00000093cf00" "ffff0000009baf00")
_GDTR = bytes.fromhex("1f00" "b000ffff")
_RESET = bytes.fromhex("e90d00")  # jmp to offset 0 of the segment
# fmt: on


def make_firmware() -> bytes:
    image = bytearray(SIZE)
    for at, part in ((0, _CODE), (_GDT_AT, _GDT), (_GDTR_AT, _GDTR), (_RESET_AT, _RESET)):
        image[at:at + len(part)] = part
    return bytes(image)
