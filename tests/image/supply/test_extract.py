# SPDX-License-Identifier: Apache-2.0
"""Archives of somebody else's: what is refused, what is taken, and that no release of Python decides it."""

from __future__ import annotations

import ast
import io
import os
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.sources import ROOT, nodes_of, tracked
from nvrc_build.ground.errors import BuildError
from nvrc_build.supply import extract as extraction
from nvrc_build.supply.extract import check, extract


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode = kind, link, size, 0o644
    return info


def folder(name: str) -> tarfile.TarInfo:
    return member(name, tarfile.DIRTYPE)


def link(name: str, target: str) -> tarfile.TarInfo:
    return member(name, tarfile.SYMTYPE, target)


def hard(name: str, target: str) -> tarfile.TarInfo:
    return member(name, tarfile.LNKTYPE, target)


def sparse(name: str) -> tarfile.TarInfo:
    found = member(name, size=12 << 30)
    found.sparse = [(0, 0)]  # type: ignore[attr-defined]
    return found


REFUSED = {
    "absolute": ([member("/etc/passwd")], "'/etc/passwd': lies outside the archive's root"),
    "dot-dot": ([member("../x")], "'../x': lies outside"),
    "dot-dot-inside": ([member("a/../../x")], "lies outside"),
    "dot-dot-that-stays": ([member("a/../x")], "lies outside"),
    "device": ([member("dev/sda", tarfile.BLKTYPE)], "'dev/sda': is neither a file, nor a folder, nor a link"),
    "character-device": ([member("dev/kmsg", tarfile.CHRTYPE)], "is neither a file"),
    "pipe": ([member("run/pipe", tarfile.FIFOTYPE)], "is neither a file"),
    "a-type-nobody-knows": ([member("x", b"Z")], "is neither a file"),
    "link-out": ([link("a", "..")], "'a': is a link to '..', outside the archive's root"),
    "link-out-from-below": ([link("a/b/c", "../../../x")], "outside the archive's root"),
    "link-to-an-absolute-path": ([link("a", "/etc")], "is a link to '/etc', outside the archive's root"),
    "link-that-a-link-would-lead-out": ([link("d/e/a", "../.."), link("c", "d/e/a/../x")], "with '..' behind a name"),
    "link-to-nothing": ([link("a", "")], "is a link to nothing that could exist"),
    "link-to-too-much": ([link("a", "x/" * 3000)], "is a link to nothing that could exist"),
    "below-a-link": ([link("a", "b"), member("a/x")], "'a/x': lies below 'a', which is a link"),
    "below-a-file": ([member("a"), member("a/b/x")], "'a/b/x': lies below 'a', which is a file"),
    "a-folder-and-a-link": ([member("a/x"), link("a", "b")], "'a': is given twice, as a folder and as a link"),
    "a-link-and-a-file": ([link("a", "b"), member("a")], "'a': is given twice, as a link and as a file"),
    "the-root-as-a-file": ([member(".")], "'.': is given twice, as a folder and as a file"),
    "the-root-as-a-link": ([link("./", "x")], "outside the archive's root"),
    "hard-link-out": ([hard("a", "../../etc/shadow")], "is a hard link to '../../etc/shadow', which is not a file"),
    "hard-link-to-an-absolute-path": ([hard("a", "/etc/shadow")], "is a hard link to '/etc/shadow', which is not a file"),
    "hard-link-to-a-link": ([link("a", "b"), hard("c", "a")], "is a hard link to 'a', which is not a file"),
    "hard-link-to-what-comes-later": ([hard("a", "b"), member("b")], "is a hard link to 'b', which is not a file"),
    "long-name": ([member("é" * 128)], "has a name longer than 255 bytes"),
    "sparse": ([sparse("a")], "'a': is neither a file"),
    "deep": ([member("a/" * 64 + "b")], "or of more than 64 folders"),
    "long-path": ([member("/".join(["a" * 200] * 21))], "has a path longer than 4095 bytes"),
    "line-end": ([member("a\nb")], "'a\\nb': has a name that is not one line of text"),
    "escape": ([member("\x1b]0;x\x07")], "is not one line of text"),
    "direction-of-text": ([member("a\u202egpj.so")], "is not one line of text"),
    "no-text": ([member("a\udcff")], "is not one line of text"),
    "link-with-line-end": ([link("a", "b\nc")], "is a link to nothing that could exist"),
    "negative-size": ([member("a", size=-1)], "has a size of -1"),
}


