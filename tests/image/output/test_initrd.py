# SPDX-License-Identifier: Apache-2.0
"""An initrd by each compression: what it begins with, what is in it, and that it is the same each time."""

from __future__ import annotations

from pathlib import Path

import pytest

from nvrc_build.after.contents import read_tree
from nvrc_build.declared.declared import Compression
from nvrc_build.job import EPOCH, open_supply
from nvrc_build.output.pack import MAGICS, write_initrd
from nvrc_build.supply import supply
from nvrc_build.tree.tree import Origin, Tree

CACHE = Path(__file__).resolve().parents[3] / "out/cache"
CONTENT = b"of a library that is longer than a block of lz4, " * 200_000
BEGINS = {**{kind: magic for magic, kind in MAGICS.items()}, Compression.STORED: b"0707"}

pytestmark = pytest.mark.qemu


@pytest.fixture(scope="module")
def tools() -> Path:
    return supply.root(open_supply(cache=CACHE), "tools")


@pytest.mark.parametrize("kind", Compression, ids=lambda kind: kind.value)
def test_an_initrd_is_read_back_and_made_the_same_again(tmp_path: Path, tools: Path, kind: Compression) -> None:
    tree = Tree()
    tree.add_file("/usr/lib/library", CONTENT, Origin(slice="test"), mode=0o755)
    tree.add_link("/lib", "usr/lib", Origin(slice="test"))
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_initrd(tree, tmp_path / name / "initrd", kind, tools=tools, epoch=EPOCH)
        made.append((tmp_path / name / "initrd").read_bytes())
    assert made[0] == made[1]
    assert made[0].startswith(BEGINS[kind])
    assert (len(made[0]) < len(CONTENT)) is (kind is not Compression.STORED)
    work = tmp_path / "work"
    work.mkdir()
    found = {entry.path: entry for entry in read_tree(tmp_path / "one/initrd", work, "test", tools=tools)}
    assert found["/usr/lib/library"].read() == CONTENT
    assert found["/lib"].target == "usr/lib"
