# SPDX-License-Identifier: Apache-2.0
"""What may be run as ldconfig, and how its surroundings are told apart. The run itself is a namespace test."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guest_cdi.hooks import confine, ldcache
from guest_cdi.lean.errors import CdiError


def program(*kinds: int, ident: bytes = b"\x7fELF\x02\x01", count: int | None = None) -> bytes:
    """An ELF64 header with program headers of these types."""
    head = ident + bytes(16 - len(ident)) + bytes(16) + struct.pack("<Q", 64) + bytes(14)
    head += struct.pack("<HH", 56, len(kinds) if count is None else count) + bytes(6)
    return head + b"".join(struct.pack("<I", kind) + bytes(52) for kind in kinds)


@pytest.mark.parametrize(("content", "expected"), [
    (program(1, 2), True), (program(1, 3), False), (program(), False), (program(1, count=9), False), (b"", False),
    (program(*[1] * 65), False), (b"#!/bin/sh\nexec /sbin/ldconfig.real\n", False),
    (program(1, ident=b"\x7fELF\x01\x01"), False), (program(1)[:60], False),
    (program(1)[:32] + b"\xff" * 8 + program(1)[40:], False), (program(1)[:32] + b"\0" * 7 + b"\x80" + program(1)[40:], False),
    (program(1)[:54] + b"\0\0" + program(1)[56:], False), (b"\x7fELF\x02\x01" + b"\xff" * 8186, False),
])
def test_only_static_programs_of_this_kind(content: bytes, expected: bool) -> None:
    assert ldcache.is_static_program(content) is expected


@given(st.binary(max_size=200))
def test_any_header_is_judged(tail: bytes) -> None:
    assert ldcache.is_static_program(b"\x7fELF\x02\x01" + tail) in (True, False)


def test_the_real_one_is_preferred(tmp_path: Path) -> None:
    (tmp_path / "ldconfig").write_bytes(b"#!/bin/sh\n")
    (tmp_path / "ldconfig.real").write_bytes(program(1))
    with ldcache.load_program(str(tmp_path / "ldconfig")) as loaded:
        assert os.pread(loaded.fd, 1000, 0) == program(1)
        assert fcntl.fcntl(loaded.fd, 1034) == 0x0F  # F_GET_SEALS
        with pytest.raises(PermissionError):
            os.pwrite(loaded.fd, b"x", 0)


@pytest.mark.parametrize(("kind", "said"), [
    ("missing", "No such file"), ("directory", "not a regular file"), ("script", "would run code of the container"),
    ("fifo", "not a regular file"), ("loop", "symbolic links"),
])
def test_unusable_programs(tmp_path: Path, kind: str, said: str) -> None:
    place = tmp_path / "ldconfig"
    if kind == "directory":
        place.mkdir()
    elif kind == "script":
        place.write_text("#!/bin/sh\n")
    elif kind == "fifo":
        os.mkfifo(place)
    elif kind == "loop":
        place.symlink_to(place)
    with pytest.raises(CdiError, match="E_CDI_HOOK_LDCONFIG") as caught:
        ldcache.load_program(str(place))
    assert said in caught.value.what


TABLE = """\
21 1 254:0 / / rw,relatime - ext4 /dev/root rw
22 21 0:20 / /run rw - tmpfs tmpfs rw
23 22 0:21 / /run/a\\040b\\134c rw shared:1 - tmpfs tmpfs rw
"""


def test_mount_table() -> None:
    assert confine.mount_points(TABLE) == ("/", "/run", "/run/a b\\c")
    assert not confine.is_initramfs(TABLE)
    assert confine.is_initramfs("1 1 0:2 / / rw - rootfs rootfs rw\n22 1 0:20 / /run rw - tmpfs tmpfs rw\n")
    assert not confine.is_initramfs("1 1 0:2 / / rw - rootfs none rw\n21 1 254:0 / / rw - ext4 /dev/root rw\n")
    assert confine.is_initramfs("1 1 0:2 / / rw - rootfs none rw\n")
    assert confine.is_initramfs("1 1 254:0 / / rw - ext4 rootfs rw\n2 1 0:2 / / rw - rootfs none rw\n"), "the last one counts"
    assert not confine.is_initramfs("")
    odd = "1 1 0:2 / / rw - rootfs none rw\n2 1 0:20 /a\u2028b /c\x85d\u3000- rw shared:1 - tmpfs none rw\n"
    assert confine.mount_points(odd) == ("/", "/c\x85d\u3000-"), "what a container's author may call a folder"
    assert confine.is_initramfs(odd)
    assert confine.is_initramfs("1 1 0:2 / / rw - rootfs none rw\n2 1 0:20 / /x\u20281\u30001\u30000:1\u3000/\u3000/ rw - ext4 none rw\n")
    assert "/" in confine.mount_points(confine.read_mount_table())
