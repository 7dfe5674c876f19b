# SPDX-License-Identifier: Apache-2.0
"""Compile C in a pinned root: static programs, and modules against the headers of the image's own kernel.

The compiler is the one the kernel was built with; another one's flags and structure layouts need not agree.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.run import clean_env, run
from nvrc_build.sandbox.sandbox import sandbox_argv

CC = "/usr/bin/gcc-14"
# No libc, no loader, no relocations, and none of what a compiler adds on its own. No vector registers either: the
# kernel enters a program with another stack alignment than a call has.
FREESTANDING = (
    "-std=gnu17", "-Os", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-nostdlib", "-static", "-fno-pie", "-no-pie",
    "-mgeneral-regs-only", "-fno-stack-protector", "-fcf-protection=none", "-fno-asynchronous-unwind-tables",
    "-fno-ident", "-s", "-Wl,-z,noseparate-code,-z,noexecstack,--build-id=none",
)


def headers_release(root: Path) -> str:
    found = sorted(path.parent.name for path in (root / "usr/lib/modules").glob("*/build"))
    if len(found) != 1:
        raise BuildError(f"{len(found)} sets of kernel headers in {root}", "give the compile root exactly one")
    return found[0]


def headers_path(root: Path) -> Path:
    """The folder a kernel module is built against, as it is called inside the root."""
    return Path("/usr/lib/modules") / headers_release(root) / "build"


def program_sources(folder: Path, name: str) -> tuple[Path, ...]:
    """NAME.c, its NAME_*.c, and what all programs of the folder share."""
    return tuple(sorted({folder / f"{name}.c", *folder.glob(f"{name}_*.c"), *folder.glob("common.c")}))


def compile_static(sources: Sequence[Path], out: Path, *, root: Path) -> Path:
    """One static program from C sources that lie in one folder."""
    return _compile(sources, ("-static", "-O2", "-Wall", "-Wextra", "-Wl,--build-id=none"), out, root=root)


def compile_part(source: Path, out: Path, *, root: Path, is_movable: bool) -> Path:
    """An object file of one source of the launcher and what lies beside it."""
    # Where a macro stands in another is not kept for messages, which takes a fifth of the time.
    flags = ("-std=gnu17", "-O2", "-Wall", "-Wextra", "-Werror", "-fpie" if is_movable else "-fno-pie",
             "-ftrack-macro-expansion=0", "-I/usr/include/python3.13", "-c")
    return _compile([source], flags, out, root=root)


def link_launcher(parts: Sequence[Path], out: Path, *, root: Path, is_movable: bool) -> Path:
    """One program with the interpreter in it, whose functions it exports for the extension modules beside it.
    `parts` lie in one folder.

    Where the interpreter reads marshalled code it calls the launcher, which has code that need not be read.

    Debian has two archives: one as in its python3.13, optimised by what programs were seen to do and at fixed
    addresses, and one that can be at any address.
    """
    # The loader fills in 100,000 places of a program that can be moved: a bit of a table is enough for each.
    place = ("-pie", "-Wl,-z,pack-relative-relocs") if is_movable else ("-no-pie",)
    archive = "-pic" if is_movable else ""
    flags = (*place, "-s", "-Wl,--wrap=PyMarshal_ReadObjectFromString",
             "-Wl,--export-dynamic,-z,relro,-z,now,-z,noexecstack,--build-id=none")
    found = next(root.glob(f"usr/lib/python3.13/config-*/libpython3.13{archive}.a"))
    libraries = (f"/{found.relative_to(root)}", "-l:libz.a", "-l:libmd.a", "-lm")
    return _compile(parts, flags, out, root=root, libraries=libraries)


def compile_freestanding(source: Path, out: Path, *, root: Path) -> Path:
    """One program that is its source and nothing else."""
    return _compile([source], FREESTANDING, out, root=root)


def _compile(sources: Sequence[Path], flags: Sequence[str], out: Path, *, root: Path,
             libraries: Sequence[str] = ()) -> Path:
    folder = sources[0].parent
    argv = sandbox_argv(root, [
        CC, *flags, "-g0", "-ffile-prefix-map=/src=.", "-o", "/out/program", *(f"/src/{path.name}" for path in sources),
        *libraries,
    ], env=clean_env(), read_only={"/src": folder}, writable={"/out": out})
    run(argv, what=f"compiling {sources[0].name}")
    return out / "program"


def compile_modules(source: Path, out: Path, *, root: Path, targets: Sequence[str] = ("modules",),
                    variables: Sequence[str] = (), jobs: int = 0, timeout_s: float = 1800) -> tuple[Path, ...]:
    """Build an out-of-tree module folder (with its Kbuild or Makefile); the .ko files, in `out`, unstripped."""
    work = out / "work"
    shutil.copytree(source, work)
    argv = sandbox_argv(root, [
        "/usr/bin/make", "-C", str(headers_path(root)), "M=/out/work", f"CC={CC}", f"-j{jobs or os.cpu_count() or 1}",
        "KBUILD_BUILD_USER=nvrc", "KBUILD_BUILD_HOST=build", "KBUILD_BUILD_TIMESTAMP=@0", *variables, *targets,
    ], env=clean_env(), writable={"/out": out})
    run(argv, what=f"building kernel modules in {source.name}", timeout_s=timeout_s)
    return tuple(sorted(work.rglob("*.ko")))
