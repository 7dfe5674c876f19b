# SPDX-License-Identifier: Apache-2.0
"""Freeze the init: PyInstaller finds its modules and libraries in the root that the image's libc comes from, and a
launcher of our own, linked with the same interpreter in the compiler's root, carries and starts them. No network.

One folder, not one file: the launcher, and beside it the extension modules that are not part of the interpreter.
Putting it into an image is the assembler's work.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.run import clean_env, run
from nvrc_build.products.prune import prune
from nvrc_build.sandbox.sandbox import sandbox_argv
from nvrc_build.supply.compile import compile_launcher

RECIPE = Path(__file__).parent / "frozen"
OURS = ("launcher.c", "kernel.c", "sha2.c")
# Which texts the interpreter has in itself: objects.py.
TEXTS = "usr/include/python3.13/internal/pycore_global_strings.h"
PACKAGES = ("nvrc", "guest_cdi")
BINDING = "pynvml.py"
# What the binding imports of the standard library, and would bring a third of it along: guest_cdi/lean/binding.py.
HEAVY = ("from functools import wraps\n", "import threading\n", "import string\n")
LIGHT = "from guest_cdi.lean.binding import string, threading, wraps\n"
_START = ("import sys; sys.path.append('/site'); sys.argv[0] = 'pyinstaller'; "
          "from PyInstaller.__main__ import run; run()")


def source_folder(checkout: Path) -> Path:
    """Where the init's packages lie: in the checkout, or installed beside the factory."""
    return checkout if (checkout / PACKAGES[0]).is_dir() else Path(__file__).resolve().parents[2]


def source_files(checkout: Path) -> tuple[Path, ...]:
    """Everything the frozen program is made of, in a fixed order: the key of its cache entry."""
    base = source_folder(checkout)
    found = [path for package in PACKAGES for path in sorted((base / package).rglob("*.py"))]
    if not found:
        raise BuildError(f"no sources of {' and '.join(PACKAGES)} in {checkout}", "run it from a checkout")
    return (*found, *sorted(path for path in RECIPE.iterdir() if path.is_file()))


def freeze(checkout: Path, root: Path, compiler: Path, site: Path, *, out: Path, epoch: int,
           is_movable: bool) -> Path:
    """Leave the frozen folder in `out`/nvrc and return it. `is_movable`: it starts at another address each time."""
    source = out / "src"
    _copy_sources(checkout, source)
    _prune_binding(checkout, site, source)
    shutil.copyfile(compiler / TEXTS, source / Path(TEXTS).name)
    env = clean_env({"SOURCE_DATE_EPOCH": str(epoch), "PYINSTALLER_CONFIG_DIR": "/tmp/pyinstaller",
                     "PYTHONPATH": "/site", "PYINSTALLER_ZLIB_COMPRESSION_LEVEL": "0"})
    argv = sandbox_argv(root, [
        "/usr/bin/python3.13", "-S", "-c", _START, "--noconfirm", "--log-level=WARN",
        "--distpath=/tmp/dist", "--workpath=/tmp/work", "/src/nvrc.spec",
    ], env=env, read_only={"/src": source, "/site": site}, writable={"/out": out})
    run(argv, what="PyInstaller", timeout_s=300)
    shutil.rmtree(source)
    frozen = out / "nvrc"
    _launch(out, frozen, compiler, is_movable=is_movable)
    return frozen


def _launch(out: Path, frozen: Path, compiler: Path, *, is_movable: bool) -> None:
    """The launcher, from its source and what the recipe has left of the modules."""
    work = out / "launcher"
    work.mkdir()
    for name in (*OURS, "objects.h"):
        shutil.copyfile(RECIPE / name, work / name)
    for name in ("frozen.c", "frozen.h", "frozen.bin"):
        (out / name).rename(work / name)
    sources = tuple(work / name for name in (*OURS, "frozen.c"))
    compile_launcher(sources, out, root=compiler, is_movable=is_movable).rename(frozen / "nvrc")
    shutil.rmtree(work)


def _prune_binding(checkout: Path, site: Path, target: Path) -> None:
    """What the program uses of nvidia-ml-py, beside its own sources, where PyInstaller finds it first."""
    program = [path.read_text(encoding="utf-8") for path in source_files(checkout)]
    found = prune((site / BINDING).read_text(encoding="utf-8"), program, whole=("NVML_ERROR_",))
    (target / BINDING).write_text(lighten(found), encoding="utf-8")


def lighten(binding: str) -> str:
    """The binding with its three imports replaced by one; a version that imports otherwise is an error."""
    for line in HEAVY:
        if binding.count(f"\n{line}") != 1:
            raise BuildError(f"{BINDING} has not one line {line.strip()!r}",
                             "compare HEAVY of nvrc_build/products/freeze.py with its imports")
        binding = binding.replace(f"\n{line}", f"\n{LIGHT}" if line == HEAVY[0] else "\n")
    return binding


def _copy_sources(checkout: Path, target: Path) -> None:
    for path in source_files(checkout):
        inside = path.name if path.is_relative_to(RECIPE) else path.relative_to(source_folder(checkout))
        copy = target / inside
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
