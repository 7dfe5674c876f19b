# SPDX-License-Identifier: Apache-2.0
"""A kernel that the caller built, laid out as a distribution's package is. Compiles nothing and changes no byte.

A folder with `vmlinuz`, `config`, `modules/` (what `make modules_install` leaves in lib/modules/RELEASE; absent for a
kernel that loads none) and, where a driver is compiled for it, `headers/`: one tree that modules can be built against.
The release is the kernel image's own word; x86 boot protocol, Documentation/arch/x86/boot.rst.
"""

from __future__ import annotations

import itertools
import shutil
import struct
from pathlib import Path

from nvrc_build.ground.errors import BuildError
from nvrc_build.supply.extract import check_folder
from nvrc_build.supply.room import Room

_LAYOUT = "lay it out: vmlinuz, config, modules/ and, for a driver, headers/"
_MAGIC, _VERSION = slice(0x202, 0x206), 0x20E
_MOST_MODULE, _MOST_CONFIG = 256 << 20, 16 << 20
_LISTS = ("modules.builtin", "modules.builtin.modinfo", "modules.order")


def release(image: Path) -> str:
    with image.open("rb") as stream:
        head = stream.read(1 << 16)
    if len(head) < _VERSION + 2 or head[_MAGIC] != b"HdrS":
        raise BuildError(f"kernel {image} is not a bzImage for x86", "give arch/x86/boot/bzImage of the build")
    (pointer,) = struct.unpack_from("<H", head, _VERSION)
    words = head[pointer + 0x200:].split(b"\0", 1)[0].split()
    if not words:
        raise BuildError(f"kernel {image} does not say its release", "give arch/x86/boot/bzImage of the build")
    return words[0].decode("ascii", "replace")


def check(folder: Path) -> str:
    """The release, or everything that does not fit together."""
    if (folder / "modules").is_dir():
        check_folder("kernel modules", folder / "modules")
    findings = [finding for name in ("vmlinuz", "config") if (finding := _lacks(folder / name))]
    if findings:
        raise BuildError(f"kernel {folder} is not complete", _LAYOUT, findings=tuple(findings))
    found, loads = release(folder / "vmlinuz"), loads_modules(folder / "config")
    if loads and not (folder / "modules/modules.builtin").is_file():
        findings.append("it loads modules (CONFIG_MODULES=y), and there is no modules/modules.builtin")
    modules = (path for path in sorted((folder / "modules").rglob("*.ko")) if not path.is_symlink())
    for path in itertools.islice(modules, 1):
        if f"vermagic={found} ".encode() not in _read(path, _MOST_MODULE):
            findings.append(f"modules/{path.relative_to(folder / 'modules')} is not of release {found}")
    headers = folder / "headers/include/config/kernel.release"
    if headers.is_file() and _read(headers, 256).decode("ascii", "replace").strip() != found:
        findings.append(f"headers/ is not of release {found}")
    if findings:
        raise BuildError(f"kernel {folder} does not fit together", _LAYOUT, findings=tuple(findings))
    return found


def _lacks(file: Path) -> str:
    if not file.is_file():
        return f"there is no {file.name}"
    return f"{file.name} has {file.stat().st_size / 1e9:.1f} GB" if file.stat().st_size > Room().file_size else ""


def loads_modules(config: Path) -> bool:
    return "CONFIG_MODULES=y" in _read(config, _MOST_CONFIG).decode("utf-8", "replace").splitlines()


def _read(file: Path, most: int) -> bytes:
    with file.open("rb") as stream:
        return stream.read(most)


def arrange(folder: Path, out: Path) -> None:
    found = check(folder)
    (out / "boot").mkdir()
    for name in ("vmlinuz", "config"):
        shutil.copyfile(folder / name, out / "boot" / f"{name}-{found}")
    target = out / "usr/lib/modules" / found
    if (folder / "modules").is_dir():
        shutil.copytree(folder / "modules", target, symlinks=True, ignore=shutil.ignore_patterns("build", "source"))
    target.mkdir(parents=True, exist_ok=True)
    for name in _LISTS:
        (target / name).touch()
