# SPDX-License-Identifier: Apache-2.0
"""Freeze the init: PyInstaller finds its modules and libraries in the root that the image's libc comes from, and a
launcher of our own, linked with the same interpreter in the compiler's root, carries and starts them. No network.

One folder, not one file: the launcher, and beside it the extension modules that are not part of the interpreter.
Each function here makes a step of it in a folder that it is given; init.py keeps what they make.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.run import clean_env, run
from nvrc_build.products.outline import outline, step_modules
from nvrc_build.products.prune import prune
from nvrc_build.sandbox.sandbox import sandbox_argv

RECIPE = Path(__file__).parent / "frozen"
SPEC, ENTRY, WRITER = "nvrc.spec", "entry.py", "write.py"
OURS = ("launcher.c", "kernel.c", "sha2.c")
# What all of these include, and those that write.py makes.
INCLUDED = ("objects.h", "frozen.h")
# Which texts the interpreter has in itself: objects.py.
TEXTS = "usr/include/python3.13/internal/pycore_global_strings.h"
PACKAGES = ("nvrc", "guest_cdi")
BINDING = "pynvml.py"
# What the binding imports of the standard library, and would bring a third of it along: guest_cdi/lean/binding.py.
HEAVY = ("from functools import wraps\n", "import threading\n", "import string\n")
LIGHT = "from guest_cdi.lean.binding import string, threading, wraps\n"
PYTHON = "/usr/bin/python3.13"
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


def read_sources(checkout: Path) -> Mapping[str, str]:
    """The same by their names in the sandbox, below /src."""
    base = source_folder(checkout)
    return {path.name if path.is_relative_to(RECIPE) else str(path.relative_to(base)): path.read_text(encoding="utf-8")
            for path in source_files(checkout)}


def prune_binding(binding: str, sources: Mapping[str, str]) -> str:
    """What the program uses of nvidia-ml-py, which lies beside its own sources, where PyInstaller finds it first."""
    return lighten(prune(binding, sources.values(), whole=("NVML_ERROR_",)))


def lighten(binding: str) -> str:
    """The binding with its three imports replaced by one; a version that imports otherwise is an error."""
    for line in HEAVY:
        if binding.count(f"\n{line}") != 1:
            raise BuildError(f"{BINDING} has not one line {line.strip()!r}",
                             "compare HEAVY of nvrc_build/products/freeze.py with its imports")
        binding = binding.replace(f"\n{line}", f"\n{LIGHT}" if line == HEAVY[0] else "\n")
    return binding


def outline_all(sources: Mapping[str, str]) -> Mapping[str, str]:
    """What PyInstaller is given: itself what it runs, and of modules what it looks for in them."""
    scripts = {SPEC: sources[SPEC], ENTRY: outline(sources[ENTRY], is_package=False),
               "steps.txt": "".join(f"{name}\n" for name in step_modules(sources["nvrc/boot.py"]))}
    return scripts | {name: outline(text, is_package=name.endswith("/__init__.py")) for name, text in sources.items()
                      if name == BINDING or name.startswith(tuple(f"{package}/" for package in PACKAGES))}


def find_modules(outlines: Mapping[str, str], root: Path, site: Path, *, out: Path, epoch: int) -> None:
    """Leave what nvrc.spec says in `out`."""
    env = clean_env({"SOURCE_DATE_EPOCH": str(epoch), "PYINSTALLER_CONFIG_DIR": "/tmp/pyinstaller",
                     "PYTHONPATH": "/site", "PYINSTALLER_ZLIB_COMPRESSION_LEVEL": "0"})
    words = ["-c", _START, "--noconfirm", "--log-level=WARN", "--distpath=/tmp/dist", "--workpath=/tmp/work",
             f"/src/{SPEC}"]
    _run_python(root, words, sources=outlines, site=site, env=env, out=out, what="PyInstaller")


def write_parts(sources: Mapping[str, str], root: Path, compiler: Path, found: Path, *, out: Path) -> None:
    """Leave the launcher in `out`: its own sources, those that write.py makes, and what they include."""
    texts = {Path(TEXTS).name: (compiler / TEXTS).read_text(encoding="utf-8")}
    _run_python(root, [f"/src/{WRITER}"], sources={**sources, **texts}, site=found, env=clean_env(), out=out,
                what="writing the frozen modules")
    for name in (*OURS, "objects.h"):
        (out / name).write_text(sources[name], encoding="utf-8")


def _run_python(root: Path, words: Sequence[str], *, sources: Mapping[str, str], site: Path, env: Mapping[str, str],
                out: Path, what: str) -> None:
    folder = out / "src"
    for name, text in sources.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    # Code knows its lines and not its columns: a traceback shows those beside the source, which no guest has.
    env = {**env, "PYTHONNODEBUGRANGES": "1"}
    argv = sandbox_argv(root, [PYTHON, "-S", "-B", *words], env=env, read_only={"/src": folder, "/site": site},
                        writable={"/out": out})
    run(argv, what=what, timeout_s=300)
    shutil.rmtree(folder)
