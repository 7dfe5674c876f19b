# SPDX-License-Identifier: Apache-2.0
"""update-ldcache: this machine's ldconfig makes the container's library cache, never a program of the container.

ldconfig must be a static ELF file: a script or a dynamic program would start the container's shell or loader with the
hook's rights. It runs from a sealed copy in memory, so that nothing in the container can reach the file itself.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct

from guest_cdi.hooks import confine, ldconf
from guest_cdi.hooks.action import Action, Values
from guest_cdi.hooks.root import Handle, Root
from guest_cdi.lean import linux
from guest_cdi.lean.errors import CdiError
from guest_cdi.lean.light import partial

PREFERRED_SUFFIX = ".real"  # Ubuntu's ldconfig is a script around ldconfig.real
CACHE = "/etc/ld.so.cache"
ARGUMENTS = ("ldconfig", "-f", ldconf.CONF, "-C", CACHE)
PROGRAM_CHUNK_BYTES = 1 << 30
HEADERS_LIMIT_BYTES = 8192
PROGRAM_HEADER_BYTES, PROGRAM_HEADERS_LIMIT = 56, 64
DEADLINE_S = 8.0  # runtimes allow a hook 10 s
PT_INTERP = 3
_F_ADD_SEALS, _F_SEAL_ALL = 1033, 0x0F  # fcntl(2): no sealing, shrinking, growing, writing


def prepare(values: Values) -> Action:
    folders = values.get("folder", ())
    for folder in folders:
        if not folder.startswith("/") or set(folder) & set("\n#"):
            raise CdiError("E_CDI_USAGE", f"update-ldcache: --folder {folder!r} is not an absolute path of one line")
    (program,) = values["ldconfig-path"]
    if not program.startswith("/"):
        raise CdiError("E_CDI_USAGE", f"update-ldcache: --ldconfig-path {program!r} is not an absolute path")
    return partial(update_cache, folders, program)


def update_cache(folders: tuple[str, ...], ldconfig: str, root: Root, deadline_s: float = DEADLINE_S) -> list[str]:
    with load_program(ldconfig) as program:
        done = ldconf.configure(root, folders, os.uname().machine)
        failure, said = confine.run(program.fd, ARGUMENTS, root, deadline_s)
    if failure:
        why = f"{failure}: {said}" if said else failure
        raise CdiError("E_CDI_HOOK_LDCACHE", f"{why} ({' '.join(ARGUMENTS)} in {root.path})",
                       "read the step in the message; a read-only container root cannot take a cache")
    return [*done, f"{CACHE} made", *([f"ldconfig: {said}"] if said else [])]


def load_program(path: str) -> Handle:
    """A sealed copy of ldconfig in memory."""
    try:
        with Handle(_open_preferred(path)) as opened:
            if not stat.S_ISREG(os.fstat(opened.fd).st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            if not is_static_program(os.pread(opened.fd, HEADERS_LIMIT_BYTES, 0)):
                raise _ldconfig_error(f"{path} is not a static ELF program, so it would run code of the container")
            return seal(opened.fd)
    except OSError as err:
        raise _ldconfig_error(f"{path} cannot be used: {err.strerror}") from err


def is_static_program(content: bytes) -> bool:
    """An ELF file of this word size that asks for no interpreter. Malformed is no."""
    if content[:6] != b"\x7fELF\x02\x01":
        return False
    try:
        (offset,) = struct.unpack_from("<Q", content, 32)
        size, count = struct.unpack_from("<HH", content, 54)
        if size != PROGRAM_HEADER_BYTES or not 0 < count <= PROGRAM_HEADERS_LIMIT or offset > len(content):
            return False
        kinds = [struct.unpack_from("<I", content, offset + size * index)[0] for index in range(count)]
    except struct.error:
        return False
    return PT_INTERP not in kinds


def seal(program_fd: int) -> Handle:
    name, flags = "ldconfig", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        memory = Handle(os.memfd_create(name, flags | linux.MFD_EXEC))
    except OSError:  # before Linux 6.3 every memfd is executable, and the flag unknown
        memory = Handle(os.memfd_create(name, flags))
    while os.sendfile(memory.fd, program_fd, None, PROGRAM_CHUNK_BYTES):
        continue
    fcntl.fcntl(memory.fd, _F_ADD_SEALS, _F_SEAL_ALL)
    return memory


def _open_preferred(path: str) -> int:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return os.open(path + PREFERRED_SUFFIX, flags)
    except FileNotFoundError:
        return os.open(path, flags)


def _ldconfig_error(what: str) -> CdiError:
    return CdiError("E_CDI_HOOK_LDCONFIG", what,
                    "put glibc's static ldconfig into the image or name it with --ldconfig-path")
