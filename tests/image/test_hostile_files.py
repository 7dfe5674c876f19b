# SPDX-License-Identifier: Apache-2.0
"""Files that hostile hands made, one reader after another: each gives a finding in words, none a traceback."""

from __future__ import annotations

import io
import lzma
import random
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes.elves import make_elf
from nvrc_build.after.contents import _add, read_cpio
from nvrc_build.after.overlay_image import _read_json
from nvrc_build.after.varstore import certificates
from nvrc_build.declared.toml import Findings, read_toml
from nvrc_build.ground.errors import BuildError
from nvrc_build.output.disk import read_partition
from nvrc_build.output.pack import detect_filesystem, is_plain
from nvrc_build.papers.inventory import read_inventory
from nvrc_build.products.kernel import _read, read_module
from nvrc_build.supply.extract import extract
from nvrc_build.supply.scripts import read_scripts
from nvrc_build.tree.cpio import write_cpio
from nvrc_build.tree.tree import Origin, Tree

DEEP = 20_000
ELF = make_elf(["liba.so"], soname="libx.so")
MANIFEST = b'{"version": 1, "image": "x", "format": "cpio", "parts": {}, "packages": [], "files": []}'
DISK = b"\0" * 446 + b"\x80" + b"\xff" * 15 + b"\0" * 48 + b"\x55\xaa"


@dataclass(frozen=True)
class Anything:
    b: int = 0


def toml(path: Path) -> None:
    findings = Findings()
    read_toml(Anything, path, findings, path.name)
    findings.raise_if_any("declaration")


def tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("preinst", "b", "é" * 90):
            member = tarfile.TarInfo(name)
            member.size = 3
            archive.addfile(member, io.BytesIO(b"abc"))
    return out.getvalue()


def deb(control: bytes) -> bytes:
    """A package whose control archive is these bytes."""
    members = ((b"debian-binary", b"2.0\n"), (b"control.tar", control), (b"data.tar", tar()))
    return b"!<arch>\n" + b"".join(
        b"%-16s%-12d%-6d%-6d%-8s%-10d`\n%s%s" % (name, 0, 0, 0, b"100644", len(data), data, b"\n" * (len(data) % 2))
        for name, data in members)


def unpack(path: Path) -> None:
    extract("driver", path, path.parent / "out")


def cpio() -> bytes:
    tree = Tree()
    tree.add_file("/etc/x", b"abc", Origin(slice="x"))
    tree.add_link("/bin", "usr/bin", Origin(slice="x"))
    return b"".join(write_cpio(tree, 0))


FILE, LINK = 0o100755, 0o120777


def members(*rows: tuple[str, int, int, bytes]) -> bytes:
    """By name, mode, links and content."""
    out = b""
    for name, mode, links, data in (*rows, ("TRAILER!!!", 0, 1, b"")):
        text = name.encode() + b"\0"
        head = b"070701" + b"".join(b"%08X" % field for field in (1, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(text), 0)) + text
        out += head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
    return out


def changed(data: bytes, at: int, piece: bytes) -> bytes:
    return data[:at] + piece + data[at + len(piece):]


def read_initrd(path: Path) -> None:
    tree = Tree()
    for name, mode, content in read_cpio(path.read_bytes()):
        _add(tree, name, mode, content, Origin(slice="x"))


# The header of the second member, with a file's size 54 bytes behind its beginning.
FILE_AT = cpio().index(b"070701", 6)
Reader = Callable[[Path], object]
READERS: dict[str, tuple[Reader, bytes]] = {
    "toml": (toml, b'b = 1\n[a]\nb = [1, 2, {c = "d"}]\n'),
    "manifest": (read_inventory, MANIFEST),
    "json": (_read_json, MANIFEST),
    "tar": (unpack, tar()),
    "cpio": (read_initrd, cpio()),
    "module": (lambda path: read_module(path, path.name), ELF),
    "module.ko.xz": (lambda path: read_module(path, path.name), lzma.compress(ELF)),
    "deb": (read_scripts, deb(tar())),
    "disk": (lambda path: read_partition(path, 1, path.with_name("out")), DISK),
    "file system": (detect_filesystem, b"\0" * 1024 + b"\xe2\xe1\xf5\xe0" + b"\0" * 60),
    "variables": (lambda path: certificates(path.read_bytes()), b"\0" * 300),
}


