# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's installer file as a package: a script with an archive behind it, never run."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.elves import make_elf
from nvrc_build.ground.errors import BuildError
from nvrc_build.products.driver_run import SOURCE, arrange

VERSION = "580.95.05"
SCRIPT = b"#! /bin/sh\nskip=3\ntouch /it-was-run; exit 1\n"


def pack(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in files.items():
            row = tarfile.TarInfo(f"./{name}")
            row.size = len(data)
            tar.addfile(row, io.BytesIO(data))
    return stream.getvalue()


FILES = {
    f"libcuda.so.{VERSION}": make_elf(soname="libcuda.so.1"),
    f"libnvidia-ml.so.{VERSION}": make_elf(soname="libnvidia-ml.so.1"),
    f"32/libcuda.so.{VERSION}": b"32 bits",
    "nvidia-smi": make_elf(), "nvidia-persistenced": make_elf(), "nvidia-installer": make_elf(),
    "firmware/gsp_ga10x.bin": b"ga10x", "nvidia.icd": b"libnvidia-opencl.so.1\n",
    "kernel-open/Makefile": b"modules:\n", "kernel-open/nvidia/nv.c": b"",
}


@pytest.mark.parametrize("compress", [lzma.compress, gzip.compress], ids=["xz", "gzip"])
def test_what_a_guest_can_use_lies_where_the_image_has_it(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    installer, out = tmp_path / "x.run", tmp_path / "out"
    installer.write_bytes(SCRIPT + compress(pack(FILES)))
    out.mkdir()
    arrange(installer, out)
    found = {str(path.relative_to(out)): str(path.readlink()) if path.is_symlink() else f"{path.stat().st_mode & 0o777:o}"
             for path in sorted(out.rglob("*")) if not path.is_dir() or path.is_symlink()}
    lib = "usr/lib/x86_64-linux-gnu"
    assert found == {
        "etc/OpenCL/vendors/nvidia.icd": "644", "usr/bin/nvidia-persistenced": "755", "usr/bin/nvidia-smi": "755",
        f"usr/lib/firmware/nvidia/{VERSION}/gsp_ga10x.bin": "644",
        f"{lib}/libcuda.so": f"libcuda.so.{VERSION}", f"{lib}/libcuda.so.1": f"libcuda.so.{VERSION}",
        f"{lib}/libcuda.so.{VERSION}": "644", f"{lib}/libnvidia-ml.so": f"libnvidia-ml.so.{VERSION}",
        f"{lib}/libnvidia-ml.so.1": f"libnvidia-ml.so.{VERSION}", f"{lib}/libnvidia-ml.so.{VERSION}": "644",
        f"{SOURCE}/Makefile": found[f"{SOURCE}/Makefile"], f"{SOURCE}/nvidia/nv.c": found[f"{SOURCE}/nvidia/nv.c"],
    }
    assert not Path("/it-was-run").exists()


@pytest.mark.parametrize(("data", "expected"), [
    pytest.param(b"\x7fELF", "is not an installer", id="no-script"),
    pytest.param(SCRIPT, "is not an installer", id="no-archive"),
    pytest.param(SCRIPT + lzma.compress(pack({"x": b"y"})), "has no driver of NVIDIA's", id="another-archive"),
    pytest.param(SCRIPT + lzma.compress(pack(FILES))[:200], "damaged|cannot be unpacked", id="cut"),
    pytest.param(SCRIPT + lzma.compress(pack({"../../x": b"y"})), "cannot be unpacked", id="outside"),
])
def test_another_file_is_refused(tmp_path: Path, data: bytes, expected: str) -> None:
    installer, out = tmp_path / "x.run", tmp_path / "out"
    installer.write_bytes(data)
    out.mkdir()
    with pytest.raises(BuildError, match=expected):
        arrange(installer, out)
