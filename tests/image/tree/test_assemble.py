# SPDX-License-Identifier: Apache-2.0
"""Slices and packages into a tree: what enters, what follows by ELF closure, and every refusal in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fakes.declarations import EMPTY
from fakes.elves import make_elf, with_versions
from nvrc_build.declared.declared import Slice
from nvrc_build.declared.parts import FileList, Folder, Link, Take, Text, User
from nvrc_build.ground.errors import BuildError
from nvrc_build.tree.assemble import check_tree, close_libraries, missing_config_paths, select_tree
from nvrc_build.tree.elf import read_needs
from nvrc_build.tree.filelist import read_filelist
from nvrc_build.tree.pool import Pool, pattern_rule
from nvrc_build.tree.tree import Tree

LIB = "/usr/lib/x86_64-linux-gnu"
def take(package: str, *paths: str, count: int = 0, into: str = "", bundle: str = "") -> Take:
    return Take(package=package, paths=paths, count=count, into=into, bundle=bundle)


def put(root: Path, path: str, data: bytes | str, mode: int = 0o644) -> None:
    """A file, or a link when `data` is text."""
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(data, str):
        file.symlink_to(data)
    else:
        file.write_bytes(data)
        file.chmod(mode)


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    put(tmp_path / "tool", "/usr/bin/tool", make_elf(["liba.so.1", "libc.so.6"], interpreter="/lib64/ld.so"), 0o755)
    put(tmp_path / "tool", "/usr/share/doc/tool/copyright", b"text")
    put(tmp_path / "liba", f"{LIB}/liba.so.1", "liba.so.1.2")
    put(tmp_path / "liba", f"{LIB}/liba.so.1.2", make_elf(["libc.so.6"], soname="liba.so.1"))
    put(tmp_path / "libc", f"{LIB}/libc.so.6", make_elf(soname="libc.so.6"))
    put(tmp_path / "libc", "/usr/lib64/ld.so", "../lib/x86_64-linux-gnu/ld.so")
    put(tmp_path / "libc", f"{LIB}/ld.so", make_elf(soname="ld.so"), 0o755)
    put(tmp_path / "old", "/bin/old", make_elf(), 0o755)
    return Pool({path.name: path for path in tmp_path.iterdir()})


def build(pool: Pool, *slices: Slice, files: Path = Path("/nonexistent"), below: Tree | None = None
          ) -> tuple[list[str], list[str]]:
    """The tree as a dump, and the findings."""
    tree, findings = select_tree(slices, pool, files)
    findings += close_libraries(tree, pool, below)
    findings += check_tree(slices, tree, below)
    dump = [f"{entry.path} {entry.kind.value} {entry.origin.slice} {entry.origin.package}{entry.target and ' -> '}"
            f"{entry.target}".rstrip() for entry in tree if entry.origin.slice != "implied"]
    return dump, findings


def test_a_program_brings_its_libraries_its_loader_and_nothing_else(pool: Pool) -> None:
    slices = replace(EMPTY, takes=(take("tool", "/usr/bin/*"),), links=(Link(path="/lib64", target="usr/lib64"),))
    assert build(pool, slices) == ([
        "/lib64 link one  -> usr/lib64",
        "/usr/bin/tool file one tool",
        f"{LIB}/ld.so file one libc",
        f"{LIB}/liba.so.1 link one liba -> liba.so.1.2",
        f"{LIB}/liba.so.1.2 file one liba",
        f"{LIB}/libc.so.6 file one libc",
        "/usr/lib64/ld.so link one libc -> ../lib/x86_64-linux-gnu/ld.so",
    ], [])


def test_an_extension_does_not_carry_what_the_image_below_has(pool: Pool) -> None:
    base = replace(EMPTY, name="base", takes=(take("libc", "/usr/**"),),
                   links=(Link(path="/lib64", target="usr/lib64"),))
    below, _ = select_tree((base,), pool, Path("/nonexistent"))
    dump, findings = build(pool, replace(EMPTY, takes=(take("tool", "/usr/bin/tool"),)), below=below)
    assert findings == []
    assert dump == ["/usr/bin/tool file one tool", f"{LIB}/liba.so.1 link one liba -> liba.so.1.2",
                    f"{LIB}/liba.so.1.2 file one liba"]


def test_files_taken_into_another_folder_keep_their_names(pool: Pool) -> None:
    dump, _ = build(pool, replace(EMPTY, takes=(take("libc", f"{LIB}/libc.so.6", into="/usr/lib"),)))
    assert dump == ["/usr/lib/libc.so.6 file one libc"]


def test_files_taken_into_a_bundle_become_one_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name, text in (("b.crt", b"two"), ("a.crt", b"one\n"), ("c.txt", b"three")):
        put(tmp_path / "ca", f"/usr/share/ca/{name}", text)
    row = replace(EMPTY, takes=(take("ca", "/usr/share/ca/*.crt", bundle="/etc/ssl/certs/all.crt"),))
    tree, findings = select_tree((row,), Pool({"ca": tmp_path / "ca"}), tmp_path)
    entry = tree.get("/etc/ssl/certs/all.crt")
    assert entry is not None
    assert (entry.read(), entry.origin.package, findings) == (b"one\ntwo\n", "ca", [])
    assert tree.get("/usr/share/ca/a.crt") is None


def test_old_places_of_a_package_are_where_they_are_now(pool: Pool) -> None:
    dump, findings = build(pool, replace(EMPTY, takes=(take("old", "/usr/bin/old"),)))
    assert (dump, findings) == (["/usr/bin/old file one old"], [])


@pytest.mark.parametrize(("row", "expected"), [
    pytest.param(replace(EMPTY, takes=(take("gone", "/usr/bin/x"),)),
                 "slice 'one': package gone is not among the image's packages; run: nvrc-image lock", id="package"),
    pytest.param(replace(EMPTY, takes=(take("tool", "/usr/bin/none*"),)),
                 "slice 'one': tool has nothing at /usr/bin/none*", id="matches-nothing"),
    pytest.param(replace(EMPTY, takes=(take("libc", f"{LIB}/*", count=3),)),
                 "slice 'one': libc: 2 files match, 3 must", id="count"),
    pytest.param(replace(EMPTY, links=(Link(path="/a", target="b"),)),
                 "slice 'one': link /a points to /b, which is not in the image", id="dangling-link"),
    pytest.param(replace(EMPTY, links=(Link(path="/a", target="b"), Link(path="/b", target="a"))),
                 "slice 'one': link /a points round in a circle", id="link-circle"),
    pytest.param(replace(EMPTY, expects=("/etc/netconfig",)),
                 "slice 'one': /etc/netconfig must exist and does not", id="expects"),
    pytest.param(replace(EMPTY, takes=(take("liba", f"{LIB}/liba.so.1"),)),
                 f"slice 'one': link {LIB}/liba.so.1 points to {LIB}/liba.so.1.2, which is not in the image",
                 id="link-without-its-library"),
    pytest.param(replace(EMPTY, texts=(Text(path="/usr/bin/su", content="", source="", mode=0o4755),)),
                 "slice 'one': /usr/bin/su is setuid or setgid", id="setuid"),
    pytest.param(replace(EMPTY, texts=(Text(path="/x", content="", source="", mode=0o644),),
                         folders=(Folder(path="/x", mode=0o755),)),
                 "slices 'one' and 'one' disagree on /x: folder 0755 against file 0644 e3b0c44298fc",
                 id="disagreement"),
])
def test_a_finding_names_slice_file_and_reason(pool: Pool, row: Slice, expected: str) -> None:
    _, findings = build(pool, row)
    assert expected in findings


def test_a_missing_library_names_who_needs_it(tmp_path: Path) -> None:
    put(tmp_path / "tool", "/usr/bin/tool", make_elf(["libgone.so.3"]), 0o755)
    _, findings = build(Pool({"tool": tmp_path / "tool"}), replace(EMPTY, takes=(take("tool", "/usr/bin/tool"),)))
    assert findings == ["slice 'one': /usr/bin/tool needs libgone.so.3, which no package of the image has"]


def test_damaged_files_are_told_beside_all_other_findings(tmp_path: Path) -> None:
    for name, data in (("a", make_elf()[:100]), ("b", make_elf(["libgone.so.3"]))):
        put(tmp_path / "tools", f"/usr/bin/{name}", data, 0o755)
    _, findings = build(Pool({"tools": tmp_path / "tools"}), replace(EMPTY, takes=(take("tools", "/usr/bin/a", "/usr/bin/b"),)))
    assert [text.partition(": ELFParseError")[0] for text in findings] == [
        "slice 'one': /usr/bin/b needs libgone.so.3, which no package of the image has",
        "slice 'one': /usr/bin/a is a damaged ELF file"]


@pytest.mark.parametrize(("program", "expected"), [
    (b"root:x:0:0\n", ["slice 'one': /usr/bin/x has the execute bit and is not an ELF file for x86-64"]),
    (b"", ["slice 'one': /usr/bin/x has the execute bit and is not an ELF file for x86-64"]),
    (make_elf()[:18] + b"\xb7\0" + make_elf()[20:],
     ["slice 'one': /usr/bin/x has the execute bit and is not an ELF file for x86-64"]),
    (b"#!", ["slice 'one': /usr/bin/x is a script for '', which is not in the image"]),
    (b"#!/bin/sh -e\n", ["slice 'one': /usr/bin/x is a script for '/bin/sh', which is not in the image"]),
    (b"#! /usr/bin/y\n", []),
    (make_elf(), []),
], ids=["text", "empty", "other-machine", "script-for-nothing", "script-without-shell", "script", "program"])
def test_what_may_be_executed_can_be(tmp_path: Path, program: bytes, expected: list[str]) -> None:
    put(tmp_path / "x", "/usr/bin/x", program, 0o755)
    put(tmp_path / "x", "/usr/bin/y", make_elf(), 0o755)
    put(tmp_path / "x", "/usr/share/y", b"#!/bin/sh\n", 0o644)
    row = replace(EMPTY, takes=(take("x", "/usr/bin/x", "/usr/bin/y", "/usr/share/y"),))
    assert build(Pool({"x": tmp_path / "x"}), row)[1] == expected


@pytest.mark.parametrize(("tool", "libc", "expected"), [
    (with_versions(make_elf(["libc.so.6"]), needs={"libc.so.6": ["GLIBC_2.34", "GLIBC_2.43"]}),
     with_versions(make_elf(soname="libc.so.6"), defines=["libc.so.6", "GLIBC_2.34", "GLIBC_2.41"]),
     [f"slice 'one': /usr/bin/tool needs GLIBC_2.43 of libc.so.6, which {LIB}/libc.so.6 does not have; take one that was "
      "built for the image's distribution"]),
    (with_versions(make_elf(["libc.so.6"]), needs={"libc.so.6": ["GLIBC_2.34"]}),
     with_versions(make_elf(soname="libc.so.6"), defines=["libc.so.6", "GLIBC_2.34"]), []),
    (with_versions(make_elf(["libc.so.6"]), needs={"libc.so.6": ["GLIBC_2.43"]}, weak=True),
     with_versions(make_elf(soname="libc.so.6"), defines=["GLIBC_2.34"]), []),
    (with_versions(make_elf(["libc.so.6"]), needs={"libc.so.6": ["X_1"]}), make_elf(soname="libc.so.6"), []),
], ids=["too-new", "fits", "weak", "library-without-versions"])
@pytest.mark.parametrize("is_below", [False, True], ids=["same-image", "image-below"])
def test_a_program_that_needs_newer_libraries_than_the_image_has_is_refused(
        tmp_path: Path, tool: bytes, libc: bytes, expected: list[str], is_below: bool) -> None:
    """As the loader would at boot: version `GLIBC_2.43' not found (required by ...)."""
    put(tmp_path / "tool", "/usr/bin/tool", tool, 0o755)
    put(tmp_path / "libc", f"{LIB}/libc.so.6", libc)
    pool = Pool({path.name: path for path in tmp_path.iterdir()})
    below = select_tree([replace(EMPTY, takes=(take("libc", f"{LIB}/libc.so.6"),))], pool, tmp_path)[0]
    row = replace(EMPTY, takes=(take("tool", "/usr/bin/tool"),))
    assert build(pool, row, below=below if is_below else None)[1] == expected


def test_what_components_bundle_is_not_put_in_a_packages_place(tmp_path: Path, pool: Pool) -> None:
    """PID 1 would load it, too. What no package has is taken from them."""
    put(tmp_path / "@components", "/usr/bin/hub", make_elf(["liba.so.1", "libown.so.1"]), 0o755)
    for name in ("liba.so.1", "libown.so.1"):
        put(tmp_path / "@components", f"{LIB}/{name}", make_elf(soname=name))
    given = Pool({path.name: path for path in tmp_path.iterdir()})
    dump, findings = build(given, replace(EMPTY, takes=(take("@components", "/usr/bin/hub"),)))
    assert findings == []
    assert [line.split()[-1] for line in dump if "/libown" in line] == ["@components"]
    assert {line.split()[3] for line in dump if "/liba" in line} == {"liba"}


def test_links_into_folders_that_are_filled_at_run_time_are_good(pool: Pool) -> None:
    row = replace(EMPTY, links=(Link(path="/var/run", target="../run"), Link(path="/a", target="/proc/self/mounts")))
    assert build(pool, row)[1] == []


def test_a_configuration_must_not_name_a_path_that_will_not_exist() -> None:
    text = ("# /not/a/setting\nLOG=/run/x.log\nTOPOLOGY_FILE_PATH=/usr/share/gone\n  key: '/etc/there'\n"
            "other /usr/also-gone\nkbs = https://host.test/path\n")
    row = replace(EMPTY, configs=("/etc/app.cfg", "/etc/missing.cfg"), texts=(
        Text(path="/etc/app.cfg", content=text, source="", mode=0o644),
        Text(path="/etc/there", content="", source="", mode=0o644)))
    tree, _ = select_tree((row,), Pool({}), Path("/nonexistent"))
    assert missing_config_paths((row,), tree) == [
        "slice 'one': /etc/app.cfg names /usr/also-gone, which will not exist",
        "slice 'one': /etc/app.cfg names /usr/share/gone, which will not exist",
        "slice 'one': configuration /etc/missing.cfg must exist and does not",
    ]


@pytest.mark.parametrize(("text", "named"), [
    # The one that the guest components' repository has: a socket below /run, which is made at run time.
    ('{\n  "key-providers": {\n    "attestation-agent": {\n'
     '      "ttrpc": "unix:///run/confidential-containers/cdh.sock"\n    }\n  }\n}', ()),
    ('{\n  "a": {"grpc": "http://127.0.0.1:50000"}}', ()),
    ('{\n  "a": {"ttrpc": "unix:///var/cdh.sock"}}', ("/var/cdh.sock",)),
    ('{\n  "a": {"cmd": {"path": "/usr/bin/gone"}}}', ("/usr/bin/gone",)),
], ids=["as-published", "address", "socket-elsewhere", "program"])
def test_the_key_providers_configuration_names_sockets_as_urls(text: str, named: tuple[str, ...]) -> None:
    row = replace(EMPTY, configs=("/etc/x.json",), texts=(Text(path="/etc/x.json", content=text, source="", mode=0o644),))
    tree, _ = select_tree((row,), Pool({}), Path("/nonexistent"))
    assert missing_config_paths((row,), tree) == [
        f"slice 'one': /etc/x.json names {path}, which will not exist" for path in named]


def test_users_of_all_slices_become_accounts_without_a_shell() -> None:
    base = replace(EMPTY, users=(User(name="nobody", number=65534, group="nogroup", home="/nonexistent"),
                                 User(name="root", number=0, group="", home="/root")))
    more = replace(EMPTY, name="two", users=(User(name="dcgm", number=990, group="", home="/nonexistent"),))
    tree, findings = select_tree((base, more), Pool({}), Path("/nonexistent"))
    passwd, group = tree.get("/etc/passwd"), tree.get("/etc/group")
    assert passwd is not None
    assert group is not None
    assert findings == []
    assert passwd.read().decode() == ("root:x:0:0:root:/root:/nonexistent\ndcgm:x:990:990:dcgm:/nonexistent:/nonexistent\n"
                                      "nobody:x:65534:65534:nobody:/nonexistent:/nonexistent\n")
    assert group.read() == b"root:x:0:\ndcgm:x:990:\nnogroup:x:65534:\n"
    same = replace(EMPTY, name="two", users=(User(name="x", number=0, group="", home="/"),))
    assert select_tree((base, same), Pool({}), Path("/nonexistent"))[1] == [
        "slice 'two': user x (0) is already one of slice 'one'"]


def test_a_library_that_two_packages_have_differently_is_nobodys(tmp_path: Path) -> None:
    """A package that comes first by its name would otherwise bring PID 1's C library."""
    for package, data in (("aaa", b"evil"), ("aab", b"evil"), ("libc6", b"good"), ("@nvrc", b"made")):
        put(tmp_path / package, f"{LIB}/libc.so.6", data)
    pool = Pool({name: tmp_path / name for name in ("aaa", "aab", "libc6", "@nvrc")})
    with pytest.raises(BuildError, match=r"libc\.so\.6 of package aaa is another file than of package libc6; take it in a slice"):
        pool.find(f"{LIB}/libc.so.6")
    for package in ("aaa", "aab"):
        put(tmp_path / package, f"{LIB}/libc.so.6", b"good")
    found = pool.find(f"{LIB}/libc.so.6")
    assert found is not None
    assert found.package == "aaa"
    assert pool.find("/gone") is None


FILELIST = b"""[
 {"name": "libcuda.so.1", "type": "LIB", "category": ["cuda"], "is_32bit_compat": false},
 {"name": "libcuda32.so.1", "type": "LIB", "category": ["cuda"], "is_32bit_compat": true},
 {"name": "libcudadebugger.so.1", "type": "LIB", "category": ["cuda"]},
 {"name": "nvidia-smi", "type": "BINARY", "category": ["nvml", "cuda"]},
 {"name": "libGL.so.1", "type": "LIB", "category": ["graphics"]}
]"""


def driver_list(*categories: str) -> FileList:
    return FileList(package="driver", path="/usr/share/list.json", types=("LIB",), categories=categories,
                    without=("libcudadebugger.*",))


def test_the_drivers_own_file_list_selects_by_type_and_category(tmp_path: Path) -> None:
    put(tmp_path / "driver", "/usr/share/list.json", FILELIST)
    for name in ("libcuda.so.1", "libcuda32.so.1", "libcudadebugger.so.1", "libGL.so.1"):
        put(tmp_path / "driver", f"{LIB}/{name}", b"data")
    pool = Pool({"driver": tmp_path / "driver"})
    assert build(pool, replace(EMPTY, filelists=(driver_list("cuda"),))) == (
        [f"{LIB}/libcuda.so.1 file one driver"], [])
    assert build(pool, replace(EMPTY, filelists=(driver_list("opencl"),)))[1] == [
        "slice 'one': /usr/share/list.json: category 'opencl' selects nothing of type LIB"]


@pytest.mark.parametrize(("data", "words"), [
    (b"1", "it is not a list"), (b"null", "it is not a list"), (b"{}", "it is not a list"), (b"[" * 100_000, "maximum recursion depth"),
    (b"\xff", "'utf-8' codec"), (b"9" * 5000, "Exceeds the limit"),
    *((row, "category 'cuda' selects nothing of type LIB") for row in (
        b"[1]", b'[{"type": "LIB", "category": null, "name": "x"}]', b'[{"type": "LIB", "category": 5, "name": "x"}]',
        b'[{"type": "LIB", "category": ["cuda"]}]', b'[{"type": ["LIB"], "category": ["cuda"], "name": "x"}]',
        b'[{"type": "LIB", "category": ["cuda"], "name": ["x"]}]')),
])
def test_a_file_list_that_is_none_is_a_finding(data: bytes, words: str) -> None:
    findings: list[str] = []
    assert read_filelist(data, driver_list("cuda"), "one", findings) == frozenset()
    assert [finding for finding in findings if finding.startswith(f"slice 'one': /usr/share/list.json: {words}")], findings


@pytest.mark.parametrize(("pattern", "path", "matches"), [
    ("/usr/lib/*.so", "/usr/lib/a.so", True), ("/usr/lib/*.so", "/usr/lib/x/a.so", False),
    ("/usr/lib/**", "/usr/lib/x/a.so", True), ("/usr/lib/a+b.s?", "/usr/lib/a+b.so", True),
    ("/usr/lib/a.so", "/usr/lib/axso", False), ("/usr/lib/a", "/usr/lib/ab", False),
])
def test_patterns(pattern: str, path: str, *, matches: bool) -> None:
    assert (pattern_rule(pattern).fullmatch(path) is not None) is matches


def test_what_an_elf_file_needs() -> None:
    needs = read_needs(make_elf(["liba.so", "libb.so"], soname="libx.so", runpath="$ORIGIN/../lib:/opt",
                                interpreter="/lib64/ld.so"), "/usr/app/bin/x")
    assert needs is not None
    assert (needs.libraries, needs.soname, needs.interpreter) == (("liba.so", "libb.so"), "libx.so", "/lib64/ld.so")
    assert needs.run_path == ("/usr/app/lib", "/opt")
    old = read_needs(make_elf(["liba.so"], rpath="${ORIGIN}"), "/usr/app/x")
    assert old is not None
    assert old.run_path == ("/usr/app",)


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh", b"\x7fELF", bytes(range(64)), make_elf()[:19]])
def test_what_is_no_whole_elf_file_needs_nothing(data: bytes) -> None:
    assert read_needs(data, "/x") is None


def test_where_a_count_is_given_patterns_are_alternatives(pool: Pool) -> None:
    row = replace(EMPTY, takes=(take("tool", "/opt/tool", "/usr/bin/tool", count=1),))
    tree, findings = select_tree((row,), pool, Path("/nonexistent"))
    assert findings == []
    assert tree.get("/usr/bin/tool") is not None


def test_a_missing_library_is_told_with_what_to_do(pool: Pool) -> None:
    row = replace(EMPTY, takes=(take("tool", "/usr/bin/tool"),))
    tree, _ = select_tree((row,), pool, Path("/nonexistent"))
    alone = Pool({})
    assert close_libraries(tree, alone, None, lambda name: f"look for {name}")[0] == (
        "slice 'one': /usr/bin/tool needs liba.so.1, which no package of the image has; look for liba.so.1")
