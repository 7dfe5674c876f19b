# SPDX-License-Identifier: Apache-2.0
"""The declarations in rootfs/ are good, and a bad one is refused with file, key and every mistake at once."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from nvrc.vocabulary.needs import NEEDS
from nvrc_build.declared.read import load
from nvrc_build.ground.errors import BuildError
from nvrc_build.products.kconfig import missing_options
from nvrc_build.products.products import modules_named
from nvrc_build.supply.lock import compare, read_lock, write_lock
from nvrc_build.supply.supply import image_packages, lock_file

ROOTFS = Path(__file__).resolve().parents[3] / "rootfs"

ARCHIVE = 'distribution = "debian"\nsuite = "trixie"\ncomponents = ["main"]\nkeyring = "/usr/share/k.gpg"\n'
IMAGE = 'summary = "x"\nformat = "initrd"\nlayout = "root"\narchive = "a"\nbudget_mb = 1\nslices = ["one"]\n'
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
        "base", "nvrc", "agent-policy", "kata-agent", "modules"]


def test_every_image_with_an_agent_has_a_policy_for_it() -> None:
    declared = load(ROOTFS)
    with_agent = [image.name for image in declared.images
                  if any(row.name == "kata-agent" for row in declared.slices_of(image))]
    assert {"lab", "kata-base", "kata-base-ext4", "nvidia", "nvidia-base", "nvidia-confidential"} <= {*with_agent}
    assert with_agent == [image.name for image in declared.images
                          if any(row.name == "agent-policy" for row in declared.slices_of(image))]


def test_a_slice_comes_after_what_it_needs_and_once(tmp_path: Path) -> None:
    declared = load(write(tmp_path, slices__one=SLICE + 'needs = ["two", "three"]\n',
                          slices__two=SLICE + 'needs = ["three"]\n', slices__three=SLICE))
    assert [row.name for row in declared.slices_of(declared.image("i"))] == ["three", "two", "one"]


@pytest.mark.parametrize(("files", "expected"), [
    pytest.param({"slices__one": ""}, ["slices/one.toml why: is missing"], id="missing-key"),
    pytest.param({"slices__one": "why = 3\n"}, ["slices/one.toml why: must be text, not 3"], id="type"),
    pytest.param({"slices__one": SLICE + "colour = 1\n"},
                 ["slices/one.toml colour: is unknown; known here: configs, console, embeds"], id="unknown-key"),
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
                 ["slices/one.toml [[text]] 1 source: '../secret' is not a file below files/"], id="source-outside"),
    pytest.param({"slices__one": SLICE + 'needs = ["gone"]\n'},
                 ["slices/one.toml needs: there is no slice 'gone'"], id="unknown-slice"),
    pytest.param({"slices__one": SLICE + 'needs = ["two"]\n', "slices__two": SLICE + 'needs = ["one"]\n'},
                 ["slices/one.toml needs: goes round in a circle: one -> two -> one",
                  "slices/two.toml needs: goes round in a circle: two -> one -> two"], id="circle"),
    pytest.param({"images__i": IMAGE.replace('"one"', '"one", "one"')},
                 ["images/i.toml slices: names 'one' twice"], id="twice"),
    pytest.param({"images__i": IMAGE.replace('"initrd"', '"iso"')},
                 ["images/i.toml format: 'iso' is none of initrd, disk"], id="choice"),
    pytest.param({"images__i": IMAGE + 'agent_policy = "allow"\n'},
                 ["images/i.toml agent_policy: 'allow' is none of allow-all, allow-set-policy, deny"], id="policy"),
    pytest.param({"images__i": IMAGE.replace('archive = "a"', 'archive = "b"\ndriver = "d"\nover = "o"')},
                 ["images/i.toml archive: there is no archive 'b'", "images/i.toml driver: there is no driver 'd'",
                  "images/i.toml over: there is no image 'o'"], id="references"),
    pytest.param({"images__i": IMAGE.replace("budget_mb = 1\n", ""), "slices__one": "x = 1\n"},
                 ["images/i.toml budget_mb: is missing", "slices/one.toml why: is missing",
                  "slices/one.toml x: is unknown"], id="all-mistakes-of-all-files"),
    pytest.param({"slices__one": SLICE + '[[user]]\nname = "a:b"\nid = 1\n'},
                 ["slices/one.toml [[user]] 1 name: 'a:b' or its group is no account name"], id="account-name"),
    pytest.param({"slices__one": SLICE + '[[user]]\nname = "a"\nid = 1\n',
                  "images__i": IMAGE.replace('"root"', '"extension"')},
                 ["images/i.toml: is an extension; slice 'one' adds users"], id="users-in-an-extension"),
    pytest.param({"images__i": IMAGE + 'filesystem = "ext4"\n'},
                 ["images/i.toml filesystem: is for disks; an initrd has none"], id="initrd-with-a-file-system"),
    pytest.param({"images__i": IMAGE + 'kernel = "k"\nserves = ["agent", "disks"]\n'},
                 ["images/i.toml serves: there is no need 'disks'; there are: agent, storage, xfs"], id="unknown-need"),
    pytest.param({"images__i": IMAGE + 'serves = ["agent"]\n'},
                 ["images/i.toml serves: is for root images with a kernel"], id="serves-without-a-kernel"),
    pytest.param({"images__i": IMAGE + 'kernel = "k"\nserves = ["agent"]\n',
                  "slices__one": SLICE + 'kernel_needs = ["agent", "netfilter"]\n'},
                 ["images/i.toml serves: lacks 'netfilter', which slice 'one' needs"], id="need-of-a-slice"),
    pytest.param({"slices__one": SLICE + "never_in_production = true\n"},
                 ["images/i.toml: has slice 'one', which is never in production"], id="devkit-in-production"),
])
def test_a_bad_declaration(tmp_path: Path, files: dict[str, str], expected: list[str]) -> None:
    found = mistakes(write(tmp_path, **files))
    assert len(found) == len(expected)
    for line, start in zip(found, expected, strict=True):
        assert line.startswith(start)


def test_a_development_image_may_have_what_production_must_not(tmp_path: Path) -> None:
    load(write(tmp_path, slices__one=SLICE + "never_in_production = true\n", images__i=IMAGE + "development = true\n"))


def test_an_unknown_image_is_answered_with_those_that_exist() -> None:
    with pytest.raises(BuildError, match=r"no image is called 'labb'; there are: .*lab"):
        load(ROOTFS).image("labb")


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
    assert [line.split(": ", 1)[1].split(" of ")[0] for line in caught.value.findings] == [
        "of a is not 64 hexadecimal digits", "is missing", "is missing", "of ../b is not 64 hexadecimal digits",
        "../b 1 all holds a slash"]


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


def test_every_image_of_this_repository_has_what_its_slices_need_of_the_kernel(tmp_path: Path) -> None:
    """And a build of one that does not is refused: iptables without nf_tables starts and cannot work."""
    shutil.copytree(ROOTFS, tmp_path / "rootfs")
    path = tmp_path / "rootfs/images/nvidia-base.toml"
    path.write_text(path.read_text().replace('"netfilter", ', ""))
    assert mistakes(tmp_path / "rootfs") == (
        "images/nvidia-base.toml serves: lacks 'netfilter', which slice 'iptables' needs",)


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
