# SPDX-License-Identifier: Apache-2.0
"""The files of a finished image as a tree: of an initrd or a disk, ours or another maker's. Changes nothing."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from nvrc_build.ground.errors import BuildError, WrongCallError
from nvrc_build.output import disk, pack
from nvrc_build.supply.extract import refuse_name
from nvrc_build.tree.tree import Origin, Tree

_PARTS = ("disk.img", "initrd")
_FIELDS = 13
# The digits of all fields, and nothing else that int() would take: a sign, an underscore, 0x.
_HEAD = re.compile(rb"070701[0-9a-fA-F]{104}")
_TRAILER, _CONSOLE = "TRAILER!!!", "/dev/console"


def find_image(name: str, images: Path) -> Path:
    """An image file, a folder with one, or the name of an image below `images`."""
    for place in (Path(name), images / name):
        for path in (place, *(place / part for part in _PARTS)):
            if path.is_file():
                return path
    raise WrongCallError(f"image {name} is missing", "give an image file, a folder with one, or a name in out/images")


def read_tree(image: Path, work: Path, origin: str, *, tools: Path) -> Tree:
    """`work` is a folder of the caller's for what is unpacked, where the tree's files are from then on."""
    tree, named = Tree(), Origin(slice=origin)
    if _is_disk(image):
        disk.read_partition(image, 1, work / "data")
        pack.read_filesystem(work / "data", work / "root", tools=tools)
        for folder, folders, files in os.walk(work / "root"):
            for name in (*folders, *files):
                _add_file(tree, work / "root", Path(folder, name), named)
        return tree
    pack.read_initrd(image, work / "cpio", tools=tools)
    for path, mode, data in read_cpio((work / "cpio").read_bytes()):
        _add(tree, path, mode, data, named)
    return tree


def _is_disk(image: Path) -> bool:
    with image.open("rb") as stream:
        return stream.read(512)[510:] == b"\x55\xaa"


def _add_file(tree: Tree, root: Path, file: Path, origin: Origin) -> None:
    mode = file.lstat().st_mode
    content = os.fsencode(file.readlink()) if stat.S_ISLNK(mode) else file
    _add(tree, f"/{file.relative_to(root)}", mode, content, origin)


def _add(tree: Tree, path: str, mode: int, content: Path | bytes, origin: Origin) -> None:
    if isinstance(content, bytes) and stat.S_ISLNK(mode):
        tree.add_link(path, content.decode(errors="replace"), origin)
    elif stat.S_ISREG(mode):
        tree.add_file(path, content, origin, stat.S_IMODE(mode))
    elif stat.S_ISDIR(mode):
        if path != "/":
            tree.add_folder(path, origin, stat.S_IMODE(mode))
    elif path != _CONSOLE:
        raise BuildError(f"the image's {path!r} is neither a file, nor a folder, nor a link",
                         "leave it out of the image")


def read_cpio(data: bytes) -> Iterator[tuple[str, int, bytes]]:
    """Path, mode and content of each member (newc; Documentation/driver-api/early-userspace/buffer-format.rst).

    What the kernel would make something else of than a reader does is refused: a name that comes twice or lies below a
    link, hard links, and anything behind the end, which it unpacks as well.
    """
    at, seen, links = 0, set[str](), set[str]()
    while (head := _HEAD.match(data, at)) is not None:
        fields = [int(data[at + 6 + 8 * number:at + 14 + 8 * number], 16) for number in range(_FIELDS)]
        size, length = fields[6], fields[11]
        raw, start = data[head.end():head.end() + length], _align(head.end() + length)
        if not length or raw.find(b"\0") != length - 1 or start + size > len(data):
            break
        name = raw[:-1].decode(errors="replace")
        if name == _TRAILER:
            if data[start:].strip(b"\0"):
                raise BuildError(f"the initrd goes on behind its end, at byte {start}", "give an initrd of one archive")
            return
        _check_name(name, fields[1])
        parents = {str(parent) for parent in PurePosixPath(name).parents}
        if name in seen or parents & links or (fields[4] > 1 and stat.S_ISREG(fields[1])):
            raise BuildError(f"the initrd's {name!r} is given twice, lies below a link or has a hard link",
                             "give an initrd made by nvrc-image")
        seen.add(name)
        if stat.S_ISLNK(fields[1]):
            links.add(name)
        yield f"/{name}" if name != "." else "/", fields[1], data[start:start + size]
        at = _align(start + size)
    raise BuildError(f"the initrd is damaged at byte {at}", "give an initrd made by nvrc-image")


def _check_name(name: str, mode: int) -> None:
    """The kernel passes over a path that is too long; a path is asked for each of its parents."""
    reason = refuse_name(PurePosixPath(name), name)
    if not name or (name == "." and not stat.S_ISDIR(mode)):
        reason = "is not a folder, which the root has to be"
    if reason:
        raise BuildError(f"the initrd's {name[:90]!r} {reason}", "give an initrd made by nvrc-image")


def _align(number: int) -> int:
    return -(-number // 4) * 4
