# SPDX-License-Identifier: Apache-2.0
"""Headers of a tar archive that are about others: what they may say, and that all readers of it agree."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
import zlib
from pathlib import Path

import pytest

from fakes.tars import END, block, entry, gnu, header, old_sparse, pax
from nvrc_build.ground.errors import BuildError
from nvrc_build.supply.extract import extract
from nvrc_build.supply.tar import open_tar

SPARSE = (("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.name", "x"), ("GNU.sparse.realsize", "9"))


def unpack(folder: Path, data: bytes) -> Path:
    (folder / "a.tar").write_bytes(data)
    extract("agent", folder / "a.tar", folder / "out")
    return folder / "out"


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["GNU", "pax"])
def test_what_tarfile_writes_is_read_as_it_reads_it(tmp_path: Path, form: int) -> None:
    """Long names and targets, other letters, times in parts of a second, sizes: of each a header of its own."""
    long, out = "/".join(["é" * 60] * 4), io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, kind, target, data in (("a", tarfile.REGTYPE, "", b"abc"), (f"{long}/x", tarfile.REGTYPE, "", b"x" * 600),
                                         (f"{long}/l", tarfile.SYMTYPE, f"é/{long}", b""), ("d/", tarfile.DIRTYPE, "", b"")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size, info.mtime = kind, target, len(data), 1.5
            tar.addfile(info, io.BytesIO(data))
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as theirs, open_tar(stream=io.BytesIO(out.getvalue())) as ours:
        rows = [[(one.name, one.type, one.linkname, one.size, one.mtime, one.offset, one.offset_data) for one in tar]
                for tar in (theirs, ours)]
    assert rows[0] == rows[1]
    assert (unpack(tmp_path, out.getvalue()) / long / "x").read_bytes() == b"x" * 600


def test_attributes_of_an_archive_are_not_taken_along(tmp_path: Path) -> None:
    """Neither a capability nor an access list gets into an image that way."""
    said = pax(("SCHILY.xattr.security.capability", "\1\0\0\2\0\x20"), ("LIBARCHIVE.xattr.user.x", "eA=="), ("SCHILY.acl.access", "u::rwx"))
    done = unpack(tmp_path, said + entry("x", b"abc") + END)
    assert (done / "x").read_bytes() == b"abc"


@pytest.mark.parametrize(("data", "words"), [
    (header("x", tarfile.XHDTYPE, 4 << 30), "a header has 4294967296 bytes; 1048576 is the limit"),
    (header("x", tarfile.GNUTYPE_LONGNAME, 4 << 30), "a header has 4294967296 bytes"),
    (header("x", tarfile.XGLTYPE, 4 << 30), "a header has 4294967296 bytes"),
    (header("x", tarfile.XHDTYPE, 6000), "it is cut short in a header"),
    (entry("x", b"1" * (1 << 20), tarfile.XHDTYPE), "it has a damaged header"),
    (entry("x", b"0 path=x\n", tarfile.XHDTYPE), "it has a damaged header"),
    (entry("x", b"99 path=x\n", tarfile.XHDTYPE), "it has a damaged header"),
    (entry("x", b"9 path:x\n", tarfile.XHDTYPE), "it has a damaged header"),
    (entry("x", b"9 path=xy", tarfile.XHDTYPE), "it has a damaged header"),
    (pax(("size", "1_0")), "a header gives one member a size of '1_0'"),
    (pax(("size", "-1")), "a header gives one member a size of '-1'"),
    (pax(("mtime", "nan")), "a header gives one member a mtime of 'nan'"),
    (pax(*SPARSE) + entry("x", b"9\n" * 300), "a header says of a member that it is sparse: GNU.sparse.major"),
    (pax(("GNU.sparse.map", "0,1")), "a header says of a member that it is sparse: GNU.sparse.map"),
    (old_sparse(), "'holes' is sparse"),
    (pax(("path", "y"), kind=tarfile.XGLTYPE), "a header gives all members one path"),
    (pax(("GNU.sparse.name", "y"), kind=tarfile.XGLTYPE), "a header gives all members one GNU.sparse.name"),
    (pax(("path", "y"), ("path", "z")), "a header gives one member two of path"),
    (gnu("y") + pax(("path", "z")), "two headers give one member a path"),
    (pax(("path", "z")) + gnu("y"), "two headers give one member a path"),
    (gnu("y") + gnu("z"), "two headers give one member a path"),
    (gnu("y", tarfile.GNUTYPE_LONGLINK) + pax(("linkpath", "z")), "two headers give one member a linkpath"),
    (pax(("path", "y")) + pax(("comment", "x"), kind=tarfile.XGLTYPE), "a header about all members lies between"),
])
def test_what_a_header_may_not_say(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(BuildError, match=rf"agent a\.tar cannot be unpacked: {words}"):
        unpack(tmp_path, data + entry("x", b"abc") + END)
    assert not (tmp_path / "out").exists()


def test_a_comment_for_all_members_is_one(tmp_path: Path) -> None:
    """Of git archive; it is copied for no member."""
    data = pax(*((f"comment{number}", "") for number in range(2000)), kind=tarfile.XGLTYPE) + entry("x", b"abc") + END
    assert (unpack(tmp_path, data) / "x").read_bytes() == b"abc"
    with open_tar(tmp_path / "a.tar") as tar:
        assert (tar.pax_headers, tar.getmembers()[0].pax_headers) == ({}, {})


@pytest.mark.parametrize("kind", [tarfile.DIRTYPE, tarfile.SYMTYPE], ids=["folder", "link"])
def test_what_has_no_content_has_none(tmp_path: Path, kind: bytes) -> None:
    """One reader would pass over it, another would take it for members."""
    inner = entry("evil", b"x")
    with pytest.raises(BuildError, match="cannot be unpacked") as caught:
        unpack(tmp_path, header("d", kind, len(inner), "t") + inner + END)
    assert caught.value.findings[0] == f"'d': has a size of {len(inner)}"


@pytest.mark.long
def test_names_of_a_megabyte_each_do_not_add_up(tmp_path: Path) -> None:
    """A compressed archive has them for nothing."""
    data = zlib.compress((gnu("a" * 1_000_000) + entry("x")) * 100 + END, 1, wbits=31)
    tracemalloc.start()
    try:
        with pytest.raises(BuildError, match="cannot be unpacked") as caught:
            unpack(tmp_path, data)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "has a name longer than 255 bytes" in caught.value.findings[0]
    assert most < 20_000_000


def test_a_member_is_as_large_as_its_own_header_says(tmp_path: Path) -> None:
    data = pax(("size", "3")) + header("x", size=2048) + block(b"abc") + entry("y", b"def") + END
    done = unpack(tmp_path, data)
    assert {path.name: path.read_bytes() for path in done.iterdir()} == {"x": b"abc", "y": b"def"}
