# SPDX-License-Identifier: Apache-2.0
"""Real builds of the lab image: the same bytes from different places, quick rebuilds, and nothing half made.

Needs root and the archives; package files that this checkout's cache already has are linked, not fetched again.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from fakes.lent_cache import lend, lend_debs
from nvrc_build import pipeline
from nvrc_build.ground.run import clean_env, run
from nvrc_build.papers.inventory import read_inventory
from nvrc_build.sandbox.sandbox import sandbox_argv
from nvrc_build.supply.apt import file_sha256
from nvrc_build.supply.compile import CC, compile_part, link_launcher

CHECKOUT = Path(__file__).resolve().parents[2]
SOURCES = ("nvrc", "guest_cdi", "rootfs", "build", "qemu-tests/standins")

# What the launcher has in the place of the interpreter's own, for a program of one line.
READER = "void *__wrap_PyMarshal_ReadObjectFromString(const char *data, long size) { return size ? (void *)data : 0; }\n"

pytestmark = pytest.mark.qemu


@dataclass(frozen=True, slots=True)
class Place:
    checkout: Path
    cache: Path
    out: Path

    def build(self) -> pipeline.Image:
        return pipeline.build("lab", out=self.out, cache=self.cache, checkout=self.checkout)


def make_place(folder: Path, source: Path = CHECKOUT) -> Place:
    place = Place(folder / "checkout", folder / "cache", folder / "out")
    for name in SOURCES:
        shutil.copytree(source / name, place.checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    lend_debs(CHECKOUT / "out/cache", place.cache)
    return place


def is_lent(kind: str) -> bool:
    """All that an image is made of, and no image."""
    return not kind.startswith(("image-", "lab-"))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """What the checkout has made is not made again, whenever that was: the second build starts from nothing."""
    place = make_place(tmp_path_factory.mktemp("first"))
    lend(CHECKOUT / "out/cache", place.cache, is_lent)
    place.build()
    return place


def newest(place: Place, kind: str) -> Path:
    """Which the last build made or used."""
    return max((place.cache / "stages").glob(f"{kind}-*"), key=lambda stage: stage.stat().st_mtime)


@dataclass(frozen=True, slots=True)
class Rebuild:
    """What a build again took and made: of the same sources, and of one changed line."""

    idle_s: float
    line_s: float
    before: dict[str, str]
    after: dict[str, str]
    kept: set[str]
    kept_after: set[str]
    fresh_objects: set[str]


@pytest.fixture(scope="module")
def rebuild(first: Place) -> Rebuild:
    started = spent_s()
    before, idle_s = digests(first.build()), spent_s() - started
    kept, objects = stages(first, "modules-found", "binding", "bills"), stages(first, "object")
    module = first.checkout / "nvrc/vocabulary/errors.py"
    module.write_text(module.read_text(encoding="utf-8") + "\nCHANGED = 1\n", encoding="utf-8")
    started = spent_s()
    after = digests(first.build())
    return Rebuild(idle_s, spent_s() - started, before, after, kept, stages(first, "modules-found", "binding", "bills"),
                   stages(first, "object") - objects)


def digests(image: pipeline.Image) -> dict[str, str]:
    return {path.name: file_sha256(path) for path in sorted(image.folder.iterdir())}


def hostile_environment(folder: Path) -> dict[str, str]:
    """What programs of a build would read or run, were it handed on to them."""
    fakes, link = folder / "bin", folder / "tmp"
    fakes.mkdir(parents=True)
    for name in ("apt-get", "cpio", "dpkg-deb", "gcc", "ld", "lz4", "prlimit", "python3", "tar", "zstd"):
        (fakes / name).write_text("#!/bin/sh\nexit 99\n")
        (fakes / name).chmod(0o755)
    (folder / "scratch").mkdir()
    link.symlink_to(folder / "scratch")
    return {"PATH": f"{fakes}:{os.environ['PATH']}", "TMPDIR": str(link), "HOME": "/nonexistent", "LC_ALL": "tr_TR.UTF-8", "TZ": "Asia/Tokyo",
            "SOURCE_DATE_EPOCH": "1", "TAR_OPTIONS": "--mtime=2001-01-01", "ZSTD_CLEVEL": "1", "XZ_OPT": "-0", "APT_CONFIG": "/dev/zero",
            "CPATH": "/nonexistent", "GCC_EXEC_PREFIX": "/nonexistent/", "CFLAGS": "-DX", "MAKEFLAGS": "-n", "KBUILD_BUILD_USER": "x",
            "LD_LIBRARY_PATH": "/nonexistent", "PIP_TARGET": "/nonexistent", "PIP_INDEX_URL": "http://127.0.0.1:1/", "PYTHONHASHSEED": "7"}


# Every mount read-only, /tmp and the home folder with them, and the second folder inside the first, which is not.
CONFINE = """
mount --bind "$1" "$1" && mount -o remount,bind,ro / && mount --bind "$2" "$2" || exit 3
for at in $(awk '$5 !~ "^/(proc|sys|dev)(/|$)" {print $5}' /proc/self/mountinfo); do
    at=$(printf %b "$at")
    [ "$at" = "$1" ] || mount -o remount,bind,ro "$at" || exit 3
