# SPDX-License-Identifier: Apache-2.0
"""A kernel of the caller's: what must be in its folder, and that the rest of the factory takes it for a package's."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from fakes.elves import make_module
from nvrc_build.ground.errors import BuildError
from nvrc_build.products import given_kernel
from nvrc_build.products.kernel import find_release, image_path, read_config, select_modules

RELEASE = "6.18.0-mine"


def make_image(release: str = RELEASE) -> bytes:
    """The head of a bzImage: magic, and where the version stands."""
    head = bytearray(0x1000)
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x20E, 0x400)
    head[0x600:0x600 + len(release) + 20] = release.encode() + b" (x@y) #1 SMP".ljust(20, b"\0")
    return bytes(head)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "mine"
    (made / "modules/kernel/fs").mkdir(parents=True)
    (made / "vmlinuz").write_bytes(make_image())
    (made / "config").write_text("CONFIG_MODULES=y\n")
    (made / "modules/modules.builtin").write_text("kernel/fs/ext4.ko\n")
    (made / "modules/kernel/fs/erofs.ko").write_bytes(make_module("erofs") + f"\0vermagic={RELEASE} SMP\0".encode())
    return made


def test_it_is_laid_out_as_a_package_of_a_distribution(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    given_kernel.arrange(folder, out)
    assert find_release(out) == RELEASE
    assert image_path(out).read_bytes() == make_image()
    assert read_config(out) == {"CONFIG_MODULES": "y"}
    assert [module.name for module in select_modules(out, ["erofs", "ext4"])] == ["erofs"]


def test_a_kernel_that_loads_no_modules_needs_none(folder: Path, tmp_path: Path) -> None:
    (folder / "config").write_text("# CONFIG_MODULES is not set\n")
    (folder / "modules/modules.builtin").unlink()
    out = tmp_path / "out"
    out.mkdir()
    given_kernel.arrange(folder, out)
    assert find_release(out) == RELEASE


@pytest.mark.parametrize(("path", "content", "finding"), [
    pytest.param("config", None, "there is no config", id="no-config"),
    pytest.param("vmlinuz", None, "there is no vmlinuz", id="no-image"),
    pytest.param("modules/modules.builtin", None, "it loads modules (CONFIG_MODULES=y), and there is no", id="no-modules"),
    pytest.param("vmlinuz", make_image("6.1.0"), "modules/kernel/fs/erofs.ko is not of release 6.1.0", id="other-release"),
    pytest.param("headers/include/config/kernel.release", b"6.1.0\n", "headers/ is not of release", id="other-headers"),
])
def test_what_does_not_fit_together_is_all_told(folder: Path, path: str, content: bytes | None, finding: str) -> None:
    if content is None:
        (folder / path).unlink()
    else:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    with pytest.raises(BuildError) as caught:
        given_kernel.check(folder)
    assert [line for line in caught.value.findings if line.startswith(finding)]


@pytest.mark.parametrize("data", [b"", b"\x7fELF" + bytes(4096), make_image()[:0x600] + bytes(64)], ids=["empty", "vmlinux", "no-release"])
def test_an_image_that_is_none_is_refused(folder: Path, data: bytes) -> None:
    (folder / "vmlinuz").write_bytes(data)
    with pytest.raises(BuildError, match="give arch/x86/boot/bzImage"):
        given_kernel.check(folder)
