# SPDX-License-Identifier: Apache-2.0
"""create-symlinks, chmod and update-application-profile on small trees."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from guest_cdi.hooks import params, profile
from guest_cdi.hooks.arguments import parse_calls
from guest_cdi.hooks.root import Root


def run_hook(tree: Path, *argv: str) -> Sequence[str]:
    (call,) = parse_calls(argv)
    with Root(str(tree)) as root:
        return call.action(root)


def test_links_are_made_with_their_parents(tmp_path: Path) -> None:
    done = run_hook(tmp_path, "create-symlinks", "--link", "libcuda.so.1::/usr/lib/libcuda.so", "--link", "/a::b/c/d")
    assert done == ["/usr/lib/libcuda.so -> libcuda.so.1", "/b/c/d -> /a"]
    assert os.readlink(tmp_path / "usr/lib/libcuda.so") == "libcuda.so.1"
    assert os.readlink(tmp_path / "b/c/d") == "/a"
    assert ((tmp_path / "b/c").stat().st_mode & 0o777) == 0o755
    assert sorted(os.listdir(tmp_path / "b/c")) == ["d"]


def test_a_right_link_is_left_alone_and_repeats_count_once(tmp_path: Path) -> None:
    (tmp_path / "l").symlink_to("t")
    before = (tmp_path / "l").lstat().st_ino
    assert run_hook(tmp_path, "create-symlinks", "--link", "t::/l", "--link", "t::/l", "--link", "u::/m") == ["/m -> u"]
    assert (tmp_path / "l").lstat().st_ino == before


@pytest.mark.parametrize("kind", ["file", "link", "dangling", "fifo"])
def test_what_has_the_name_gives_way(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "name"
    if kind == "file":
        place.touch()
    elif kind == "fifo":
        os.mkfifo(place)
    else:
        place.symlink_to("/etc" if kind == "link" else "gone")
    assert run_hook(tmp_path, "create-symlinks", "--link", "t::/name") == ["/name -> t"]
    assert os.readlink(place) == "t"


def test_a_directory_does_not_give_way(tmp_path: Path) -> None:
    (tmp_path / "name").mkdir()
    with pytest.raises(IsADirectoryError):
        run_hook(tmp_path, "create-symlinks", "--link", "t::/name")
    assert os.listdir(tmp_path) == ["name"]


def test_modes(tmp_path: Path) -> None:
    for name in ("dri", "caps", "file"):
        (tmp_path / name).mkdir(mode=0o700) if name != "file" else (tmp_path / name).touch(0o600)
    (tmp_path / "caps").chmod(0o755)
    done = run_hook(tmp_path, "chmod", "--mode", "755",
                    *(f"--path=/{name}" for name in ("dri", "caps", "file", "gone")))
    assert done == ["/dri mode 755", "/file mode 755"]
    assert ((tmp_path / "dri").stat().st_mode & 0o7777) == 0o755


def test_mode_of_a_link_is_that_of_its_target_in_the_container(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "outside").mkdir(mode=0o700)
    (tmp_path / "c/outside").mkdir(mode=0o700)
    (tmp_path / "c/dri").symlink_to("../outside")
    assert run_hook(tmp_path / "c", "chmod", "--mode", "755", "--path", "/dri") == ["/dri mode 755"]
    assert ((tmp_path / "outside").stat().st_mode & 0o777) == 0o700


@pytest.mark.parametrize(("name", "expected"), [
    ("nvidia0", True), ("nvidia17", True), ("nvidia", False), ("nvidiactl", False), ("nvidia-uvm", False),
    ("nvidia1x", False), ("nvidia²", False), ("xnvidia0", False),
])
def test_gpu_names(name: str, expected: bool) -> None:
    assert profile.is_gpu_name(name) is expected


@pytest.mark.parametrize(("minors", "mask"), [
    ([], 0), ([0], 1), ([0, 3, 63], 0x8000000000000009), ([64, 1], 2), ([64], 0),
])
def test_gpu_mask(minors: list[int], mask: int) -> None:
    assert profile.gpu_mask(minors) == mask


def test_profile_is_what_the_driver_reads() -> None:
    text = profile.render(0x11).decode()
    assert text == ('{"profiles":[{"name":"_container_","settings":["EGLVisibleDGPUDevices",0x11]}],'
                    '"rules":[{"pattern":[],"profile":"_container_"}]}')
    assert json.loads(text.replace("0x11", "17"))["rules"] == [{"pattern": [], "profile": "_container_"}]


@pytest.mark.parametrize("entries", [None, (), ("nvidia0", "null")], ids=["no-dev", "empty", "only-files"])
def test_without_gpu_nodes_there_is_no_profile(tmp_path: Path, entries: tuple[str, ...] | None) -> None:
    if entries is not None:
        (tmp_path / "dev").mkdir()
        for name in entries:
            (tmp_path / "dev" / name).touch()
    assert run_hook(tmp_path, "update-application-profile") == []
    assert not (tmp_path / "etc").exists()


PARAMS = b"ResmanDebugLevel: 4294967295\nModifyDeviceFiles: 1\nDeviceFileUID: 0\n"


def test_forbid_changes_one_line() -> None:
    assert params.forbid(PARAMS) == PARAMS.replace(b"Files: 1", b"Files: 0")
    assert params.forbid(b"ModifyDeviceFiles: 1") == b"ModifyDeviceFiles: 0\n"


@pytest.mark.parametrize("content", [None, b"", b"ModifyDeviceFiles: 0\n", b"ModifyDeviceFiles: 11\n"])
def test_nothing_to_forbid(tmp_path: Path, content: bytes | None) -> None:
    source = tmp_path / "params"
    if content is not None:
        source.write_bytes(content)
    (tmp_path / "c").mkdir()
    with Root(str(tmp_path / "c")) as root:
        assert params.cover_params(root, str(source)) == []
    assert os.listdir(tmp_path / "c") == []


@pytest.mark.parametrize(("target", "said"), [
    ("/proc/driver/nvidia/params", "is not on procfs"),
    ("/fifo", "is not on procfs"),
    ("/linked/driver/nvidia/params", "symbolic links"),
    ("/proc/gone", "No such file"),
])
def test_only_procfs_is_covered(tmp_path: Path, target: str, said: str) -> None:
    (tmp_path / "params").write_bytes(PARAMS)
    tree = tmp_path / "c"
    (tree / "proc/driver/nvidia").mkdir(parents=True)
    (tree / "proc/driver/nvidia/params").touch()
    (tree / "linked").symlink_to("proc")
    os.mkfifo(tree / "fifo")
    with Root(str(tree)) as root, pytest.raises(Exception, match=said):
        params.cover_params(root, str(tmp_path / "params"), target)
    assert sorted(os.listdir(tree)) == ["fifo", "linked", "proc"]


def test_the_real_hook_has_nothing_to_do_without_a_driver(tmp_path: Path) -> None:
    if os.path.exists(params.PARAMS):
        pytest.skip("this machine has an NVIDIA driver")
    assert run_hook(tmp_path, "disable-device-node-modification") == []
