# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from errno import ENODEV, ENOENT, ENOSPC
from pathlib import Path

import pytest

from fakes.system import FakeSystem, bare_guest
from nvrc.engine.facts import Facts
from nvrc.machine import linux
from nvrc.steps import filesystems
from nvrc.vocabulary.errors import NvrcError

ALL = ["/proc", "/sys", "/dev", "/run", "/tmp", "/dev/pts", "/dev/shm"]


def targets(system: FakeSystem) -> list[str]:
    return [effect.split()[2] for effect in system.effects if effect.startswith("mount ")]


def test_bare_machine_gets_every_mount_in_order(tmp_path: Path) -> None:
    system = bare_guest(str(tmp_path))
    filesystems.run(system, Facts())
    assert targets(system) == ALL[1:]


def test_programs_run_from_run_and_nothing_else_is_allowed_there(tmp_path: Path) -> None:
    """kata-agent leaves a /run alone that is a tmpfs, and expects it to be nosuid and nodev, not noexec."""
    system = bare_guest(str(tmp_path))
    filesystems.run(system, Facts())
    flags = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_RELATIME
    assert f"mount run /run tmpfs {flags:#x} mode=0755" in system.effects


def test_proc_is_mounted_first_when_it_is_missing(tmp_path: Path) -> None:
    system = bare_guest(str(tmp_path))
    os.rename(system.real_path("/proc/self"), system.real_path("/proc/later"))
    with pytest.raises(FileNotFoundError):  # the fake's mount brings no files, so the step stops right behind it
        filesystems.run(system, Facts())
    assert targets(system) == ["/proc"]


def test_what_is_mounted_stays_as_it_is(tmp_path: Path) -> None:
    system = bare_guest(str(tmp_path))
    rows = "".join(f"x {row.target} {row.fstype} rw 0 0\n" for row in filesystems.MOUNTS)
    system.put("/proc/self/mounts", rows)
    filesystems.run(system, Facts())
    assert targets(system) == []


def test_another_file_system_on_dev_is_covered(tmp_path: Path) -> None:
    system = bare_guest(str(tmp_path))
    system.put("/proc/self/mounts", "none /dev tmpfs rw 0 0\n")
    filesystems.run(system, Facts())
    assert "mount devtmpfs /dev devtmpfs 0x200002 mode=0755" in system.effects


@pytest.mark.parametrize(("known", "directory", "mounted"), [
    pytest.param(True, True, True, id="kernel-and-image-have-it"),
    pytest.param(False, True, False, id="not-in-the-kernel"),
    pytest.param(True, False, False, id="no-directory"),
])
def test_optional_rows(tmp_path: Path, known: bool, directory: bool, mounted: bool) -> None:
    system = bare_guest(str(tmp_path))
    system.put("/proc/filesystems", "nodev\tsecurityfs\n" if known else "nodev\tsecurityfsx\nnodev\tfs\n\n")
    if directory:
        os.makedirs(system.real_path("/sys/kernel/security"))
    filesystems.run(system, Facts())
    assert ("/sys/kernel/security" in targets(system)) is mounted


def test_an_optional_mount_that_should_work_and_fails_is_fatal(tmp_path: Path) -> None:
    system = bare_guest(str(tmp_path))
    os.makedirs(system.real_path("/sys/kernel/config"))
    system.fail["mount /sys/kernel/config"] = OSError(ENODEV, "No such device")
    with pytest.raises(NvrcError, match="cannot mount configfs on /sys/kernel/config: No such device"):
        filesystems.run(system, Facts())


@pytest.mark.parametrize("target", ALL[1:])
@pytest.mark.parametrize(("number", "text"), [(ENODEV, "No such device"), (ENOENT, "not in the image")])
def test_each_mount_failing_is_fatal_and_named(tmp_path: Path, target: str, number: int, text: str) -> None:
    system = bare_guest(str(tmp_path))
    system.fail[f"mount {target}"] = OSError(number, os.strerror(number))
    with pytest.raises(NvrcError, match=f"on {target}: .*{text}") as caught:
        filesystems.run(system, Facts())
    assert caught.value.code == "E_MOUNT"


def test_links_of_dev(tmp_path: Path) -> None:
    system = bare_guest(str(tmp_path))
    system.put("/dev/ptmx")
    filesystems.run(system, Facts())
    links = {name: os.readlink(system.real_path(f"/dev/{name}")) for name in os.listdir(system.real_path("/dev"))
             if os.path.islink(system.real_path(f"/dev/{name}"))}
    assert links == {
        "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
        "core": "/proc/kcore", "ptmx": "pts/ptmx"}


def test_a_link_that_cannot_be_made_is_fatal(tmp_path: Path) -> None:
    system = bare_guest(str(tmp_path))
    system.fail["link /dev/ptmx pts/ptmx"] = OSError(ENOSPC, "No space left on device")
    with pytest.raises(NvrcError, match="cannot link /dev/ptmx to pts/ptmx: No space left"):
        filesystems.run(system, Facts())


def test_a_full_run_is_fatal_with_its_code(tmp_path: Path) -> None:
    system = bare_guest(str(tmp_path))
    system.fail["mkdir /run/nvrc"] = OSError(ENOSPC, "No space left on device")
    with pytest.raises(NvrcError) as caught:
        filesystems.run(system, Facts())
    assert caught.value.code == "E_RUN_FULL"


@pytest.mark.parametrize(("text", "types"), [
    pytest.param(b"", {}, id="empty"),
    pytest.param(b"x\ny /a\nproc /proc proc rw 0 0\n", {"/proc": "proc"}, id="short-lines"),
    pytest.param(b"a /x ext4 rw\nb /x tmpfs rw\n", {"/x": "tmpfs"}, id="topmost-wins"),
])
def test_mounted_types(text: bytes, types: dict[str, str]) -> None:
    assert filesystems.mounted_types(text) == types
