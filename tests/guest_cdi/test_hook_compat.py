# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path

import pytest

from fakes.compat_library import elf, note
from guest_cdi.hooks import compat
from guest_cdi.hooks.arguments import parse_calls
from guest_cdi.hooks.compat import HostVersions, is_compat_used, parse_version
from guest_cdi.hooks.elf_note import CompatNote
from guest_cdi.hooks.root import Root


@pytest.mark.parametrize(("text", "expected"), [
    ("595.58.03", (595, 58, 3)), ("535.54", (535, 54, 0)), ("v12", (12, 0, 0)), ("12.9", (12, 9, 0)),
    ("", None), ("a.b", None), ("1.2.3.4", None), ("1..2", None), ("1.-2", None), ("1.²", None), ("9" * 19, None),
])
def test_versions(text: str, expected: tuple[int, int, int] | None) -> None:
    assert parse_version(text) == expected


NOTE = CompatNote("12.9", (535, 570, 575))
NEWER, SAME, OLDER = (575, 57, 8), (570, 10, 0), (560, 0, 0)


@pytest.mark.parametrize(("found", "library", "driver", "cuda", "expected"), [
    (NOTE, NEWER, "570.10", "", True),
    (NOTE, NEWER, "575.57.07", "", True),
    (NOTE, NEWER, "575.57.08", "", False),
    (NOTE, NEWER, "580.1", "", False),
    (NOTE, NEWER, "560.1", "", False),
    (NOTE, NEWER, "", "12.8", True),
    (NOTE, NEWER, "", "12.9", False),
    (NOTE, NEWER, "", "", False),
    (NOTE, None, "570.10", "12.8", True),
    (CompatNote("", ()), None, "", "12.8", False),
    (CompatNote("x", ()), None, "", "12.8", False),
    (None, NEWER, "570.10", "", True),
    (None, NEWER, "575.1", "", False),
    (None, OLDER, "570.10", "", False),
    (None, (222, 88, 99), "99.55.66", "", True),
    (None, NEWER, "570.10", "12.8", False),
    (None, NEWER, "570.10", "junk", False),
    (None, None, "570.10", "", False),
    (None, NEWER, "", "", False),
])
def test_when_the_library_is_used(found: CompatNote | None, library: compat.Version | None, driver: str, cuda: str,
                                  expected: bool) -> None:
    host = HostVersions(parse_version(driver), parse_version(cuda), bool(cuda))
    assert is_compat_used(found, library, host) is expected


def container(tmp_path: Path, files: dict[str, bytes | str]) -> Path:
    """A tree; text is the target of a link, bytes the content of a file."""
    tree = tmp_path / "c"
    tree.mkdir()
    for name, content in files.items():
        place = tree / name.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(content) if isinstance(content, str) else place.write_bytes(content)
    return tree


def conf_lines(tree: Path, *argv: str) -> list[str]:
    (call,) = parse_calls(["enable-cuda-compat", *argv])
    with Root(str(tree)) as root:
        call.action(root)
    written = sorted((tree / "etc/ld.so.conf.d").glob("*")) if (tree / "etc/ld.so.conf.d").is_dir() else []
    assert all(path.name.startswith("00-compat-") and path.suffix == ".conf" for path in written)
    assert all((path.stat().st_mode & 0o777) == 0o644 for path in written)
    return [path.read_text() for path in written]


COMPAT = "/usr/local/cuda/compat"
DRIVER = "--host-driver-version=222.55.66"


@pytest.mark.parametrize(("files", "argv", "expected"), [
    ({}, [DRIVER], []),
    ({f"{COMPAT}/libcuda.so.333.88.99": b""}, [DRIVER], [f"{COMPAT}\n"]),
    ({f"{COMPAT}/libcuda.so.111.88.99": b""}, [DRIVER], []),
    ({f"{COMPAT}/libcuda.so.333.88.99": b""}, [], []),
    ({f"{COMPAT}/libcuda.so.333": b"", f"{COMPAT}/libcuda.so": b""}, [DRIVER], []),
    ({f"{COMPAT}/libcuda.so.333.1": b"", f"{COMPAT}/libcuda.so.444.1": b""}, [DRIVER], []),
    ({f"{COMPAT}/libcuda.so.333.1": b"", f"{COMPAT}/libcuda.so.1.1": "libcuda.so.333.1"}, [DRIVER], [f"{COMPAT}\n"]),
    ({f"{COMPAT}/libcuda.so.333.1": "/libcuda", "/libcuda": b""}, [DRIVER], []),
    ({"/usr/local/cuda": "/etc/alternatives/cuda", "/etc/alternatives/cuda/compat/libcuda.so.333.88.99": b""}, [DRIVER],
     ["/etc/alternatives/cuda/compat\n"]),
    ({"/usr/local/cuda": "../../../../../../", "/compat/libcuda.so.333.88.99": b""}, [DRIVER], ["/compat\n"]),
    ({"/usr/local/cuda": "/", "/compat": "/", "/libcuda.so.333.1": b""}, [DRIVER], ["/\n"]),
    ({COMPAT: b"a file"}, [DRIVER], []),
    ({f"{COMPAT}/libcuda.so.111.1": b"", f"{COMPAT}-other/libcuda.so.333.1": b""},
     [DRIVER, f"--cuda-compat-container-root={COMPAT}-other"], [f"{COMPAT}-other\n"]),
    ({f"{COMPAT}/libcuda.so.333.1": elf(note(b'{"Driver": [222]}'))}, [DRIVER], [f"{COMPAT}\n"]),
    ({f"{COMPAT}/libcuda.so.333.1": elf(note(b'{"Driver": [221]}'))}, [DRIVER], []),
    ({f"{COMPAT}/libcuda.so.333.1": elf(note(b"{"))}, [DRIVER], [f"{COMPAT}\n"]),
    ({f"{COMPAT}/libcuda.so.1.1": elf(note(b'{"CUDA Version": "13.2"}'))}, ["--host-cuda-version", "13.1"],
     [f"{COMPAT}\n"]),
], ids=["none", "newer", "older", "no-version", "one-number", "two", "link-beside", "only-a-link", "followed", "inside",
        "root", "no-directory", "other-directory", "branch-listed", "branch-missing", "broken-note", "by-cuda"])
def test_containers(tmp_path: Path, files: dict[str, bytes | str], argv: list[str], expected: list[str]) -> None:
    assert conf_lines(container(tmp_path, files), *argv) == expected


def test_a_directory_outside_of_the_root_has_no_name_in_it(tmp_path: Path) -> None:
    tree = container(tmp_path, {})
    outside = os.open(tmp_path, os.O_PATH)
    try:
        with Root(str(tree)) as root, pytest.raises(OSError, match="not below the container root"):
            compat.real_path(root, outside)
    finally:
        os.close(outside)
