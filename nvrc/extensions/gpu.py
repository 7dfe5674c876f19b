# SPDX-License-Identifier: Apache-2.0
"""Makes the mounted GPU extension part of the system: its firmware where the kernel looks, its libraries known.

The cache that the extension carries cannot be used: its paths lack the folder that it is mounted on. ldconfig writes
one for base and extension together; the base image's is taken, else the extension's own.
"""

from __future__ import annotations

from nvrc.machine.linux import MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID
from nvrc.machine.privileges import LDCONFIG, prepare
from nvrc.machine.program import Program
from nvrc.machine.system import Files, System
from nvrc.machine.wait import ChildEnded, Events, OverdueError
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError

CONFIGURATION, MADE = f"{paths.LDCONFIG_HOME}/ld.so.conf", f"{paths.LDCONFIG_HOME}/ld.so.cache"
CACHE, CACHE_BYTES = "/run/ld.so.cache", 4 << 20
# What is left of ldconfig. Nothing in there is a library for anybody, whatever its cache says.
STRICT = MS_NOSUID | MS_NODEV | MS_NOEXEC


def join(system: System, root: str, patience_s: float) -> None:
    firmware = f"{root}{paths.FIRMWARE}"
    if system.exists(firmware):
        _bind(system, firmware, paths.FIRMWARE)
    _write_cache(system, root, patience_s)
    _bind(system, CACHE, paths.LD_CACHE)


def _write_cache(system: System, root: str, patience_s: float) -> None:
    found = [path for path in (paths.LDCONFIG, f"{root}{paths.LDCONFIG}") if system.exists(path, executable=True)]
    if not found:
        raise NvrcError("E_EXTENSION_LIBS", f"{paths.LDCONFIG} is neither in the image nor in the GPU extension")
    program = Program(path=found[0], args=("-X", "-f", CONFIGURATION, "-C", MADE), log_as="ldconfig",
                      privileges=LDCONFIG)
    lines = ["include /etc/ld.so.conf.d/*.conf", *_library_folders(system, root)]
    try:
        system.make_dir(paths.LDCONFIG_HOME, 0o700)
        system.mount("tmpfs", paths.LDCONFIG_HOME, "tmpfs", STRICT, "mode=700,size=16m")
        prepare(system, LDCONFIG, "E_EXTENSION_LIBS")
        system.publish(CONFIGURATION, ("\n".join(lines) + "\n").encode())
        _run(system, program, patience_s)
        system.publish(CACHE, _take(system, found[0]))
    except OSError as err:
        raise NvrcError("E_EXTENSION_LIBS", f"cannot renew the loader cache with {found[0]}: {err.strerror}") from err


def _take(system: Files, ldconfig: str) -> bytes:
    """The cache itself, and not what may be in its place."""
    try:
        return system.read_plain(MADE, CACHE_BYTES)
    except OSError as err:
        raise NvrcError("E_EXTENSION_LIBS", f"{ldconfig} made no {MADE}: {err.strerror}") from err


def _library_folders(system: Files, root: str) -> list[str]:
    """`usr/lib/<triplet>` of the extension, one in practice."""
    try:
        names = system.list_dir(f"{root}/usr/lib")
    except OSError as err:
        raise NvrcError("E_EXTENSION_LIBS", f"{root}/usr/lib: {err.strerror}",
                        "build the GPU extension again: it is incomplete") from err
    found = [f"{root}/usr/lib/{name}" for name in names if name.endswith("-linux-gnu")]
    if not found:
        raise NvrcError("E_EXTENSION_LIBS", f"{root}/usr/lib has no folder <machine>-linux-gnu",
                        "build the GPU extension again: it is incomplete")
    return found


def _run(system: System, program: Program, patience_s: float) -> None:
    """To its end, which has to be a good one."""
    command = " ".join((program.path, *program.args))
    events = Events(system, patience_s)
    system.start(program, events.ended)
    try:
        end = events.take()
    except OverdueError as err:
        raise NvrcError("E_EXTENSION_LIBS", f"'{command}' did not end within {patience_s:g} s") from err
    if isinstance(end, ChildEnded) and not end.is_success:
        raise NvrcError("E_EXTENSION_LIBS", f"'{command}' {end.text()}")


def _bind(system: System, source: str, target: str) -> None:
    if not system.exists(target):
        raise NvrcError("E_EXTENSION_LIBS", f"{target} is not in the image, so {source} cannot be mounted there")
    try:
        system.mount(source, target, "", MS_BIND)
    except OSError as err:
        raise NvrcError("E_EXTENSION_LIBS", f"cannot mount {source} on {target}: {err.strerror}") from err
