# SPDX-License-Identifier: Apache-2.0
"""Hooks whose effect takes root: device nodes, mounts, and a kernel without the calls that they rely on."""

from __future__ import annotations

import ctypes
import errno
import io
import os
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from guest_cdi.hooks import main as hooks
from guest_cdi.hooks import params
from guest_cdi.hooks.profile import PROFILE, write_profile
from guest_cdi.hooks.root import Root, create_file
from guest_cdi.lean import linux
from namespace.hooks_cell import in_cell, make_tree, run_program

pytestmark = pytest.mark.namespace

PARAMS = b"ResmanDebugLevel: 4294967295\nModifyDeviceFiles: 1\nDeviceFileUID: 0\n"
COVERED = "/proc/version"  # a file of procfs that every kernel has; the driver's own only exists with the driver


def make_node(tree: Path, name: str, minor: int, kind: int = stat.S_IFCHR) -> None:
    (tree / "dev").mkdir(exist_ok=True)
    os.mknod(tree / "dev" / name, kind | 0o600, os.makedev(195, minor))


def test_profile_lists_the_gpus_of_the_container(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {"dev/nvidia9": ""})
    for name, minor in (("nvidia0", 0), ("nvidia7", 5), ("nvidiactl", 255), ("nvidia-uvm", 1), ("nvidia70", 70)):
        make_node(tree, name, minor)
    make_node(tree, "nvidia2", 2, stat.S_IFBLK)
    place = tree / PROFILE.lstrip("/")
    for _ in range(2):
        with Root(str(tree)) as root:
            assert write_profile(root) == [f"{PROFILE} mask 0x21"]
        assert b'"EGLVisibleDGPUDevices",0x21]' in place.read_bytes()
        assert stat.S_IMODE(place.stat().st_mode) == 0o444
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o555
    assert os.listdir(place.parent) == [place.name]


def test_chmod_reaches_a_device_node_without_opening_it(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {})
    make_node(tree, "nothing", 199)  # no driver answers for this number: an open would fail
    assert run_program(tree, "chmod", "--mode", "666", "--path", "/dev/nothing").returncode == 0
    assert stat.S_IMODE((tree / "dev/nothing").stat().st_mode) == 0o666


def mount_proc(tree: Path) -> None:
    subprocess.run(["mount", "-t", "proc", "proc", str(tree / "proc")], check=True)


def test_params_are_covered_for_good(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {"proc": None})
    (tmp_path / "params").write_bytes(PARAMS)

    def body() -> None:
        mount_proc(tree)
        for expected in ([f"{COVERED} covered"], []):
            with Root(str(tree)) as root:
                assert params.cover_params(root, str(tmp_path / "params"), COVERED) == expected
        assert Path(f"{tree}{COVERED}").read_bytes() == PARAMS.replace(b"Files: 1", b"Files: 0")
        with open("/proc/self/mountinfo", encoding="utf-8") as stream:
            mounts = {line.split()[4].removeprefix(str(tree)): line.split() for line in stream}
        (scratch,) = [point for point in mounts if point.startswith("/run/nvidia-ctk-hook")]
        for point, root_of_mount in ((COVERED, "/nvct-params"), (scratch, "/")):
            fields = mounts[point]
            assert fields[3] == root_of_mount
            assert {"ro", "nosuid", "nodev", "noexec"} <= set(fields[5].split(","))
            assert "tmpfs" in fields
            assert "shared" not in " ".join(fields)
        assert os.listdir(f"{tree}{scratch}") == ["nvct-params"]
        for place in (f"{tree}{COVERED}", f"{tree}{scratch}/nvct-params"):
            with pytest.raises(OSError, match="Read-only file system"):
                os.open(place, os.O_WRONLY)

    in_cell(body)


def test_the_command_covers_what_the_driver_shows(tmp_path: Path) -> None:
    """With a file of procfs in the driver's place, through the whole program."""
    tree = make_tree(tmp_path, {"proc": None})
    (tmp_path / "driver").mkdir()
    (tmp_path / "driver/nvidia").mkdir()
    (tmp_path / "driver/nvidia/params").write_bytes(PARAMS)

    def body() -> None:
        mount_proc(tree)
        subprocess.run(["mount", "--bind", str(tmp_path / "driver"), "/proc/driver"], check=True)
        done = run_program(tree, "disable-device-node-modification")
        assert done.returncode == 1
        # The container's /proc has no driver directory of that name, so there is nothing to cover, and that is said.
        assert "proc/driver/nvidia/params: No such file or directory (E_CDI_HOOK)" in done.stderr

    in_cell(body)


def refuse(number: int, error: int = errno.ENOSYS) -> None:
    """A seccomp filter under which this system call fails; with ENOSYS it does not exist, as on an older kernel."""
    # load the number; if it is this one, pass over the next line; allow; refuse
    program = ((0x20, 0, 0, 0), (0x15, 1, 0, number), (0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x00050000 | error))
    code = b"".join(struct.pack("=HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code)
    header = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    libc = ctypes.CDLL(None)
    assert libc.prctl(22, 2, ctypes.create_string_buffer(header), 0, 0) == 0


OPENAT2, FSOPEN = 437, 430


def run_main(tree: Path, *argv: str) -> tuple[int, str]:
    sys.stderr = io.StringIO()
    status = hooks.main(list(argv), io.BytesIO(f'{{"root": "{tree}"}}'.encode()))
    return status, sys.stderr.getvalue()


def test_without_openat2_hooks_refuse(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {})

    def body() -> None:
        refuse(OPENAT2)
        status, said = run_main(tree, "create-symlinks", "--link", "t::/l")
        assert status == 1
        assert "Function not implemented (E_CDI_HOOK_KERNEL): container paths can only be confined with openat2" in said

    in_cell(body)
    assert os.listdir(tree) == []


def test_a_path_that_never_stands_still_is_given_up(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {})

    def body() -> None:
        refuse(OPENAT2, errno.EAGAIN)
        status, said = run_main(tree, "create-symlinks", "--link", "t::/l")
        assert status == 1
        assert "/: Resource temporarily unavailable (E_CDI_HOOK_ROOT)" in said

    in_cell(body)


def test_a_full_disk_leaves_no_half_file(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {})

    def body() -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(tree)], check=True)
        said = pytest.raises(OSError, match="No space left on device: '/big'")
        with Root(str(tree)) as root, root.open("/") as top, said:
            create_file(top, "big", bytes(1 << 16), 0o644)
        assert os.listdir(tree) == []

    in_cell(body)


def test_without_the_mount_calls_params_are_refused(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {"proc": None})
    (tmp_path / "params").write_bytes(PARAMS)

    def body() -> None:
        mount_proc(tree)
        refuse(FSOPEN)
        with Root(str(tree)) as root, pytest.raises(OSError, match="Function not implemented: 'tmpfs'"):
            params.cover_params(root, str(tmp_path / "params"), COVERED)

    in_cell(body)
