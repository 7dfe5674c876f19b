# SPDX-License-Identifier: Apache-2.0
"""The declarations in rootfs/ are good, and a bad one is refused with file, key and every mistake at once."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from nvrc.vocabulary.needs import NEEDS
from nvrc_build.declared.declared import Compression
from nvrc_build.declared.read import load
from nvrc_build.ground.errors import BuildError
from nvrc_build.products.kconfig import check_kernel, missing_options
from nvrc_build.products.products import modules_named
from nvrc_build.supply.lock import compare, read_lock, write_lock
from nvrc_build.supply.supply import image_packages, lock_file

ROOTFS = Path(__file__).resolve().parents[3] / "rootfs"

ARCHIVE = 'distribution = "debian"\nsuite = "trixie"\ncomponents = ["main"]\nkeyring = "/usr/share/k.gpg"\n'
IMAGE = 'summary = "x"\nformat = "initrd"\nlayout = "root"\narchive = "a"\nbudget_mb = 1\nslices = ["one"]\n'
DRIVER = 'why = "x"\npackage = "p"\nsource = "/usr/src/x"\nmodules = ["m"]\n'
MODULES = '[[take]]\npackage = "@modules"\npaths = ["/usr/**"]\n'
SLICE = 'why = "x"\n'


def write(root: Path, **files: str) -> Path:
    """Files by name with '__' for '/'; what is not given is a good one."""
    texts = {"archives__a": ARCHIVE, "images__i": IMAGE, "slices__one": SLICE} | files
    for name, text in texts.items():
        path = root / f"{name.replace('__', '/')}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def mistakes(root: Path) -> tuple[str, ...]:
    with pytest.raises(BuildError) as caught:
        load(root)
    return caught.value.findings


def test_the_declarations_of_this_repository_are_good() -> None:
    declared = load(ROOTFS)
    assert [row.name for row in declared.slices_of(declared.image("lab"))] == [
        "base", "nvrc", "agent-policy", "kata-agent", "modules", "metrics"]


def test_every_image_with_an_agent_has_a_policy_for_it() -> None:
    declared = load(ROOTFS)
    with_agent = [image.name for image in declared.images
                  if any(row.name == "kata-agent" for row in declared.slices_of(image))]
    assert {"lab", "kata-base", "kata-base-ext4", "nvidia", "nvidia-base", "nvidia-confidential"} <= {*with_agent}
    assert with_agent == [image.name for image in declared.images
                          if any(row.name == "agent-policy" for row in declared.slices_of(image))]


def test_every_image_with_an_agent_can_serve_metrics_unless_its_policy_denies_them() -> None:
    declared = load(ROOTFS)
    slices = {image.name: {row.name for row in declared.slices_of(image)} for image in declared.images}
    closed = {"policy-confidential", "policy-confidential-extensions"}
    assert {name for name, found in slices.items() if "metrics" in found} == {
        name for name, found in slices.items() if "kata-agent" in found and not found & closed}


def test_images_with_a_policy_for_the_kernel_line_are_confidential() -> None:
    declared = load(ROOTFS)
    with_policy = {image.name for image in declared.images for row in declared.slices_of(image) if row.name.startswith("policy-")}
    assert {image.name for image in declared.images if image.is_confidential} == with_policy != set()


def test_a_slice_comes_after_what_it_needs_and_once(tmp_path: Path) -> None:
    declared = load(write(tmp_path, slices__one=SLICE + 'needs = ["two", "three"]\n',
                          slices__two=SLICE + 'needs = ["three"]\n', slices__three=SLICE))
    assert [row.name for row in declared.slices_of(declared.image("i"))] == ["three", "two", "one"]


@pytest.mark.parametrize(("files", "expected"), [
    pytest.param({"slices__one": ""}, ["slices/one.toml why: missing"], id="missing-key"),
    pytest.param({"slices__one": "why = 3\n"}, ["slices/one.toml why: expected text, not 3"], id="type"),
    pytest.param({"slices__one": SLICE + "colour = 1\n"},
                 ["slices/one.toml colour: unknown key; known: why, needs, take, folder"], id="unknown-key"),
    pytest.param({"slices__one": "why = \n"}, ["slices/one.toml: Invalid value"], id="not-toml"),
    pytest.param({"slices__one": SLICE + '[[take]]\npackage = "p"\npaths = ["/usr/../etc"]\n'},
                 ["slices/one.toml [[take]] 1 paths: path '/usr/../etc' is not a plain absolute path"], id="dot-dot"),
    pytest.param({"slices__one": SLICE + '[[take]]\npackage = "p"\npaths = ["usr"]\n'},
                 ["slices/one.toml [[take]] 1 paths: path 'usr' is not a plain absolute path"], id="relative"),
    pytest.param({"slices__one": SLICE + '[[text]]\npath = "/x"\ncontent = ""\nmode = "4755"\n'},
                 ["slices/one.toml [[text]] 1 mode: 4755 is setuid or setgid; an image has no such file"], id="setuid"),
    pytest.param({"slices__one": SLICE + '[[text]]\npath = "/x"\n'},
                 ["slices/one.toml [[text]] 1: needs either content or source"], id="text-without-content"),
    pytest.param({"slices__one": SLICE + '[[text]]\npath = "/x"\nsource = "../secret"\n'},
                 ["slices/one.toml [[text]] 1 source: '../secret' must lie inside"], id="source-outside"),
    pytest.param({"slices__one": SLICE + '[[text]]\npath = "/x"\nsource = "gone"\n'},
                 ["slices/one.toml [[text]] 1 source: 'gone' is not a file below files/"], id="source-that-is-not-there"),
    pytest.param({"slices__one": SLICE + 'libaries = ["p"]\n'},
                 ["slices/one.toml libaries: unknown key; did you mean libraries?"], id="near-miss"),
    pytest.param({"slices__one": SLICE + 'needs = [1, ""]\n'},
                 ["slices/one.toml needs: expected text, not 1", "slices/one.toml needs: is empty"], id="items"),
    pytest.param({"slices__one": SLICE + 'take = ["p"]\n'},
                 ['slices/one.toml take: expected a table, not "p"'], id="no-table"),
    pytest.param({"slices__one": SLICE + 'needs = ["gone"]\n'},
                 ["slices/one.toml needs: there is no slice 'gone'"], id="unknown-slice"),
    pytest.param({"slices__one": SLICE + 'needs = ["two"]\n', "slices__two": SLICE + 'needs = ["one"]\n'},
                 ["slices/one.toml needs: is circular: one -> two -> one",
                  "slices/two.toml needs: is circular: two -> one -> two"], id="circle"),
    pytest.param({"images__i": IMAGE.replace('"one"', '"one", "one"')},
                 ["images/i.toml slices: names 'one' twice"], id="twice"),
    pytest.param({"images__i": IMAGE.replace('"initrd"', '"iso"')},
                 ["images/i.toml format: expected one of initrd, disk, not \"iso\""], id="choice"),
    pytest.param({"images__i": IMAGE + 'agent_policy = "allow"\n'},
                 ["images/i.toml agent_policy: expected one of allow-all, allow-set-policy, deny, not \"allow\""], id="policy"),
    pytest.param({"images__i": IMAGE.replace('archive = "a"', 'archive = "b"\ndriver = "d"\nover = "o"')},
                 ["images/i.toml archive: there is no archive 'b'", "images/i.toml driver: there is no driver 'd'",
                  "images/i.toml over: there is no image 'o'"], id="references"),
    pytest.param({"images__i": IMAGE.replace("budget_mb = 1\n", ""), "slices__one": "x = 1\n"},
                 ["images/i.toml budget_mb: missing", "slices/one.toml x: unknown key",
                  "slices/one.toml why: missing"], id="all-mistakes-of-all-files"),
    pytest.param({"slices__one": SLICE + '[[user]]\nname = "a:b"\nid = 1\n'},
                 ["slices/one.toml [[user]] 1 name: 'a:b' or its group is not an account name"], id="account-name"),
    pytest.param({"slices__one": SLICE + '[[user]]\nname = "a"\nid = 1\n',
                  "images__i": IMAGE.replace('"root"', '"extension"')},
                 ["images/i.toml: is an extension; slice 'one' adds users"], id="users-in-an-extension"),
    pytest.param({"images__i": IMAGE + 'filesystem = "ext4"\n'},
                 ["images/i.toml filesystem: is for disks; an initrd has none"], id="initrd-with-a-file-system"),
    pytest.param({"images__i": IMAGE.replace('"initrd"', '"disk"') + 'compression = "zstd"\n'},
                 ["images/i.toml compression: is for an initrd; a disk has that of its file system"], id="packed-disk"),
    pytest.param({"images__i": IMAGE + 'compression = "xz"\n'},
                 ["images/i.toml compression: expected one of lz4, zstd, stored, not \"xz\""], id="unknown-compression"),
    pytest.param({"images__i": IMAGE + 'kernel = "k"\nserves = ["agent", "disks"]\n'},
                 ["images/i.toml serves: there is no need 'disks'; there are: agent, storage, xfs"], id="unknown-need"),
    pytest.param({"images__i": IMAGE + 'serves = ["agent"]\n'},
                 ["images/i.toml serves: is for root images with a kernel"], id="serves-without-a-kernel"),
    pytest.param({"images__i": IMAGE + 'kernel = "k"\nserves = ["agent"]\n',
                  "slices__one": SLICE + 'kernel_needs = ["agent", "netfilter"]\n' + MODULES},
                 ["images/i.toml serves: lacks 'netfilter', which slice 'one' needs"], id="need-of-a-slice"),
    pytest.param({"images__i": IMAGE + 'kernel = "k"\n'},
                 ["images/i.toml serves: missing: name the needs whose modules are to be loaded"], id="no-word-of-needs"),
    pytest.param({"images__i": IMAGE + 'kernel = "k"\nserves = ["agent"]\n'},
                 ["images/i.toml serves: needs a slice that takes '@modules'"], id="needs-without-modules"),
    pytest.param({"images__i": IMAGE + 'kernel = "k"\nserves = []\ndriver = "d"\n', "drivers__d": DRIVER},
                 ["images/i.toml driver: needs a slice that takes '@modules'"], id="driver-without-modules"),
    pytest.param({"slices__one": SLICE + MODULES},
                 ["images/i.toml kernel: missing: a slice of it takes '@modules'"], id="modules-without-a-kernel"),
    pytest.param({"images__i": IMAGE + 'kernel = "k"\nserves = []\ndriver = "d"\ndriver_branch = "3"\n',
                  "drivers__d": DRIVER + 'branches = ["1", "2"]\n',
                  "slices__one": SLICE + MODULES},
                 ["images/i.toml driver_branch: expected one of 1, 2, not '3'"], id="unknown-branch"),
    pytest.param({"images__i": IMAGE + 'driver_branch = "3"\n'},
                 ["images/i.toml driver_branch: is for drivers that have branches"], id="branch-of-nothing"),
    pytest.param({"images__v": 'extends = "gone"\n'}, ["images/v.toml extends: there is no image 'gone'"],
                 id="extends-nothing"),
    pytest.param({"images__v": 'extends = "w"\n', "images__w": 'extends = "v"\n'},
                 ["images/v.toml extends: is circular", "images/w.toml extends: is circular"], id="extends-in-a-circle"),
    pytest.param({"images__v": 'extends = "i"\n[remove]\nslices = ["two"]\n'},
                 ["images/v.toml [remove] slices: 'two' is missing in the list"], id="removes-nothing"),
    pytest.param({"images__v": 'extends = "i"\n[add]\nslices = "two"\n'},
                 ["images/v.toml [add]: must be a table of lists"], id="adds-no-list"),
    pytest.param({"images__v": 'extends = "i"\n[add]\nslices = ["one"]\n'},
                 ["images/v.toml slices: names 'one' twice"], id="adds-what-is-there"),
    pytest.param({"images__i": IMAGE + 'further_archives = ["b"]\n'},
                 ["images/i.toml further_archives: there is no archive 'b'"], id="unknown-further-archive"),
    pytest.param({"archives__a": 'suite = "./"\ncomponents = ["main"]\n'},
                 ["archives/a.toml components: go with a suite's name"], id="folder-with-components"),
    pytest.param({"archives__a": ARCHIVE + 'uri = "https://x.test/"\n'},
                 ["archives/a.toml uri: and distribution exclude each other"], id="address-of-a-distribution"),
    pytest.param({"slices__one": SLICE + "never_in_production = true\n"},
                 ["images/i.toml: has slice 'one', which is never in production"], id="devkit-in-production"),
])
def test_a_bad_declaration(tmp_path: Path, files: dict[str, str], expected: list[str]) -> None:
    found = mistakes(write(tmp_path, **files))
    assert len(found) == len(expected)
    for line, start in zip(found, expected, strict=True):
        assert line.startswith(start)


def test_a_variant_is_the_other_image_but_for_what_it_says(tmp_path: Path) -> None:
    base = IMAGE.replace('["one"]', '["one", "two"]') + 'declared_only = "x"\nkernel_options = ["A"]\n'
    variant = 'extends = "i"\nbudget_mb = 7\n[add]\nslices = ["three"]\n[remove]\nslices = ["one"]\n'
    declared = load(write(tmp_path, images__i=base, images__v=variant, slices__two=SLICE, slices__three=SLICE))
    made = declared.image("v")
    assert (made.name, made.slices, made.budget_bytes, made.options, made.declared_only) == (
        "v", ("two", "three"), 7_000_000, ("A",), "")


def test_a_development_image_may_have_what_production_must_not(tmp_path: Path) -> None:
    load(write(tmp_path, slices__one=SLICE + "never_in_production = true\n", images__i=IMAGE + "development = true\n"))


@pytest.mark.long
def test_an_unknown_image_is_answered_with_the_nearest_or_all() -> None:
    with pytest.raises(BuildError, match=r"no image is called 'labb'; did you mean lab"):
        load(ROOTFS).image("labb")
    with pytest.raises(BuildError, match=r"no image is called 'zzzzzz'; there are: .*lab"):
        load(ROOTFS).image("zzzzzz")


@pytest.mark.long
def test_every_image_and_root_that_can_be_built_is_locked() -> None:
    declared = load(ROOTFS)
    for image in declared.images:
        if not image.declared_only:
            locked = {row.name for row in read_lock(lock_file(ROOTFS, "image", image.name))}
            assert set(image_packages(declared, image)) <= locked
    for root in declared.roots:
        assert set(root.packages) <= {row.name for row in read_lock(lock_file(ROOTFS, "root", root.name))}


def test_kernel_and_headers_are_locked_at_one_release() -> None:
    headers = {row.version for row in read_lock(lock_file(ROOTFS, "root", "compile"))
               if row.name.startswith("linux-headers-6")}
    kernels = {row.version for path in (ROOTFS / "locks").glob("image-*.toml") for row in read_lock(path)
               if re.match(r"linux-image-\d", row.name)}
    assert len(headers) == 1
    assert headers == kernels


def test_nothing_declared_names_a_host() -> None:
    for path in ROOTFS.rglob("*.toml"):
        assert "://" not in path.read_text(encoding="utf-8"), path


def test_locks_are_written_as_they_are_read(tmp_path: Path) -> None:
    path = lock_file(ROOTFS, "image", "lab")
    packages = read_lock(path)
    assert write_lock(reversed(packages)) == path.read_text(encoding="utf-8")  # type: ignore[arg-type]
    (tmp_path / "x.toml").write_text('packages = [\n {name = "a", version = "1", arch = "all", size = 1, '
                                     'sha256 = "zz"},\n {name = "../b", version = "1", arch = "all"}]\n')
    with pytest.raises(BuildError) as caught:
        read_lock(tmp_path / "x.toml")
    assert [line.removeprefix(f"{tmp_path.name}/x.toml ") for line in caught.value.findings] == [
        "[[packages]] 1 sha256: 'zz' is not 64 hexadecimal digits", "[[packages]] 2 size: missing",
        "[[packages]] 2 sha256: missing", "[[packages]] 2 name: '../b' holds a slash"]


def test_what_changed_between_two_locks() -> None:
    old = read_lock(lock_file(ROOTFS, "image", "lab"))
    first, second = old[0], old[1]
    new = (type(first)(name=first.name, version="2", arch="amd64", size=1, sha256="0" * 64),
           type(first)(name="fresh", version="1", arch="all", size=1, sha256="0" * 64), *old[2:])
    assert compare(old, new) == ("fresh: new, 1", f"{first.name}: {first.version} -> 2",
                                 f"{second.name}: gone, was {second.version}")
    assert compare(old, old) == ()


def test_missing_kernel_options_are_all_named() -> None:
    config = {"CONFIG_A": "y", "CONFIG_B": "m"}
    assert missing_options(("A", "B=m", "A=y", "C=n"), config) == ()
    assert missing_options(("C", "B=y", "A=n"), config) == (
        "CONFIG_C is n, y or m is needed", "CONFIG_B is m, y is needed", "CONFIG_A is y, n is needed")


@pytest.mark.parametrize(("option", "modules", "missing"), [
    pytest.param("SEV_GUEST", {"sev_guest"}, (), id="its-file-is-there"),
    pytest.param("TSM_REPORTS", {"tsm_report"}, (), id="under-its-later-name"),
    pytest.param("SEV_GUEST", {"tsm"}, ("CONFIG_SEV_GUEST is m, and the image has no module sev_guest: serve a need "
                                        "that has it",), id="another-file-is-there"),
    pytest.param("SEV_GUEST=m", set(), (), id="asked-for-as-module-wherever-its-file-is"),
    pytest.param("FOO", {"foo"}, ("CONFIG_FOO is m, and no need is known that brings its module: ask for FOO=y or "
                                  "FOO=m",), id="of-no-need"),
])
def test_an_option_that_is_a_module_counts_with_its_file(option: str, modules: set[str], missing: tuple[str, ...]) -> None:
    config = dict.fromkeys(("CONFIG_SEV_GUEST", "CONFIG_TSM_REPORTS", "CONFIG_FOO"), "m")
    assert missing_options((option,), config, modules) == missing


@pytest.mark.parametrize(("compression", "missing"), [
    (Compression.LZ4, ("CONFIG_RD_LZ4 is n, y is needed",)), (Compression.ZSTD, ()), (Compression.STORED, ()),
], ids=lambda value: value.value if isinstance(value, Compression) else "")
def test_the_kernel_must_be_able_to_unpack_the_initrd(compression: Compression, missing: tuple[str, ...]) -> None:
    image = replace(load(ROOTFS).image("lab"), compression_named=compression)
    try:
        check_kernel(image, {"CONFIG_RD_ZSTD": "y"}, ())
    except BuildError as refused:
        assert refused.findings == missing
    else:
        assert missing == ()


def test_every_image_of_this_repository_has_what_its_slices_need_of_the_kernel(tmp_path: Path) -> None:
    """And a build of one that does not is refused: iptables without nf_tables starts and cannot work."""
    shutil.copytree(ROOTFS, tmp_path / "rootfs")
    path = tmp_path / "rootfs/images/nvidia-base.toml"
    path.write_text(path.read_text().replace('"netfilter", ', ""))
    assert mistakes(tmp_path / "rootfs") == tuple(
        f"images/{name}.toml serves: lacks 'netfilter', which slice 'iptables' needs"
        for name in ("nvidia-base-confidential", "nvidia-base"))


def test_each_match_and_target_of_the_kernel_has_its_part_in_iptables() -> None:
    """The program loads them by name, so nothing else would miss them."""
    netfilter = next(need for need in NEEDS if need.name == "netfilter")
    takes = load(ROOTFS).slice("iptables").takes
    carried = {Path(path).stem.removeprefix("lib") for take in takes for path in take.paths}
    wanted = {name for name in netfilter.modules if name.startswith(("xt_", "ipt_", "ip6t_"))}
    assert wanted - carried == {"xt_nat", "xt_tcpudp"}
    assert {"xt_NAT", "xt_DNAT", "xt_SNAT", "xt_tcp", "xt_udp"} <= carried


def test_the_options_that_this_repository_asks_for_are_built_in_or_of_a_need_that_is_served() -> None:
    always_built_in = {
        "AMD_MEM_ENCRYPT", "CRYPTO_ECDSA", "CRYPTO_RSA", "CRYPTO_SHA512", "FW_LOADER", "INTEL_TDX_GUEST",
        "MEMORY_FAILURE", "MODULES", "MODULE_SIG", "MODULE_UNLOAD", "MTRR", "PCI_MMCONFIG", "SECCOMP_FILTER", "X86_MCE",
        "X86_PAT"}
    for image in load(ROOTFS).images:
        names, where_there = modules_named(image)
        config = {f"CONFIG_{name}": "y" if name in always_built_in else "m" for name in image.options}
        assert missing_options(image.options, config, {*names, *where_there}) == (), image.name
