# SPDX-License-Identifier: Apache-2.0
"""The mounts a guest needs before anything else, as rows. Follows what kata-agent expects of its init.

What is mounted already (by the kernel, by an earlier init) stays as it is. Optional rows are mounted when the kernel
has the file system and the image has the directory; everything else is fatal.
"""

from __future__ import annotations

from guest_cdi.lean.light import NamedTuple
from nvrc.engine.facts import Facts
from nvrc.engine.table import SHORT, nothing
from nvrc.machine.linux import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RELATIME
from nvrc.machine.system import Files, System
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError

STRICT = MS_NOSUID | MS_NOEXEC | MS_NODEV | MS_RELATIME
# kata-agent runs programs from below /run: the pause container of an image pulled in the guest, scripts of ConfigMaps,
# programs in an emptyDir. A bind mount of them would inherit noexec.
RUNNABLE = MS_NOSUID | MS_NODEV | MS_RELATIME


class Row(NamedTuple):
    source: str
    target: str
    fstype: str
    flags: int
    data: str = ""
    optional: bool = False
    create: bool = False


MOUNTS = (
    Row("proc", "/proc", "proc", STRICT),
    Row("sysfs", "/sys", "sysfs", STRICT),
    Row("devtmpfs", "/dev", "devtmpfs", MS_NOSUID | MS_RELATIME, "mode=0755"),
    Row("run", "/run", "tmpfs", RUNNABLE, "mode=0755"),
    Row("tmpfs", "/tmp", "tmpfs", RUNNABLE),  # noqa: S108 - the guest's own
    Row("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "mode=0620,ptmxmode=0666,gid=5", create=True),
    Row("shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777", create=True),  # noqa: S108
    Row("securityfs", "/sys/kernel/security", "securityfs", STRICT, optional=True),
    Row("configfs", "/sys/kernel/config", "configfs", STRICT, optional=True),
)

LINKS = (
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/core", "/proc/kcore"),
    ("/dev/ptmx", "pts/ptmx"),
)


deadline_s, tell = SHORT, nothing


def run(system: System, facts: Facts) -> Facts:
    if not system.exists("/proc/self/mounts"):
        _mount(system, MOUNTS[0])
    _mount_missing(system, MOUNTS)
    _link(system)
    return facts


def mount_optional(system: System) -> None:
    """Once more what the kernel may have learnt since from modules: configfs, where attestation reports come from."""
    _mount_missing(system, tuple(row for row in MOUNTS if row.optional))


def _mount_missing(system: System, rows: tuple[Row, ...]) -> None:
    mounted = mounted_types(system.read("/proc/self/mounts"))
    known = known_types(system.read(paths.FILESYSTEMS))
    for row in rows:
        if mounted.get(row.target) == row.fstype or (row.target == "/proc"):
            continue
        if row.optional and not (row.fstype in known and system.exists(row.target)):
            continue
        _mount(system, row)


def _mount(system: System, row: Row) -> None:
    try:
        if row.create:
            system.make_dir(row.target)
        system.mount(row.source, row.target, row.fstype, row.flags, row.data)
    except FileNotFoundError as err:
        raise NvrcError("E_MOUNT", f"cannot mount {row.fstype} on {row.target}: the directory is not in the image",
                        f"add an empty {row.target} to the image") from err
    except OSError as err:
        raise NvrcError("E_MOUNT", f"cannot mount {row.fstype} on {row.target}: {err.strerror}") from err


def _link(system: Files) -> None:
    for path, target in LINKS:
        try:
            system.make_link(path, target)
        except OSError as err:
            raise NvrcError("E_MOUNT", f"cannot link {path} to {target}: {err.strerror}",
                            "make /dev writable: it is a devtmpfs of the guest kernel") from err
    try:
        system.make_dir(paths.RUN, 0o700)
    except OSError as err:
        raise NvrcError("E_RUN_FULL", f"cannot create {paths.RUN}: {err.strerror}") from err


def mounted_types(mounts: bytes) -> dict[str, str]:
    """Mount point to file system type, the topmost one, from /proc/self/mounts."""
    lines = (line.split(" ") for line in mounts.decode("utf-8", "surrogateescape").splitlines())
    return {fields[1]: fields[2] for fields in lines if len(fields) > 2}


def known_types(filesystems: bytes) -> frozenset[str]:
    """What the kernel can mount now: the last word of every line, compared whole."""
    return frozenset(line.split()[-1] for line in filesystems.decode("ascii", "replace").splitlines() if line.split())
