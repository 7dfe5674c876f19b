# SPDX-License-Identifier: Apache-2.0
"""update-ldcache with the real ldconfig of this machine, and with a spy in its place, on containers of several kinds."""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from guest_cdi.hooks import confine, ldcache
from guest_cdi.hooks.root import Handle, Root
from guest_cdi.hooks.syscalls import make_filter
from guest_cdi.lean.errors import CdiError
from namespace.hooks_cell import build, in_cell, make_tree, mount_points, run_program

pytestmark = pytest.mark.namespace

DEBIAN = {"etc/debian_version": "12", "proc": None, "lib": None}
KINDS: dict[str, dict[str, str | None]] = {
    "debian": DEBIAN,
    "other": {"etc/redhat-release": "9", "proc": None, "usr/lib64": None},
    "alpine": {"etc/alpine-release": "3.20", "proc": None},
    "no-etc": {"proc": None},
    "no-proc": {"etc": None},
    "configured": {"etc/ld.so.conf": "include /etc/ld.so.conf.d/*.conf\n", "etc/ld.so.conf.d/own.conf": "/own/lib\n"},
    "old-cache": {"etc/ld.so.cache": "junk" * 100},
}


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("library") / "libprobe.so.1.2"
    return build("hooks_probe_library.c", place, "-shared", "-fPIC", "-Wl,-soname,libprobe.so.1")


@pytest.fixture(scope="session")
def spy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("hooks_spy.c", tmp_path_factory.mktemp("spy") / "ldconfig", "-static")


def cache_of(tree: Path) -> list[tuple[str, str]]:
    """Library names and paths in the order of search, as this machine's ldconfig prints the cache."""
    printed = subprocess.run(["/sbin/ldconfig", "-p", "-C", str(tree / "etc/ld.so.cache")], capture_output=True, text=True,
                             check=True).stdout
    lines = [line.split() for line in printed.splitlines() if "=>" in line]
    return [(words[0], words[-1]) for words in lines]


@pytest.mark.parametrize("kind", KINDS)
def test_cache_covers_the_folders(tmp_path: Path, library: Path, kind: str) -> None:
    tree = make_tree(tmp_path, {**KINDS[kind], "opt/nv/lib": None})
    (tree / "opt/nv/lib/libprobe.so.1.2").write_bytes(library.read_bytes())
    before = mount_points()
    done = run_program(tree, "update-ldcache", "--folder", "/opt/nv/lib")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert cache_of(tree) == [("libprobe.so.1", "/opt/nv/lib/libprobe.so.1")]
    assert os.readlink(tree / "opt/nv/lib/libprobe.so.1") == "libprobe.so.1.2"
    assert mount_points() == before
    assert (tree / "etc/ld-musl-x86_64.path").exists() is (kind == "alpine")


def test_folders_of_the_hook_come_first(tmp_path: Path, library: Path) -> None:
    tree = make_tree(tmp_path, {"lib": None, "opt/nv": None, "proc": None})
    for place in ("lib", "opt/nv"):
        (tree / place / "libprobe.so.1").write_bytes(library.read_bytes())
    assert run_program(tree, "update-ldcache", "--folder=/opt/nv").returncode == 0
    assert cache_of(tree) == [("libprobe.so.1", "/opt/nv/libprobe.so.1"), ("libprobe.so.1", "/lib/libprobe.so.1")]


def test_read_only_root_is_an_error_that_says_so(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, DEBIAN)

    def body() -> None:
        subprocess.run(["mount", "--bind", str(tree), str(tree)], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(tree)], check=True)
        done = run_program(tree, "update-ldcache", "--folder", "/opt/nv/lib")
        assert done.returncode == 1
        assert "Read-only file system (E_CDI_HOOK)" in done.stderr

    in_cell(body)