@pytest.mark.parametrize(("reader", "data"), [
    pytest.param("toml", b"a = " + b"[" * DEEP, id="toml: nested without end"),
    pytest.param("toml", b"a = " + b"9" * 5000, id="toml: a number without end"),
    pytest.param("toml", b"a = '\xff'", id="toml: no text"),
    pytest.param("manifest", b"[" * DEEP, id="manifest: nested without end"),
    pytest.param("manifest", b'{"version": 1, "files": [{"path": []}]}', id="manifest: other types"),
    pytest.param("json", b"[" * DEEP, id="json: nested without end"),
    pytest.param("module", b"\x7fELF" + b"\xff" * 100, id="module: no header"),
    pytest.param("module", b"text", id="module: no ELF file"),
    pytest.param("module.ko.xz", b"\xfd7zXZ\0" + b"\0" * 40, id="module: damaged xz"),
    pytest.param("deb", b"!<arch>\n", id="deb: empty"),
    pytest.param("deb", deb(b"x" * 2048), id="deb: control archive that is none"),
    pytest.param("deb", deb(tar()[:700]), id="deb: control archive that is cut"),
    pytest.param("tar", b"\0" * 100, id="tar: nothing"),
    pytest.param("cpio", b"", id="cpio: nothing"),
    pytest.param("cpio", cpio()[:-124], id="cpio: without its trailer"),
    pytest.param("cpio", cpio()[:FILE_AT + 130], id="cpio: cut in a file"),
    pytest.param("cpio", changed(cpio(), 6, b"-0000001"), id="cpio: a sign for a digit"),
    pytest.param("cpio", changed(cpio(), FILE_AT + 54, b"-00000FF"), id="cpio: a size below nothing, which would go in circles"),
    pytest.param("cpio", changed(cpio(), FILE_AT + 54, b"7FFFFFFF"), id="cpio: a size beyond its end"),
    pytest.param("cpio", changed(cpio(), 94, b"00000000"), id="cpio: a name of no length"),
    pytest.param("cpio", changed(cpio(), cpio().index(b"etc/x\0"), b"../ab"), id="cpio: a name that leads out"),
    pytest.param("cpio", cpio() + cpio(), id="cpio: a second archive behind it, which the kernel unpacks as well"),
    pytest.param("cpio", cpio() + bytes(512) + b"x", id="cpio: something behind it"),
    pytest.param("cpio", members(("init", FILE, 1, b"a"), ("init", FILE, 1, b"b")), id="cpio: a name twice"),
    pytest.param("cpio", members(("bin", LINK, 1, b"usr/bin"), ("bin/x", FILE, 1, b"b")), id="cpio: below a link"),
    pytest.param("cpio", members(("a", FILE, 2, b""), ("init", FILE, 2, b"b")), id="cpio: a hard link"),
    pytest.param("cpio", members(("x", 0o020666, 1, b"")), id="cpio: a device"),
    pytest.param("cpio", members((".", LINK, 1, b"/x")), id="cpio: a root that is a link"),
    pytest.param("cpio", members(("", FILE, 1, b"")), id="cpio: a name of nothing"),
    pytest.param("cpio", members(("a/" * 1000 + "x", FILE, 1, b"")), id="cpio: a path that takes long to look at, and that the kernel leaves out"),
    pytest.param("cpio", members(("a\nb", FILE, 1, b"")), id="cpio: a line end in a name"),
    pytest.param("cpio", members(("a", LINK, 1, b"\x1b[2J")), id="cpio: an escape in a target"),
    pytest.param("manifest", MANIFEST.replace(b'"image": "x"', b'"image": "\\u001b[2J"'), id="manifest: an escape"),
    pytest.param("manifest", MANIFEST.replace(b'"parts": {}', b'"parts": {"../x": "y"}'), id="manifest: a part elsewhere"),
    pytest.param("manifest", MANIFEST.replace(b"[]}", b'[{"path": "/", "kind": "file", "mode": "0644", "slice": "x", "size": -1}]}'),
                 id="manifest: a size below nothing"),
    pytest.param("disk", DISK, id="disk: a partition behind its end"),
    pytest.param("file system", b"", id="file system: nothing"),
])
def test_a_hostile_file_is_a_finding(tmp_path: Path, reader: str, data: bytes) -> None:
    path = tmp_path / reader
    path.write_bytes(data)
    with pytest.raises(BuildError) as caught:
        READERS[reader][0](path)
    assert str(caught.value).replace("\n", "").isprintable()


@pytest.mark.long
def test_a_module_is_not_unpacked_beyond_a_size(tmp_path: Path) -> None:
    (tmp_path / "x.ko.xz").write_bytes(lzma.compress(bytes(2 << 20)))
    assert _read(tmp_path / "x.ko.xz", 2 << 20) == bytes(2 << 20)
    with pytest.raises(ValueError, match="unpacks to more than 1048576 bytes"):
        _read(tmp_path / "x.ko.xz", 1 << 20)


@pytest.mark.long
@pytest.mark.parametrize("name", READERS)
def test_no_damage_is_a_traceback(tmp_path: Path, name: str) -> None:
    read, whole = READERS[name]
    chance = random.Random(name)
    for number in range(40 if name == "deb" else 300):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            data[chance.randrange(len(data))] = chance.choice((0, 255, 127, chance.randrange(256)))
        path = tmp_path / f"{number}" / name
        path.parent.mkdir()
        path.write_bytes(bytes(data[:chance.randint(1, len(data))] if chance.random() < 0.3 else data))
        try:
            read(path)
        except BuildError as err:
            assert str(err).replace("\n", "").isprintable()
        shutil.rmtree(path.parent)


@pytest.mark.parametrize(("name", "is_taken"), [
    ("usr/lib/libc.so.6", True), ("a b", True), ('a" security.x\nwrite /etc/passwd', False), ("a\nb", False), ("a\\b", False),
])
def test_names_in_a_script_of_debugfs_mean_themselves(name: str, is_taken: bool) -> None:
    assert is_plain(name) is is_taken


def test_the_whole_package_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.deb"
    path.write_bytes(deb(tar()))
    assert subprocess.run(["dpkg-deb", "--ctrl-tarfile", path], capture_output=True, check=False).returncode == 0
    assert read_scripts(path) == ("preinst",)