done
touch "${1%/*}/elsewhere" && exit 3
touch "$2/elsewhere" && exit 3
shift 2 && exec "$@"
"""


def test_two_builds_in_different_places_are_equal_byte_for_byte(first: Place, rebuild: Rebuild, tmp_path: Path) -> None:
    """The first has a line of the init made anew and all else as it was. The second one from packages, by the factory's copy that lies there, by another account's umask, in an environment made to
    mislead it, with files that are in no commit. It can write nowhere but below its output folder and where TMPDIR leads."""
    other = make_place(tmp_path / "a much deeper/place with blanks", first.checkout)
    for name in ("nvrc/steps/untracked.py", "guest_cdi/.hidden.py", "rootfs/files/untracked", "nvrc/untracked.h"):
        (other.checkout / name).write_text("# in no commit\n")
    env = hostile_environment(tmp_path / "hostile") | {"PYTHONPATH": f"{other.checkout}/build:{other.checkout}", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(["unshare", "--mount", "--propagation", "private", "dash", "-c", CONFINE, "confine", tmp_path, other.checkout,
                           sys.executable, "-m", "nvrc_build", "build", "lab", "--out", other.out, "--cache", other.cache],
                          umask=0o077, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Read-only file system") == 2
    assert list((tmp_path / "hostile/scratch").iterdir()) == []
    made = {path.name: file_sha256(path) for path in sorted((other.out / "images/lab").iterdir())}
    assert made == rebuild.after == digests(first.build())


def spent_s() -> float:
    """Processor time of this process and of all it waited for: the same on a busy machine, and no less than it takes on
    an idle one, because hardly anything here waits."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def stages(place: Place, *kinds: str) -> set[str]:
    return {path.name for kind in kinds for path in (place.cache / "stages").glob(f"{kind}-*")}


def test_nothing_changed_takes_no_time_and_one_changed_file_of_the_init_little(rebuild: Rebuild) -> None:
    assert rebuild.idle_s < 3
    assert rebuild.line_s < 12
    assert rebuild.after["initrd"] != rebuild.before["initrd"]
    assert rebuild.kept_after == rebuild.kept
    assert len(rebuild.kept) >= 3
    assert len(rebuild.fresh_objects) == 1


def test_a_module_that_is_imported_first_is_found_and_one_more_step_is_frozen(first: Place, tmp_path: Path) -> None:
    first.build()
    place, found = Place(tmp_path / "checkout", first.cache, tmp_path / "out"), stages(first, "modules-found")
    for name in SOURCES:
        shutil.copytree(first.checkout / name, place.checkout / name)
    (place.checkout / "nvrc/steps/entropy.py").write_text("import colorsys\n", encoding="utf-8")
    boot = place.checkout / "nvrc/boot.py"
    row = '    Step("topology",'
    boot.write_text(boot.read_text(encoding="utf-8").replace(row, f'    Step("entropy", needs=("parameters",)),\n{row}'), encoding="utf-8")
    place.build()
    (fresh,) = stages(first, "modules-found") - found
    assert {"nvrc.steps.entropy", "colorsys"} <= set((first.cache / "stages" / fresh / "modules.txt").read_text().split())


def test_the_image_has_no_shell_no_setuid_file_and_what_kata_looks_for(first: Place) -> None:
    files = read_inventory(first.build().manifest).files
    assert not [path for path in files if path.rsplit("/", 1)[1] in ("sh", "bash", "dash", "busybox", "mount")]
    assert not [file.path for file in files.values() if int(file.mode, 8) & 0o6000]
    assert files["/usr/sbin/init"].target == files["/init"].target == "/bin/NVRC-x86_64-unknown-linux-gnu"
    assert files["/usr/bin/NVRC-x86_64-unknown-linux-gnu"].target == "../lib/nvrc/first"
    assert files["/etc/kata-opa/default-policy.rego"].target == "allow-all.rego"
    assert files["/usr/lib/nvrc/first"].mode == files["/usr/lib/nvrc/nvrc"].mode == files["/usr/bin/kata-agent"].mode == "0755"
    assert {"/etc/ld.so.cache", "/etc/resolv.conf", "/usr/lib/firmware/nvidia", "/dev/console"} <= files.keys()


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_the_frozen_program_hashes_as_hashlib_does(first: Place, tmp_path: Path, algorithm: str) -> None:
    """Its SHA-2 is not the standard library's own. Lengths around those of one block, with its padding, and of many."""
    frozen, root = newest(first, "freeze") / "usr/lib/nvrc", newest(first, "root-tools")
    head = f'version = "0.1.0"\nalgorithm = "{algorithm}"\n[data]\n"aa.toml" = "'
    for length in (100, 111, 112, 119, 120, 127, 128, 129, 239, 240, 100_000):
        document = f"{head}{'x' * (length - len(head) - 2)}\"\n".encode()
        (tmp_path / "initdata.toml").write_bytes(document)
        command = "/site/nvrc initdata digest /src/initdata.toml --json; exit $?"  # not as PID 1
        argv = sandbox_argv(root, ["/usr/bin/bash", "-c", command], env=clean_env(),
                            read_only={"/src": tmp_path, "/site": frozen})
        found = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        assert len(document) == length
        assert hashlib.new(algorithm, document).hexdigest() in found