def spied(tree: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (tree / "spy").read_text().splitlines():
        name, _, value = line.replace(":\t", " ", 1).partition(" ")
        found.setdefault(name, []).append(value)
    return found


CONFINED_CAPABILITIES = f"{0b1011:016x}"


def assert_confined(found: dict[str, list[str]], program: Path) -> None:
    assert found["argument"] == ["ldconfig", "-f", "/etc/ld.so.conf", "-C", "/etc/ld.so.cache"]
    assert "environment" not in found
    assert "descriptor" not in found
    assert found["pid"] == ["1"]
    assert [word for word in found["processes"][0].split() if word.isdigit()] == ["1"]
    assert found["exe"] == ["/memfd:ldconfig (deleted)"]
    assert found["inode"] != [f"{program.stat().st_dev}:{program.stat().st_ino}"]
    assert found["stdin"] == ["/dev/null"]
    for space in ("net", "ipc", "uts"):
        assert found[space] and found[space] != [os.readlink(f"/proc/self/ns/{space}")]
    assert [line.split() for line in found["Max"]] == [
        ["core", "file", "size", "0", "0", "bytes"], ["data", "size", str(512 << 20), str(512 << 20), "bytes"]]
    assert found["mknod"] == found["chroot"] == ["Function not implemented"]
    assert found["Seccomp"] == ["2"]
    assert found["CapEff"] == found["CapBnd"] == [CONFINED_CAPABILITIES]
    assert found["NoNewPrivs"] == ["1"]


def test_the_program_sees_the_container_and_nothing_else(tmp_path: Path, spy: Path) -> None:
    tree = make_tree(tmp_path, DEBIAN)
    hostile = {"LD_PRELOAD": "/evil.so", "LD_LIBRARY_PATH": "/evil", "GLIBC_TUNABLES": "x", "PYTHONPATH": "/evil"}
    leaked = os.open("/", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    try:
        done = run_program(tree, "update-ldcache", "--ldconfig-path", str(spy), environment=hostile)
    finally:
        os.close(leaked)
    assert done.returncode == 0, done.stderr
    found = spied(tree)
    assert_confined(found, spy)
    assert sorted(found["root"][0].split()) == ["etc", "lib", "proc", "spy"]
    assert [line.split()[4] for line in found["mount"]] == ["/", "/proc"]


@pytest.mark.parametrize(("mark", "said"), [("spy-fails", "exit status 7"), ("spy-sleeps", "no end after 0.5 s, killed")])
def test_a_program_that_fails_or_hangs(tmp_path: Path, spy: Path, mark: str, said: str) -> None:
    tree = make_tree(tmp_path, {**DEBIAN, mark: ""})
    with Root(str(tree)) as root, pytest.raises(CdiError, match="E_CDI_HOOK_LDCACHE") as caught:
        ldcache.update_cache((), str(spy), root, deadline_s=0.5 if mark == "spy-sleeps" else 8.0)
    assert said in caught.value.what


def test_a_program_that_prints_without_end_is_not_waited_for_and_quoted_in_part(tmp_path: Path, spy: Path) -> None:
    tree = make_tree(tmp_path, {**DEBIAN, "spy-prints": ""})
    with Root(str(tree)) as root:
        *_, said = ldcache.update_cache((), str(spy), root)
    # 300 bytes: 23 times thirteen, and the first of the next.
    assert said == "ldconfig: " + r"one line \x1b[2J" * 23 + "o"


def test_a_program_that_cannot_start_is_named(tmp_path: Path) -> None:
    (tmp_path / "ldconfig").write_bytes(b"\x7fELF\x02\x01" + bytes(26) + b"\x40" + bytes(21) + b"\x38\0\1\0" + bytes(70))
    tree = make_tree(tmp_path, DEBIAN)
    with Root(str(tree)) as root, pytest.raises(CdiError, match="Exec format error"):
        ldcache.update_cache((), str(tmp_path / "ldconfig"), root)


@pytest.mark.parametrize("is_initramfs", [False, True], ids=["pivot", "move"])
def test_enter_leaves_nothing_of_the_machine(tmp_path: Path, is_initramfs: bool) -> None:
    tree = make_tree(tmp_path, {"inside": "", "proc": None, "sub": None})

    def body() -> None:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(tree / "sub")], check=True)
        (tree / "sub/deep").touch()
        table = confine.read_mount_table()
        with Root(str(tree)) as root:
            points = (*confine.mount_points(table), "/no/such/mount")
            place = confine.Place(root.path, root.identity(), is_initramfs, points)
        with open("/proc/self/mountinfo", encoding="utf-8") as machine:  # lists what the opener's root can reach
            confine.enter(place)
            # What cannot be pivoted away from is covered, and has nothing left on it.
            assert [line.split()[4] for line in machine] == (["/", "/", "/sub", "/proc"] if is_initramfs else [])
        assert sorted(os.listdir("/")) == ["inside", "proc", "sub"]
        assert os.listdir("/sub") == ["deep"]
        assert os.getcwd() == "/"
        with open("/proc/self/mountinfo", encoding="utf-8") as stream:
            seen = {line.split()[4]: line.split()[5] for line in stream}
        assert seen.keys() == {"/", "/sub", "/proc"}
        assert {"nosuid", "nodev", "noexec"} <= set(seen["/proc"].split(","))

    in_cell(body)


def test_enter_notices_an_exchanged_root(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {})

    def body() -> None:
        with pytest.raises(RuntimeError, match="was exchanged for another directory"):
            confine.enter(confine.Place(str(tree), (0, 0), False, ()))

    in_cell(body)


def test_enter_refuses_a_linked_proc(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {"etc": None})
    (tree / "proc").symlink_to("etc")

    def body() -> None:
        with Root(str(tree)) as root:
            place = confine.Place(root.path, root.identity(), False, ())
        with pytest.raises(OSError, match="symbolic links"):
            confine.enter(place)

    in_cell(body)


