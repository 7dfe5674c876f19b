# SPDX-License-Identifier: Apache-2.0
"""What a host may put before a guest: a shared object as a disk, and the words that have a loader or interpreter take it."""

from __future__ import annotations

from pathlib import Path

from nvrc_build.ground.run import clean_env, run
from nvrc_build.sandbox.sandbox import sandbox_argv
from nvrc_build.supply.compile import CC
from nvrc_lab.ground.places import checkout
from nvrc_lab.kit import standins

MARK = "hostile: "
SAYS = ("hostile: loaded", "hostile: audits")
# The frozen init itself, which the kernel must never start: it is what the first program protects.
FROZEN = "/usr/lib/nvrc/nvrc"
_SECTOR = 512


def loading_words(path: str) -> str:
    """The variables by which glibc's loader takes an object that nothing names."""
    return f"LD_PRELOAD={path} LD_AUDIT={path}"


def other_words(path: str) -> str:
    """Those by which loader, libc, interpreter and freezer look for things elsewhere, or behave otherwise."""
    return (f"LD_LIBRARY_PATH=/dev:/lab LD_DEBUG=libs LD_BIND_NOW=1 GLIBC_TUNABLES=glibc.malloc.check=3 LOCPATH={path} "
            f"GCONV_PATH={path} PYTHONHOME={path} PYTHONPATH={path} PYTHONINSPECT=1 PYTHONVERBOSE=1 "
            f"_PYI_ARCHIVE_FILE={path} _PYI_APPLICATION_HOME_DIR={path} _PYI_PARENT_PROCESS_LEVEL=1 "
            f"_PYI_LINUX_PROCESS_NAME=hostile PYINSTALLER_RESET_ENVIRONMENT=1 "
            # What a loader prints or writes in place of a start, more of the interpreter's places, words for init; with
            # more than 32 variables the kernel itself would give up.
            f"LD_TRACE_LOADED_OBJECTS=1 LD_SHOW_AUXV=1 LD_PROFILE=libc.so.6 LD_PROFILE_OUTPUT=/run PYTHONSTARTUP={path} "
            f"PYTHONUSERBASE=/dev PYTHONMALLOC=debug TMPDIR=/dev TZ={path} MALLOC_TRACE={path} emergency single -- -c import -i")


def make_object(folder: Path) -> Path:
    """Its size is one that a disk can have."""
    shop = standins.open_workshop(checkout())
    argv = sandbox_argv(shop.root, [CC, "-shared", "-fPIC", "-O1", "-nostdlib", "-Wl,-z,max-page-size=4096", "-o",
                                    "/out/hostile", "/src/hostile.c"], env=clean_env(),
                        read_only={"/src": Path(__file__).parent}, writable={"/out": folder})
    run(argv, what="compiling hostile.c")
    made = folder / "hostile"
    made.write_bytes(made.read_bytes() + b"\0" * (-made.stat().st_size % _SECTOR))
    return made
