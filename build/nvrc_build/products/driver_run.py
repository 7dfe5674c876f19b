# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's installer file (NVIDIA-Linux-x86_64-VERSION.run) as a package: its files where the image shall have them.

The file is a script with a compressed tar archive behind it. The script is never run: the archive begins at the first
line that is no text. Of the installer's many files those are laid out that a guest can use: libraries with the names
their programs look for, programs, GSP firmware, the sources of the open kernel modules.
"""

from __future__ import annotations

import lzma
import re
import shutil
import zlib
from pathlib import Path

from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.run import find, save
from nvrc_build.supply.extract import MOST_BYTES, extract
from nvrc_build.tree.elf import read_needs

SOURCE = "usr/src/nvidia-run"
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_HEAD_BYTES = 4 << 20
# Of xz a dictionary may have 4 GiB, and a byte may become seven thousand.
_MOST_MEMORY, _CHUNK = 1 << 30, 1 << 12
_MAGICS = {"xz": b"\xfd7zXZ\0", "zstd": b"\x28\xb5\x2f\xfd", "gzip": b"\x1f\x8b\x08"}
_VERSION = re.compile(r"libcuda\.so\.(\d+\.\d+(?:\.\d+)?)")
_PROGRAMS = ("nvidia-smi", "nvidia-persistenced", "nvidia-modprobe", "nvidia-debugdump", "nvidia-cuda-mps-control",
             "nvidia-cuda-mps-server")
_OTHERS = {"nvidia.icd": "etc/OpenCL/vendors/nvidia.icd", "LICENSE": "usr/share/doc/@nvidia-run/LICENSE",
           "sandboxutils-filelist.json": "usr/share/nvidia/files.d/sandboxutils-filelist.json"}


def arrange(installer: Path, out: Path) -> None:
    unpacked = out / "unpacked"
    _unpack(installer, unpacked)
    inside = _find_top(unpacked, installer)
    version = next((hit[1] for path in sorted(inside.iterdir()) if (hit := _VERSION.fullmatch(path.name))), "")
    if not version or not (inside / "kernel-open").is_dir():
        raise BuildError(f"{installer.name} has no driver of NVIDIA's: libcuda.so.VERSION or kernel-open/ is missing",
                         "give NVIDIA-Linux-x86_64-VERSION.run, of a release with open kernel modules")
    for path in sorted(inside.glob("lib*.so.*")):
        _place_library(path, out / _LIBRARIES)
    for name in _PROGRAMS:
        _place(inside / name, out / "usr/bin" / name, 0o755)
    for path in sorted((inside / "firmware").glob("*.bin")):
        _place(path, out / "usr/lib/firmware/nvidia" / version / path.name, 0o644)
    for name, target in _OTHERS.items():
        _place(inside / name, out / target, 0o644)
    (out / SOURCE).parent.mkdir(parents=True)
    (inside / "kernel-open").rename(out / SOURCE)
    shutil.rmtree(unpacked)


def _unpack(installer: Path, target: Path) -> None:
    with installer.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
        hits = {name: head.find(b"\n" + magic) for name, magic in _MAGICS.items()}
        found = {name: at + 1 for name, at in hits.items() if at >= 0}
        if not head.startswith(b"#!") or not found:
            raise BuildError(f"{installer.name} is not an installer: a script with an archive behind it",
                             "give NVIDIA-Linux-x86_64-VERSION.run as it was published")
        name = min(found, key=found.__getitem__)
        stream.seek(found[name])
        packed = target.with_suffix(f".{name}")
        with packed.open("wb") as copy:
            shutil.copyfileobj(stream, copy)
    plain = target.with_suffix(".tar")
    try:
        _decompress(name, packed, plain)
        extract("the driver's installer", plain, target)
    finally:
        packed.unlink()
        plain.unlink(missing_ok=True)


def _decompress(name: str, packed: Path, plain: Path) -> None:
    if name == "zstd":
        save([find("zstd", "zstd"), "-q", "-d", "-c", packed], plain, MOST_BYTES, what=f"unpacking {packed.name}")
        return
    decoder = lzma.LZMADecompressor(memlimit=_MOST_MEMORY) if name == "xz" else zlib.decompressobj(wbits=31)
    with packed.open("rb") as stream, plain.open("wb") as out:
        while not decoder.eof and (chunk := stream.read(_CHUNK)):
            try:
                out.write(decoder.decompress(chunk))
            except (lzma.LZMAError, zlib.error) as wrong:
                raise BuildError(f"the installer's archive is damaged: {wrong}",
                                 "give the installer as it was published") from wrong
            if out.tell() > MOST_BYTES:
                raise BuildError(f"the installer's archive gives more than {MOST_BYTES / 1e9:.1f} GB",
                                 "give the installer as it was published")


def _find_top(unpacked: Path, installer: Path) -> Path:
    """The files lie at the top, or in the one folder that is there."""
    rows = list(unpacked.iterdir())
    if not rows:
        raise BuildError(f"{installer.name} is empty", "give the installer as it was published")
    return rows[0] if len(rows) == 1 and rows[0].is_dir() else unpacked


def _place_library(path: Path, folder: Path) -> None:
    needs = read_needs(path.read_bytes(), f"/{_LIBRARIES}/{path.name}")
    if needs is None:
        return
    _place(path, folder / path.name, 0o644)
    names = {needs.soname, f"{path.name.partition('.so.')[0]}.so"} - {"", path.name}
    for name in sorted(names):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(path.name)


def _place(path: Path, target: Path, mode: int) -> None:
    if path.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        target.chmod(mode)
