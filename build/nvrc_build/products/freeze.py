# SPDX-License-Identifier: Apache-2.0
"""Freeze the init with PyInstaller inside the root that the image's libc comes from, without network.

One folder, not one file: in one-file mode the boot loader stays PID 1, Python runs as its child, and every start
unpacks the program anew. The result is a folder; putting it into an image is the assembler's work.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.run import clean_env, run
from nvrc_build.products.prune import prune
from nvrc_build.sandbox.sandbox import sandbox_argv

RECIPE = Path(__file__).parent / "frozen"
PACKAGES = ("nvrc", "guest_cdi")
BINDING = "pynvml.py"
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


def freeze(checkout: Path, *, root: Path, site: Path, out: Path, epoch: int) -> Path:
    """Leave the frozen folder in `out`/nvrc and return it."""
    source = out / "src"
    _copy_sources(checkout, source)
    _prune_binding(checkout, site, source)
    env = clean_env({"SOURCE_DATE_EPOCH": str(epoch), "PYINSTALLER_CONFIG_DIR": "/tmp/pyinstaller",
                     "PYTHONPATH": "/site", "PYINSTALLER_ZLIB_COMPRESSION_LEVEL": "0"})
    argv = sandbox_argv(root, [
        "/usr/bin/python3.13", "-S", "-c", _START, "--noconfirm", "--log-level=WARN",
        "--distpath=/out/dist", "--workpath=/tmp/work", "/src/nvrc.spec",
    ], env=env, read_only={"/src": source, "/site": site}, writable={"/out": out})
    run(argv, what="PyInstaller", timeout_s=300)
    shutil.rmtree(source)
    frozen = out / "nvrc"
    (out / "dist/nvrc").rename(frozen)
    (out / "dist").rmdir()
    return frozen


def _prune_binding(checkout: Path, site: Path, target: Path) -> None:
    """What the program uses of nvidia-ml-py, beside its own sources, where PyInstaller finds it first."""
    program = [path.read_text(encoding="utf-8") for path in source_files(checkout)]
    found = prune((site / BINDING).read_text(encoding="utf-8"), program, whole=("NVML_ERROR_",))
    (target / BINDING).write_text(found, encoding="utf-8")


def _copy_sources(checkout: Path, target: Path) -> None:
    for path in source_files(checkout):
        inside = path.name if path.is_relative_to(RECIPE) else path.relative_to(source_folder(checkout))
        copy = target / inside
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
