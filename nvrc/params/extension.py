# SPDX-License-Identifier: Apache-2.0
"""What the command line says about an extension image: its name and the five dm-verity items, all of them or nothing.

The value of `kata.extension.<name>.verity_params` is
`root_hash=<hex>,salt=<hex>,data_blocks=<n>,data_block_size=<n>,hash_block_size=<n>` with the items in any order; others
are ignored and named. Bounds are those of dm-verity (Documentation/admin-guide/device-mapper/verity.rst) with SHA-256.
Devices are not looked at here.
"""

from __future__ import annotations

from guest_cdi.lean.light import NamedTuple
from nvrc.params.cmdline import plain, shown
from nvrc.params.values import Kind, MalformedError, read_number

# The runtime puts "extension-<name>" into a virtio-blk serial, and that holds 20 bytes.
NAME_LIMIT = 10
ITEMS = ("root_hash", "salt", "data_blocks", "data_block_size", "hash_block_size")
_NAME_MARKS = "_.-"


class VerityParams(NamedTuple):
    root_hash: str
    salt: str
    data_blocks: int
    data_block_size: int
    hash_block_size: int

    def text(self) -> str:
        return (f"root_hash={self.root_hash},salt={self.salt},data_blocks={self.data_blocks},"
                f"data_block_size={self.data_block_size},hash_block_size={self.hash_block_size}")


class Extension(NamedTuple):
    name: str
    verity: VerityParams


def read_name(given: str) -> str:
    marks = all(c.isalnum() or c in _NAME_MARKS for c in given)
    if not given.isascii() or not marks or not given.strip("."):
        raise MalformedError(f"{shown(given)} is not an extension name (letters, digits, {' '.join(_NAME_MARKS)})")
    if len(given) > NAME_LIMIT:
        raise MalformedError(f"name {shown(given)} has more than the {NAME_LIMIT} characters that fit a disk serial")
    return given


def unknown_items(given: str) -> tuple[str, ...]:
    """Items that nobody here knows. They change nothing; whoever reads the line says so."""
    names = [item.partition("=")[0] for item in given.split(",")]
    return tuple(name for name in names if name not in ITEMS)


def read_verity(given: str) -> VerityParams:
    items: dict[str, str] = {}
    for item in given.split(","):
        name, equals, value = item.partition("=")
        if not equals:
            raise MalformedError(f"{shown(item)} is not item=value")
        if name in items:
            raise MalformedError(f"item {plain(name)} is given twice")
        items[name] = value
    missing = [name for name in ITEMS if name not in items]
    if missing:
        raise MalformedError(f"lacks {', '.join(missing)}")
    return VerityParams(
        root_hash=_hex("root_hash", items["root_hash"], 64, 64),
        # "-" is how veritysetup and the kernel write "no salt".
        salt="-" if items["salt"] == "-" else _hex("salt", items["salt"], 2, 512),
        data_blocks=_number("data_blocks", items["data_blocks"], 1, 1 << 48),
        data_block_size=_block_size("data_block_size", items["data_block_size"]),
        hash_block_size=_block_size("hash_block_size", items["hash_block_size"]),
    )


VERITY = Kind(",".join(f"{item}=..." for item in ITEMS), read_verity)


def _hex(item: str, given: str, shortest: int, longest: int) -> str:
    lowered = given.lower()
    size = str(longest) if shortest == longest else f"an even number from {shortest} to {longest}"
    if len(given) % 2 or not shortest <= len(given) <= longest or lowered.strip("0123456789abcdef"):
        raise MalformedError(f"{item} {shown(given, 16)} is not {size} hexadecimal digits")
    return lowered


def _number(item: str, given: str, low: int, high: int) -> int:
    try:
        return read_number(given, low, high)
    except MalformedError as err:
        raise MalformedError(f"{item} {err}") from None


def _block_size(item: str, given: str) -> int:
    size = _number(item, given, 512, 65536)
    if size & (size - 1):
        raise MalformedError(f"{item} {size} is not a power of two")
    return size
