# SPDX-License-Identifier: Apache-2.0
"""An overlaid disk is an image of its own; and no command ever prints a file that it was given by mistake."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

import pytest

from fakes import tdx
from fakes.documents import unset
from fakes.kata_images import LINE, NVML, make_image
from image.output.test_disk_images import make_disk
from nvrc_build.after import overlay_image
from nvrc_build.after.overlay import Overlaid
from nvrc_build.after.overlay_image import Base, list_components, write_manifest
from nvrc_build.cli import main
from nvrc_build.declared.declared import FileSystem
from nvrc_build.ground.errors import BuildError, printable, reason
from nvrc_build.job import open_supply
from nvrc_build.output.verity import parse_parameters
from nvrc_build.papers import sbom
from nvrc_build.papers.bill import Component
from nvrc_build.papers.inventory import find_manifest, read_inventory
from nvrc_build.supply import supply
from nvrc_build.supply.apt import file_sha256

CACHE = Path(__file__).resolve().parents[3] / "out/cache"
DEB = Component(kind="deb", name="libc6", version="2.41-1", arch="amd64", licences=("LGPL-2.1+",), sha256="ab" * 32)


def row(path: str, slice_name: str, size: int, package: str = "") -> dict[str, object]:
    return {"path": path, "kind": "file", "mode": "0644", "owner": "0:0", "slice": slice_name, "size": size,
            "sha256": f"{size:064x}", **({"package": package} if package else {})}


DONE = Overlaid(verity=parse_parameters(LINE), filesystem="erofs", changes=("added    /new (3 bytes)",), rows=(
    row("/kept", "image", 1), row("/replaced", "overlay", 2), row("/new", "overlay", 3)))


def test_a_file_that_was_left_alone_keeps_its_slice_and_package() -> None:
    below = {"files": [row("/kept", "base", 1, "libc6"), row("/replaced", "base", 9, "zlib1g"),
                       row("/gone", "base", 4, "zlib1g")],
             "packages": [{"name": "libc6", "version": "1"}, {"name": "zlib1g", "version": "1"},
                          {"name": "linux-image-x", "version": "6"}],
             "module_signing": {"with_module_sig_enforce": "refused"}}
    found = write_manifest(below, DONE, "fixed", {"disk.img": "00"})
    assert found["files"] == [row("/kept", "base", 1, "libc6"), row("/replaced", "overlay", 2),
                              row("/new", "overlay", 3)]
    assert found["slices"] == {"base": {"files": 1, "bytes": 1}, "overlay": {"files": 2, "bytes": 5}}
    assert found["packages"] == [{"name": "libc6", "version": "1"}, {"name": "linux-image-x", "version": "6"}]
    assert found["module_signing"] == below["module_signing"]
    assert (found["image"], found["filesystem"], found["parts"]) == ("fixed", "erofs", {"disk.img": "00"})


def test_a_bill_has_all_of_the_image_below_and_the_overlay(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "disk.img").write_bytes(b"disk")
    (folder / "manifest.json").write_text("{}")
    changed = Component(kind="generic", name="fixed-overlay", version="cd" * 8, arch="", licences=(), sha256="")
    disk = Component(kind="generic", name="base", version="unknown", arch="", licences=(),
                     sha256=hashlib.sha256(b"disk").hexdigest())
    base = Base(disk=folder / "disk.img", manifest=folder / "manifest.json")
    assert list_components(base, DONE, "fixed") == (disk, changed) == tuple(sorted((disk, changed)))
    sbom.write_cyclonedx("base", (DEB,), folder / "sbom.cdx.json", 0)
    assert list_components(base, DONE, "fixed") == (DEB, changed)


@pytest.mark.parametrize("rows", ['[{}]', '[{"purl": 1, "name": "x", "version": "1"}]', '[{"purl": "pkg:deb/x", "name": "x"}]',
                                  '[{"purl": "pkg:deb/x", "name": "x", "version": "1", "licenses": [{"license": {}}]}]'])
def test_a_bill_that_is_none_is_a_finding(tmp_path: Path, rows: str) -> None:
    for name, text in (("disk.img", ""), ("manifest.json", "{}"), ("sbom.cdx.json", f'{{"components": {rows}}}')):
        (tmp_path / name).write_text(text)
    with pytest.raises(BuildError, match=r"sbom\.cdx\.json is not a bill of an image"):
        list_components(Base(disk=tmp_path / "disk.img", manifest=tmp_path / "manifest.json"), DONE, "fixed")


def test_a_manifest_whose_rows_are_none_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(b"")
    (tmp_path / "manifest.json").write_text('{"version": 1, "image": "x", "format": "disk", "parts": {}, "packages": [], "files": [{}]}')
    with pytest.raises(BuildError, match=r"manifest\.json is not a manifest of an image"):
        overlay_image._write_papers(Base(disk=tmp_path / "disk.img", manifest=tmp_path / "manifest.json"), DONE, tmp_path, "fixed", 0)


def test_a_file_that_lost_its_capabilities_is_another_one() -> None:
    held = {**row("/kept", "base", 1, "libc6"), "xattrs": {"security.capability": "01"}}
    found = write_manifest({"files": [held]}, DONE, "fixed", {})
    assert found["files"] == list(DONE.rows)


def write_over(folder: Path, **files: str) -> str:
    for name, text in files.items():
        path = folder / name.replace("_", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(folder)


@pytest.mark.qemu
def test_every_command_takes_the_new_image_by_name_and_by_path(tmp_path: Path,
                                                               capsys: pytest.CaptureFixture[str]) -> None:
    images, rest = tmp_path / "images", ["--out", str(tmp_path), "--cache", str(CACHE)]
    tools = supply.root(open_supply(cache=CACHE), "tools")
    bare = make_disk(FileSystem.EROFS, tmp_path / "bare", tools)
    # Over a disk without papers, then over what came of it.
    first = write_over(tmp_path / "first", init="#!", usr_lib_x="x")
    assert main(["overlay", str(bare), first, "--name", "base", *rest]) == 0
    second = write_over(tmp_path / "second", etc_motd="after\n", etc_new="new")
    assert main(["overlay", "base", second, "--name", "fixed", *rest]) == 0
    papers = {"disk.img", "manifest.json", "sbom.cdx.json", "sbom.spdx.json", "verity.txt"}
    assert {path.name for path in images.rglob("*.*") if path.is_file() and path.name != ".lock"} == papers
    base, fixed = (read_inventory(images / name / "manifest.json") for name in ("base", "fixed"))
    assert {path: file.slice for path, file in base.files.items() if file.kind == "file"} == {
        "/etc/motd": "image", "/init": "overlay", "/usr/bin/ping": "image", "/usr/lib/x": "overlay"}
    assert {path for path in fixed.files if fixed.files[path] != base.files.get(path)} == {"/etc/motd", "/etc/new"}
    assert fixed.parts["disk.img"] == file_sha256(images / "fixed/disk.img")
    components = json.loads((images / "fixed/sbom.cdx.json").read_text())["components"]
    assert [row["name"] for row in components] == ["base-overlay", "disk.img", "fixed-overlay"]
    capsys.readouterr()
    for name in ("fixed", *(str(images / "fixed" / part) for part in ("", "manifest.json", "disk.img"))):
        assert main(["inspect", name, *rest]) == 0
        assert main(["kata-config", name, "--runtime-class", "kata-qemu-nvidia-cpu", *rest]) == 0
    shown = capsys.readouterr().out
    assert f'kernel_verity_params = "{(images / "fixed/verity.txt").read_text().strip()}"' in shown
    assert main(["diff", "base", "fixed", *rest]) == 1
    assert "/etc/new  added" in capsys.readouterr().out
    # With nothing over it: the same disk, elsewhere and in its own place.
    (tmp_path / "none").mkdir()
    for words in (("-o", str(tmp_path / "again")), ("--name", "fixed")):
        capsys.readouterr()
        assert main(["overlay", "fixed", str(tmp_path / "none"), *words, *rest, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["schema"], told["changes"], list(unset(told))) == (1, [], [])
    assert len({(folder / "verity.txt").read_text() for folder in (images / "fixed", tmp_path / "again")}) == 1
    assert sorted(path.name for path in images.iterdir()) == ["base", "fixed"]


@pytest.mark.parametrize(("words", "said"), [
    (("image", "-o", "new.img"), "new.img is not a folder, and an image is a folder"),
    (("image", "--name", "a/b"), "'a/b' is not a name of an image"),
    (("image", "--name", ".x"), "'.x' is not a name of an image"),
    (("initrd", "--name", "x"), "image initrd is an initrd, and files are laid over disks only"),
    (("nothing", "--name", "x"), "there is no image 'nothing'"),
])
def test_an_overlay_that_makes_no_image_is_refused(tmp_path: Path, words: tuple[str, ...], said: str,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    for name, image_format in (("image", "disk"), ("initrd", "initrd")):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "manifest.json").write_text(json.dumps({
            "version": 1, "image": name, "format": image_format, "parts": {}, "packages": [], "files": []}))
    assert main(["overlay", words[0], str(tmp_path), *words[1:], "--out", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err


def test_a_folder_that_is_no_image_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "home/letters").mkdir(parents=True)
    with pytest.raises(BuildError, match="exists and is not an image"):
        overlay_image.overlay_image(Base(disk=tmp_path / "x", manifest=None), tmp_path, tmp_path / "home",
                                    tools=tmp_path, epoch=0)
    with pytest.raises(BuildError, match="'a b' is not a name of an image"):
        overlay_image.overlay_image(Base(disk=tmp_path / "x", manifest=None), tmp_path, tmp_path / "a b", tools=tmp_path, epoch=0)


@pytest.mark.parametrize("part", ["vmlinuz", "signing.x509", "disk.img"])
def test_an_image_whose_parts_are_links_is_not_copied_from(tmp_path: Path, part: str) -> None:
    image = make_image(tmp_path / "images", "kata-base")
    (tmp_path / "secret").write_text("of this machine")
    (image / part).unlink(missing_ok=True)
    (image / part).symlink_to(tmp_path / "secret")
    (tmp_path / "new").mkdir()
    base = Base(disk=image / "disk.img", manifest=image / "manifest.json")
    with pytest.raises(BuildError, match=rf"{part}: a link may lead to any file of this machine"):
        overlay_image.overlay_image(base, tmp_path / "new", tmp_path / "made", tools=tmp_path, epoch=0)


@pytest.mark.parametrize("words", [("inspect",), ("measure", "--firmware", "FILE"), ("measure", "--tee", "tdx", "--firmware", "FILE"),
                                   ("sign", "--key", "FILE")], ids=" ".join)
def test_papers_of_any_size_are_not_read_into_memory(tmp_path: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    image = make_image(tmp_path / "images", "nvidia")
    large = image / ("vmlinuz" if "tdx" in words else "manifest.json")
    os.truncate(large, 1 << 40)
    (tmp_path / "firmware").write_bytes(tdx.make_tdvf())
    given = {"FILE": str(tmp_path / "firmware")}
    assert main([words[0], "nvidia", *(given.get(word, word) for word in words[1:]), "--out", str(tmp_path)]) == 1 + ("tdx" in words)
    assert re.search("has more than 64 MiB|at most 536870912 are possible", capsys.readouterr().err)


BINARY = bytes(range(256)) * 4096


@pytest.mark.parametrize("words", [
    ("inspect", "GIVEN"), ("diff", "GIVEN", "GIVEN"), ("kata-config", "GIVEN"), ("enrol", "GIVEN", "--vars", "x", "-o", "y"),
    ("measure", "GIVEN", "--firmware", "x"), ("inspect", "IMAGE"), ("kata-config", "IMAGE"),
    ("measure", "IMAGE", "--firmware", "GIVEN"), ("measure", "IMAGE", "--firmware", "GIVEN", "--compare", "GIVEN"),
    ("kata-config", "IMAGE", "--extension", "gpu=GIVEN"), ("kata-config", "IMAGE", "--class-config", "GIVEN"),
    ("overlay", "GIVEN", "FOLDER", "-o", "FOLDER/new"), ("enrol", "IMAGE", "--vars", "GIVEN", "-o", "FOLDER/y"),
], ids=" ".join)
@pytest.mark.parametrize("binary", [BINARY, BINARY.replace(b"\n", b""), b"\xe2\xe1" * 90_000, b"a" * 1_000_000],
                         ids=["bytes", "one-line", "no-utf8", "letters"])
def test_a_binary_given_by_mistake_is_never_printed(tmp_path: Path, words: tuple[str, ...], binary: bytes,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    """`inspect disk.img` printed 45 MB: the repr of a decoding error holds what could not be decoded."""
    (tmp_path / "given").write_bytes(binary)
    image = tmp_path / "image"
    image.mkdir()
    (image / "manifest.json").write_text(json.dumps({
        "version": 1, "image": "x", "format": "disk", "parts": {}, "packages": [],
        "files": [{"path": path, "kind": "file", "mode": "0644", "slice": "x"} for path in ("/init", NVML)]}))
    for name in ("disk.img", "verity.txt", "signing.x509", "vmlinuz"):
        (image / name).write_bytes(binary)
    places = {"GIVEN": str(tmp_path / "given"), "IMAGE": str(image), "FOLDER": str(tmp_path)}
    for word, place in places.items():
        words = tuple(one.replace(word, place) for one in words)
    main([*words, "--out", str(tmp_path), "--cache", str(tmp_path / "cache")])
    assert not (tmp_path / "cache").exists()
    shown = capsys.readouterr()
    assert len(shown.out) + len(shown.err) < 20_000
    assert all(sign.isprintable() or sign == "\n" for sign in shown.err)


def test_the_parts_of_an_image_lead_to_it(tmp_path: Path) -> None:
    for name in ("disk.img", "manifest.json"):
        (tmp_path / name).write_bytes(b"\xff")
    assert find_manifest(str(tmp_path / "disk.img"), tmp_path) == tmp_path / "manifest.json"


@pytest.mark.parametrize(("line", "expected"), [
    ("ä is fine", "ä is fine"), ("a\x1b[31m\0b", "a\\x1b[31m\\x00b"), ("x" * 3000, "x" * 2000 + "... (3000 characters)"),
], ids=["text", "control", "long"])
def test_what_a_terminal_gets(line: str, expected: str) -> None:
    assert printable(line) == expected
    assert str(BuildError(line, findings=(line,))) == f"{expected}\n  {expected}"


def test_a_decoding_error_says_where_not_what() -> None:
    with pytest.raises(UnicodeDecodeError) as caught:
        (b"a" * 10 + b"\xff" * 100).decode()
    assert reason(caught.value) == "no text, byte 0xff at 10"