def test_dropped_privileges_stay_dropped() -> None:
    def body() -> None:
        leaked = os.open("/", os.O_RDONLY)
        for fd in (1, 2, 3, leaked):  # 3 was open, or is what leaked
            os.set_inheritable(fd, True)
        confine.drop_privileges()
        assert [fd for fd in (1, 2, 3, leaked) if os.get_inheritable(fd)] == [1, 2]
        with open("/proc/self/status", encoding="utf-8") as stream:
            status = dict(line.split(":\t", 1) for line in stream if ":\t" in line)
        assert status["CapEff"] == status["CapPrm"] == status["CapBnd"] == CONFINED_CAPABILITIES + "\n"
        assert status["CapInh"].strip("0\n") == status["CapAmb"].strip("0\n") == ""
        confine.drop_privileges()  # once more, where the bounding set may no longer be changed

    in_cell(body)


def test_mounts_of_a_machine_that_shares_them_stay(tmp_path: Path, spy: Path) -> None:
    tree = make_tree(tmp_path, DEBIAN)

    def body() -> None:
        subprocess.run(["mount", "--make-rshared", "/"], check=True)
        before = mount_points()
        assert run_program(tree, "update-ldcache", "--ldconfig-path", str(spy)).returncode == 0
        assert [line.split()[4] for line in spied(tree)["mount"]] == ["/", "/proc"]
        assert mount_points() == before

    in_cell(body)


def test_a_program_that_the_kernel_refuses(tmp_path: Path) -> None:
    """The last step before the program, in a cell that it may use up."""
    tree = make_tree(tmp_path, DEBIAN)
    with Root(str(tree)) as root:
        place = confine.Place(root.path, root.identity(), False, ())

    def body() -> None:
        refused = pytest.raises(OSError, match=r"Exec format error|Permission denied")
        with Handle(os.memfd_create("no-program")) as empty, Handle(os.open(os.devnull, os.O_RDWR)) as null, refused:
            confine._become(empty.fd, ("x",), place, (null.fd,), make_filter(os.uname().machine))
        assert [*sys.path, *sys.path_hooks, *sys.meta_path, *sys.path_importer_cache] == []
        assert sorted(os.listdir("/")) == ["etc", "lib", "proc"]

    in_cell(body)


def test_the_program_does_not_outlive_the_hook(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, DEBIAN)
    allow_all = struct.pack("<HBBI", 6, 0, 0, 0x7FFF0000)
    with Root(str(tree)) as root:
        place = confine.Place(root.path, root.identity(), False, ())

    def body() -> None:
        libc, signal = ctypes.CDLL(None), ctypes.c_int()
        refused = pytest.raises(OSError, match=r"Exec format error|Permission denied")
        with Handle(os.memfd_create("no-program")) as empty, Handle(os.open(os.devnull, os.O_RDWR)) as null, refused:
            confine._become(empty.fd, ("x",), place, (null.fd,), allow_all)
        assert libc.prctl(2, ctypes.byref(signal)) == 0  # PR_GET_PDEATHSIG
        assert signal.value == 9

    in_cell(body)


def test_nothing_is_imported_from_the_container(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {"evil/hooks_unknown_module.py": "open('/owned', 'w').close()\n"})
    with Root(str(tree)) as root:
        place = confine.Place(root.path, root.identity(), False, ())

    def enter_and_import(forbid: bool) -> None:
        import sys

        sys.path.append("/evil")  # as /usr/lib/python3.x is: a path of the machine that the container has, too
        if forbid:
            confine.forbid_imports()
        confine.enter(place)
        __import__("hooks_unknown_module")

    def refused() -> None:
        with pytest.raises((ImportError, ImportWarning)):
            enter_and_import(True)

    in_cell(refused)
    assert not (tree / "owned").exists()
    in_cell(lambda: enter_and_import(False))
    assert (tree / "owned").exists()


def test_what_a_child_says_is_bounded() -> None:
    def body() -> NoReturn:
        raise ValueError("x" * 9000)

    reader, writer = os.pipe()
    os.waitpid(confine.fork(body, writer), 0)
    with Handle(reader), Handle(writer):
        assert len(os.read(reader, 9000)) == 4096


@pytest.mark.parametrize("failure", [
    KeyboardInterrupt(), OSError(2, "No such file or directory", "x"), ValueError("\udcff"),
])
def test_a_child_that_fails_says_why(failure: BaseException) -> None:
    def body() -> NoReturn:
        raise failure

    reader, writer = os.pipe()
    child = confine.fork(body, writer)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 125
    assert os.read(reader, 1000).decode("utf-8", "surrogateescape").startswith(f"{type(failure).__name__}: {failure}")
    os.close(reader)
    # The namespace was for that child: its end is not the end of ours.
    assert subprocess.run(["readlink", "/proc/self/ns/pid"], capture_output=True, text=True, check=True).stdout.strip() \
        == os.readlink("/proc/self/ns/pid")