@pytest.mark.parametrize(("members", "expected"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(members: list[tarfile.TarInfo], expected: str) -> None:
    assert [finding for finding in check(members) if expected in finding], check(members)


TAKEN = {
    "names-with-a-dot": [folder("./"), folder("./a"), member("./a/x"), member(".hidden"), member("a/..x")],
    "links-inside": [link("bin", "usr/bin"), member("usr/bin/sh"), link("usr/lib/x.so", "../lib64/./x.so.1"), link("a/up", "..")],
    "dangling": [link("a", "gone")],
    "hard-link": [member("a/x"), hard("./b", "./a/x")],
    "a-file-twice": [member("a"), member("./a")],
    "sparse": [member("a", tarfile.GNUTYPE_SPARSE)],
    "nothing": [],
}


@pytest.mark.parametrize("members", TAKEN.values(), ids=TAKEN)
def test_what_is_taken(members: list[tarfile.TarInfo]) -> None:
    assert check(members) == ()


def test_a_link_to_an_absolute_path_is_the_images_own() -> None:
    assert check([link("etc/x", "/usr/etc/x")], absolute_links=True) == ()
    assert len(check([link("etc/x", "/usr/etc/x"), member("etc/x/y")], absolute_links=True)) == 1


def pack(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for info, content in members:
            info.size = info.size or len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def changed(info: tarfile.TarInfo, **values: int) -> tarfile.TarInfo:
    for name, value in values.items():
        setattr(info, name, value)
    return info


def test_every_mistake_is_told_and_nothing_is_written(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.tar", (member("good"), b"x"), (member("../bad"), b"x"), (member("dev", tarfile.CHRTYPE), b""))
    with pytest.raises(BuildError) as refused:
        extract("components", archive, tmp_path / "out")
    assert str(refused.value).splitlines() == [
        "components a.tar cannot be unpacked: not all of it is files, folders and links within; make the archive again without "
        "what is refused",
        "  '../bad': lies outside the archive's root", "  'dev': is neither a file, nor a folder, nor a link"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar"]


def test_many_mistakes_are_counted(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.tar", *((member(f"/x{number}"), b"") for number in range(30)))
    with pytest.raises(BuildError, match="cannot be unpacked") as refused:
        extract("components", archive, tmp_path / "out")
    assert (len(refused.value.findings), refused.value.findings[-1]) == (21, "and 10 more")


def test_a_tree_is_laid_out_with_modes_times_and_links(tmp_path: Path) -> None:
    archive = pack(
        tmp_path / "a.tar", (changed(folder("d"), mtime=1000, mode=0o777), b""),
        (changed(member("d/plain"), mode=0o666, mtime=2000, uid=7, gid=7), b"old"), (member("d/plain"), b"new"),
        (changed(member("d/program"), mode=0o6777), b"#!"), (changed(member("d/odd"), mode=0o011), b""),
        (hard("d/same", "d/program"), b""), (link("d/link", "plain"), b""))
    extract("components", archive, tmp_path / "out")
    modes = {path.name: f"{path.lstat().st_mode & 0o7777:o}" for path in (tmp_path / "out/d").iterdir() if not path.is_symlink()}
    assert modes == {"plain": "644", "program": "755", "odd": "600", "same": "755"}
    assert (tmp_path / "out/d/plain").read_bytes() == (tmp_path / "out/d/link").read_bytes() == b"new"
    assert (tmp_path / "out/d/same").samefile(tmp_path / "out/d/program")
    assert (tmp_path / "out/d").stat().st_mtime == 1000
    assert (tmp_path / "out/d/plain").stat().st_uid == os.getuid()


def test_a_path_of_a_hundred_thousand_folders_takes_no_time(tmp_path: Path) -> None:
    """Each of its parents would be asked for, and each has the length of the path."""
    deep = pack(tmp_path / "a.tar", (member("a/" * 100_000 + "x"), b""))
    with pytest.raises(BuildError, match="has a path longer than 4095 bytes"):
        extract("components", deep, tmp_path / "out")


def test_what_it_unpacks_to_is_bounded_before_it_is_unpacked(tmp_path: Path) -> None:
    """To get to the next header tarfile unpacks all between: here it would be looked for without an end."""
    archive = tmp_path / "a.tar"
    with archive.open("wb") as out:
        out.write(member("a", size=24 << 30).tobuf(tarfile.GNU_FORMAT))
        out.truncate(25 << 30)
    with pytest.raises(BuildError, match=r"its files are 25\.8 GB together; 17\.2 GB is the limit"):
        extract("components", archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_more_members_than_an_image_has(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.tar.xz", *((member(f"f{number}"), b"") for number in range(400)), mode="w:xz")
    with tarfile.open(archive) as tar, pytest.raises(tarfile.TarError, match="more than 300 members"):
        extraction.list_members(tar, most=300)


DAMAGE = {
    "cut": lambda data: data[:len(data) // 2],
    "flipped": lambda data: data[:len(data) // 2] + bytes([data[len(data) // 2] ^ 0xFF]) + data[len(data) // 2 + 1:],
    "empty": lambda _data: b"",
    "text": lambda _data: b"not an archive\n" * 100,
}


@pytest.mark.parametrize("mode", ["w:gz", "w:xz", "w:bz2"])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_archive_is_a_finding(tmp_path: Path, mode: str, damage: Callable[[bytes], bytes]) -> None:
    content = random.Random(1).randbytes(20_000)
    archive = pack(tmp_path / "a.tar", (member("x"), content), mode=mode)
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(BuildError, match=r"^agent a\.tar cannot be unpacked: .+; give a tar archive or a folder"):
        extract("agent", archive, tmp_path / "out")


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE],
                         ids=["long names", "long targets", "extended", "global"])
def test_headers_about_headers_without_end_are_a_finding(tmp_path: Path, kind: bytes) -> None:
    """Python's own reader goes one call deeper for each."""
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, 12
    one = header.tobuf(tarfile.GNU_FORMAT) + b"12 path=abc\n".ljust(tarfile.BLOCKSIZE, b"\0")
    (tmp_path / "a.tar").write_bytes(one * 2000 + pack(tmp_path / "b.tar", (member("x"), b"x")).read_bytes())
    with pytest.raises(BuildError, match=r"^agent a\.tar cannot be unpacked: (two headers give one|a header gives all)"):
        extract("agent", tmp_path / "a.tar", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_behind_the_end_is_not_dropped_in_silence(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.tar", (member("x"), b"x"))
    archive.write_bytes(archive.read_bytes() + pack(tmp_path / "b.tar", (member("y"), b"y")).read_bytes())
    with pytest.raises(BuildError, match="behind its last member is something that is not a member"):
        extract("agent", archive, tmp_path / "out")


@pytest.mark.long
def test_damage_anywhere_is_never_a_traceback(tmp_path: Path) -> None:
    """Bytes changed at random in a plain archive: it is unpacked inside its folder, or refused."""
    original = pack(tmp_path / "a.tar", (folder("d"), b""), (member("d/x"), b"content" * 100), (link("d/l", "x"), b""),
                    (hard("h", "d/x"), b"")).read_bytes()
    chance = random.Random(7)
    for number in range(300):
        data = bytearray(original)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(3000)] = chance.randrange(256)
        (tmp_path / "b.tar").write_bytes(data)
        try:
            extract("agent", tmp_path / "b.tar", tmp_path / f"deep/{number}")
        except BuildError:
            continue
    assert {path.name for path in tmp_path.iterdir()} <= {"a.tar", "b.tar", "deep"}


def test_a_full_disk_is_not_the_archives_fault(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.tar", (member("x"), b"x"))
    (tmp_path / "out").write_text("a file where the folder should be")
    with pytest.raises(FileExistsError):
        extract("agent", archive, tmp_path / "out")


@pytest.mark.long
def test_nothing_leans_on_filters_that_python_3_11_2_lacks() -> None:
    names = {"extractall", "extract_all", "data_filter", "tar_filter", "fully_trusted_filter", "FilterError"}
    found = [f"{name}:{node.lineno} {node.attr}" for name in tracked("*.py", "dev") if any(each in (ROOT / name).read_text() for each in names)
             for node in nodes_of(ROOT / name) if isinstance(node, ast.Attribute) and node.attr in names]
    assert found == []
