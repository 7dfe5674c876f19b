# SPDX-License-Identifier: Apache-2.0
"""What a manifest says to people: inspect, diff, treemap; and the trust documents made from it."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nvrc_build.ground.errors import BuildError
from nvrc_build.output.verity import parse_parameters
from nvrc_build.papers import diff, inspect
from nvrc_build.papers.inventory import Inventory, find_manifest, read_inventory
from nvrc_build.papers.treemap import Box, render_treemap, squarify

LINE = f"root_hash={'cd' * 32},salt={'ab' * 32},data_blocks=2,data_block_size=4096,hash_block_size=4096"


def row(path: str, size: int, slice_name: str = "base", **more: str) -> dict[str, object]:
    return {"path": path, "kind": "file", "mode": "0644", "owner": "0:0", "slice": slice_name, "size": size,
            "sha256": f"{size:064x}", **more}


def inventory(folder: Path, *files: dict[str, object], image: str = "lab", image_format: str = "initrd",
              packages: tuple[tuple[str, str], ...] = (("libc6", "1"),)) -> Inventory:
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps({
        "version": 1, "image": image, "format": image_format, "parts": {"initrd": "00"},
        "packages": [{"name": name, "version": version} for name, version in packages], "files": files}))
    return read_inventory(folder / "manifest.json")


def test_a_summary_names_every_slice_heaviest_first(tmp_path: Path) -> None:
    image = inventory(tmp_path / "a", row("/a", 2_000_000), row("/b", 500), row("/c", 5_000_000, "nvrc"))
    lines = inspect.summarise(image).splitlines()
    assert lines[0] == "lab (initrd): 7.0 MB unpacked, 1 packages"
    assert [line.split()[:3] for line in lines[3:5]] == [["nvrc", "1", "5.0"], ["base", "2", "2.0"]]
    assert inspect.list_heaviest(image).splitlines()[0].split() == ["5.0", "MB", "/c", "(nvrc,", "declared)"]


def test_a_summary_says_what_becomes_of_modules_that_the_kernel_does_not_know(tmp_path: Path) -> None:
    image = inventory(tmp_path / "a", row("/a", 1))
    assert "driver modules" not in inspect.summarise(image)
    document = json.loads((tmp_path / "a/manifest.json").read_text())
    document["module_signing"] = {"with_module_sig_enforce": "these modules are refused"}
    (tmp_path / "a/manifest.json").write_text(json.dumps(document))
    assert inspect.summarise(read_inventory(tmp_path / "a/manifest.json")).splitlines()[-1] == (
        "  driver modules have a key of this build: under module.sig_enforce=1 these modules are refused")


def test_a_table_for_a_document_has_every_slice_and_the_sum(tmp_path: Path) -> None:
    image = inventory(tmp_path / "a", row("/x/a", 2_000_000), row("/b", 600_000), row("/c", 5_000_000, "nvrc"))
    (tmp_path / "a/initrd").write_bytes(b"x" * 100_000)
    assert inspect.tabulate(image).splitlines() == [
        "| slice of `lab` | files | MB | heaviest |", "|---|---|---|---|", "| nvrc | 1 | 5.0 | c 5.0 |",
        "| base | 2 | 2.6 | a 2.0, b 0.6 |", "| **unpacked** | 3 | **7.6** | |", "| **initrd** | | **0.1** | |"]


def test_a_diff_says_what_entered_left_and_changed(tmp_path: Path) -> None:
    old = inventory(tmp_path / "a", row("/same", 1), row("/gone", 10), row("/grew", 100), row("/mode", 5))
    new = inventory(tmp_path / "b", row("/same", 1), row("/new", 7, "x"), row("/grew", 150),
                    row("/mode", 5, mode="0755"), packages=(("libc6", "2"), ("zlib1g", "1")))
    found = diff.compare(old, new)
    assert found.packages == ("libc6: 1 -> 2", "zlib1g: new, 1")
    assert [(change.path, change.what, change.bytes_more) for change in found.changes] == [
        ("/gone", "removed", -10), ("/grew", "content", 50), ("/mode", "mode 0644 -> 0755", 0), ("/new", "added", 7)]
    assert found.by_slice() == {"base": 40, "x": 7}
    assert diff.render(found).splitlines() == [
        "package libc6: 1 -> 2", "package zlib1g: new, 1", "           -10  /gone  removed", "           +50  /grew  content",
        "            +0  /mode  mode 0644 -> 0755", "            +7  /new  added", "           +40  in slice base",
        "            +7  in slice x", "           +47  bytes unpacked, 4 entries"]


def test_equal_images_have_no_difference(tmp_path: Path) -> None:
    image = inventory(tmp_path / "a", row("/same", 1))
    assert not diff.compare(image, image)
    assert diff.render(diff.compare(image, image)) == "no difference\n"


@pytest.mark.parametrize("text", ["", "[]", '{"version": 2}', '{"version": 1}', "{not json"])
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(BuildError, match="build the image again"):
        read_inventory(tmp_path / "manifest.json")


def test_an_image_is_found_by_name_folder_or_manifest(tmp_path: Path) -> None:
    inventory(tmp_path / "lab", row("/a", 1))
    path = tmp_path / "lab/manifest.json"
    assert find_manifest("lab", tmp_path) == find_manifest(str(path.parent), tmp_path) == path
    with pytest.raises(BuildError, match="there is no image 'other'"):
        find_manifest("other", tmp_path)


@pytest.mark.parametrize("sizes", [[1], [5, 3, 2], [100, 1, 1, 1, 1], list(range(60, 0, -1))])
def test_treemap_boxes_fill_the_area_and_keep_proportion(sizes: list[int]) -> None:
    boxes = list(squarify(sizes, Box(x=0, y=0, width=400, height=300)))
    areas = [box.width * box.height for box in boxes]
    assert sum(areas) == pytest.approx(400 * 300)
    for size, area in zip(sizes, areas, strict=True):
        assert area == pytest.approx(size / sum(sizes) * 400 * 300)
    for box in boxes:
        assert box.x >= -1e-6
        assert box.y >= -1e-6
        assert box.x + box.width <= 400 + 1e-6
        assert box.y + box.height <= 300 + 1e-6


def test_a_treemap_is_well_formed_and_escapes_names(tmp_path: Path) -> None:
    image = inventory(tmp_path / "a", row("/usr/<b>&c", 3_000_000), row("/d", 9_000_000, "nvrc"))
    tree = ElementTree.fromstring(render_treemap(image))
    titles = [title.text for title in tree.iter("{http://www.w3.org/2000/svg}title")]
    assert titles == ["slice nvrc: 9.0 MB", "/d: 9.0 MB", "slice base: 3.0 MB", "/usr/<b>&c: 3.0 MB"]


def test_the_kernel_gets_the_flags_of_the_file_system() -> None:
    found = parse_parameters(LINE)
    assert found.root_parameters().endswith(" root=/dev/dm-0 rootflags=ro rootfstype=erofs")
    assert found.root_parameters(fstype="ext4").endswith(
        " root=/dev/dm-0 rootflags=data=ordered,errors=remount-ro ro rootfstype=ext4")
