# SPDX-License-Identifier: Apache-2.0
"""check-extension on real disks of Kata's layout: EROFS in the first partition, its hash tree in the second."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fakes.documents import unset
from fakes.elves import make_elf, with_versions
from nvrc_build import cli
from nvrc_build.after.extension import MANIFEST
from nvrc_build.declared.declared import FileSystem
from nvrc_build.job import CHECKOUT, EPOCH, open_supply
from nvrc_build.output import disk, pack
from nvrc_build.supply import supply
from nvrc_build.tree.tree import Origin, Tree

CACHE = CHECKOUT / "out/cache"
LIB = "/usr/lib/x86_64-linux-gnu"

pytestmark = pytest.mark.qemu


def write(folder: Path, name: str, files: dict[str, bytes], tools: Path) -> Path:
    tree = Tree()
    for path, data in files.items():
        tree.add_file(path, data, Origin(slice=name), 0o755)
    pack.write_filesystem(FileSystem.EROFS, tree, folder / "data", tools=tools, epoch=EPOCH)
    disk.write_disk(folder / "data", folder / name)
    return folder / name


def test_kata_s_layout_is_read_and_every_finding_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tools = supply.root(open_supply(cache=CACHE), "tools")
    libc = with_versions(make_elf(soname="libc.so.6"), defines=["GLIBC_2.41"])
    base = write(tmp_path, "base.img", {f"{LIB}/libc.so.6": libc, "/usr/bin/dd": make_elf(),
                                        "/usr/sbin/mkfs.ext4": make_elf()}, tools)
    agent = with_versions(make_elf(["libc.so.6"]), needs={"libc.so.6": ["GLIBC_2.43"]})
    coco = write(tmp_path, "coco.img", {
        MANIFEST: b'schema_version = 1\n[[process]]\nid = "aa"\npath = "usr/local/bin/attestation-agent"\n',
        "/usr/local/bin/attestation-agent": agent, "/usr/sbin/cryptsetup": make_elf()}, tools)
    assert cli.main(["check-extension", str(base), str(coco), "--cache", str(CACHE), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["schema"], told["kind"], list(unset(told))) == (1, "coco", [])
    assert told["findings"] == [
        f"/usr/local/bin/attestation-agent needs GLIBC_2.43 of libc.so.6, which {LIB}/libc.so.6 does not have; build it on "
        "the base's distribution"]
    assert cli.main(["check-extension", str(base), str(base), "--cache", str(CACHE)]) == 0
