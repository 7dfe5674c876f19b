# SPDX-License-Identifier: Apache-2.0
"""enable-cuda-compat: a container that brings newer CUDA compat libraries gets them first in its library search.

Does not load anything: it only writes a line for the ldconfig run that follows. Whether the compat library fits is
said by a note in the library, and where that is missing, by comparing major versions.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat

from guest_cdi.hooks import ldconf
from guest_cdi.hooks.action import Action, Values
from guest_cdi.hooks.elf_note import CompatNote, NoteError, read_note
from guest_cdi.hooks.root import DIRECTORY, Root
from guest_cdi.lean.light import NamedTuple, partial

LIBRARY_PREFIX = "libcuda.so."
CONF_PREFIX = "00-compat-"
VERSION_DIGITS_LIMIT = 18

Version = tuple[int, int, int]


class HostVersions(NamedTuple):
    """What runs on this machine, as given; None is not given or not a version."""

    driver: Version | None
    cuda: Version | None
    cuda_is_given: bool


def prepare(values: Values) -> Action:
    driver, cuda = ("".join(values.get(name, ())) for name in ("host-driver-version", "host-cuda-version"))
    (directory,) = values["cuda-compat-container-root"]
    return partial(enable_compat, HostVersions(parse_version(driver), parse_version(cuda), bool(cuda)), directory)


def parse_version(text: str) -> Version | None:
    """Up to three numbers; what is not there counts as 0. None where it is no version."""
    parts = text.removeprefix("v").split(".")
    if len(parts) > 3 or not all(_is_number(part) for part in parts):
        return None
    numbers = [int(part) for part in parts] + [0, 0]
    return numbers[0], numbers[1], numbers[2]


def enable_compat(host: HostVersions, directory: str, root: Root) -> list[str]:
    library = find_library(root, directory)
    if library is None:
        return []
    compat = parse_version(posixpath.basename(library).removeprefix(LIBRARY_PREFIX))
    if not is_compat_used(_note_of(root, library), compat, host):
        return []
    return [ldconf.write_dropin(root, CONF_PREFIX, [posixpath.dirname(library)])]


def find_library(root: Root, directory: str) -> str | None:
    """The one compat library, by the directory's real name in the container; none or several are no library."""
    try:
        names = [name for name in root.list(directory) if _is_library_name(name)]
        with root.open(directory, DIRECTORY) as opened:
            files = [name for name in names if _is_regular(name, opened.fd)]
            real = real_path(root, opened.fd)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return posixpath.join(real, files[0]) if len(files) == 1 else None


def real_path(root: Root, fd: int) -> str:
    """Where the kernel found it, as the container will see it."""
    top, found = (os.readlink(f"/proc/self/fd/{number}") for number in (root.fd, fd))
    if found != top and not found.startswith(f"{top}/"):
        raise OSError(errno.EXDEV, "is not below the container root", found)
    return found.removeprefix(top) or "/"


def is_compat_used(note: CompatNote | None, compat: Version | None, host: HostVersions) -> bool:
    if compat is None or host.driver is None:
        offered = parse_version(note.cuda_version) if note else None
        return offered is not None and host.cuda is not None and offered > host.cuda
    if note is None:
        return not host.cuda_is_given and compat[0] > host.driver[0]
    return host.driver[0] in note.driver_branches and compat > host.driver


def _note_of(root: Root, library: str) -> CompatNote | None:
    with root.open_regular(library) as opened:
        try:
            return read_note(opened.fd)
        except NoteError:
            return None  # an old or odd library: it is judged by its major version


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= VERSION_DIGITS_LIMIT


def _is_library_name(name: str) -> bool:
    return name.startswith(LIBRARY_PREFIX) and "." in name[len(LIBRARY_PREFIX):]


def _is_regular(name: str, directory_fd: int) -> bool:
    return stat.S_ISREG(os.stat(name, dir_fd=directory_fd, follow_symlinks=False).st_mode)