@pytest.mark.parametrize(("is_movable", "kind"), [(False, "ET_EXEC"), (True, "ET_DYN")])
def test_the_interpreter_of_a_confidential_image_can_be_anywhere(first: Place, tmp_path: Path, kind: str, *, is_movable: bool) -> None:
    (tmp_path / "main.c").write_text(f"#include <Python.h>\nint main(void) {{ return !Py_GetVersion(); }}\n{READER}", encoding="ascii")
    (tmp_path / "out").mkdir()
    root = newest(first, "root-compile")
    part = compile_part(tmp_path / "main.c", tmp_path / "out", root=root, is_movable=is_movable).rename(tmp_path / "main.o")
    with link_launcher([part], tmp_path / "out", root=root, is_movable=is_movable).open("rb") as program:
        assert ELFFile(program).header.e_type == kind


def test_the_initrd_is_within_its_budget(first: Place) -> None:
    assert first.build().initrd.stat().st_size <= 40_000_000


def test_an_agent_that_is_linked_to_glibc_brings_its_libraries(first: Place, tmp_path: Path) -> None:
    """As Kata builds it with USE_DEVMAPPER; static agents take nothing of the packages that the slice names."""
    (tmp_path / "agent.c").write_text("int main(void) { return 0; }\n", encoding="ascii")
    (tmp_path / "out").mkdir()
    root = pipeline.headers(first.cache, checkout=first.checkout)
    link = ("-Wl,--no-as-needed", "-lgcc_s")
    argv = sandbox_argv(root, [CC, "-o", "/out/kata-agent", "/src/agent.c", *link], env=clean_env(),
                        read_only={"/src": tmp_path}, writable={"/out": tmp_path / "out"})
    run(argv, what="compiling an agent")
    image = pipeline.build("lab", out=tmp_path, cache=first.cache, checkout=first.checkout,
                           agent=tmp_path / "out/kata-agent")
    packages = {file.package for file in read_inventory(image.manifest).files.values()}
    assert "libgcc-s1" in packages
    assert not packages & {"libdevmapper1.02.1", "libseccomp2", "libselinux1"}
    assert "libgcc-s1" not in {file.package for file in read_inventory(first.build().manifest).files.values()}


def test_a_build_that_fails_leaves_the_earlier_image_and_no_mount(first: Place) -> None:
    image = first.build()
    before = digests(image)
    broken = first.checkout / "rootfs/slices/kata-agent.toml"
    good = broken.read_text(encoding="utf-8")
    broken.write_text(good.replace('"/usr/bin/kata-agent"]\ncount', '"/usr/bin/none"]\ncount'), encoding="utf-8")
    try:
        with pytest.raises(pipeline.BuildError, match="cannot be assembled"):
            first.build()
    finally:
        broken.write_text(good, encoding="utf-8")
    assert digests(image) == before
    assert str(first.cache) not in Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    assert not list((first.cache / "stages").glob(".unfinished-*"))


@pytest.mark.skipif(shutil.which("strip") is None, reason="strip is not installed")
def test_an_image_builder_that_strips_programs_takes_nothing_from_the_init(first: Place, tmp_path: Path) -> None:
    """Its modules are constants of the program, not something behind it or in a section of their own."""
    frozen = newest(first, "freeze") / "usr/lib/nvrc/nvrc"
    before, after = ELFFile(io.BytesIO(frozen.read_bytes())), tmp_path / "nvrc"
    subprocess.run(["strip", "--strip-all", "-o", after, frozen], check=True)
    constants = before.get_section_by_name(".rodata").data()
    assert ELFFile(io.BytesIO(after.read_bytes())).get_section_by_name(".rodata").data() == constants
    assert b"nvrc.pid1.main" in constants
