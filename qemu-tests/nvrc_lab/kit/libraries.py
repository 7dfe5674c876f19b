# SPDX-License-Identifier: Apache-2.0
"""The driver's libraries, stand-ins all of them, and the container's programs: compiled in the factory's root."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nvrc_build.ground.run import clean_env, run
from nvrc_build.sandbox.sandbox import sandbox_argv
from nvrc_build.supply import compile as compiler
from nvrc_lab.kit.standins import DRIVER_VERSION, Workshop

# Library of the driver by the name in its ELF header; all of them are stubs but the first two and the last.
DRIVER_LIBRARIES = ("libcuda.so.1", "libnvidia-ml.so.1", "libnvidia-cfg.so.1", "libnvidia-ptxjitcompiler.so.1",
                    "libnvidia-nvvm.so.4", "libnvidia-opencl.so.1", "libnvidia-allocator.so.1", "libnvidia-nscq.so.2")
NVML_FLAGS = ("-std=gnu11", "-fvisibility=hidden", "-pthread")


def versioned(soname: str) -> str:
    return f"{soname.partition('.so')[0]}.so.{DRIVER_VERSION}"


def build_libraries(shop: Workshop, out: Path) -> None:
    """Every library of the driver, NVML among them, and the container's programs."""
    nvml, own = shop.programs / "nvml", shop.checkout / "qemu-tests/container"
    units = [f"/src/{path.name}" for path in sorted(nvml.glob("*.c"))]
    _gcc(shop, nvml, out, [*_shared("libnvidia-ml.so.1"), *NVML_FLAGS, *units, "-ldl"])
    nscq = shop.programs / "nscq"
    _gcc(shop, nscq, out, [*_shared("libnvidia-nscq.so.2"), *NVML_FLAGS, "/src/nscq.c", "-ldl"])
    for soname in DRIVER_LIBRARIES:
        if soname not in ("libnvidia-ml.so.1", "libnvidia-nscq.so.2"):
            _gcc(shop, own, out, [*_shared(soname), "/src/libcuda.c"])
    _gcc(shop, own, out, ["-o", "/out/look", "/src/look.c", f"/out/{versioned('libcuda.so.1')}"])
    _gcc(shop, own, out, ["-o", "/out/stay", "/src/stay.c"])
    _gcc(shop, own, out, ["-static", "-DPLAIN", "-o", "/out/look-plain", "/src/look.c"])


def _shared(soname: str) -> list[str]:
    return ["-shared", "-fPIC", f"-Wl,-soname,{soname}", "-o", f"/out/{versioned(soname)}"]


def _gcc(shop: Workshop, source: Path, out: Path, words: Sequence[str]) -> None:
    argv = [compiler.CC, "-O2", "-g0", "-ffile-prefix-map=/src=.", "-Wl,--build-id=none", *words]
    run(sandbox_argv(shop.root, argv, env=clean_env(), read_only={"/src": source}, writable={"/out": out}),
        what=f"compiling {source.name}")
