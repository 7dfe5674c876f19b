# SPDX-License-Identifier: Apache-2.0
"""The configuration of a container's dynamic loader: what it covers, and the lines that hooks add to it.

Follows ldconfig(8) and glibc's list of system directories: Debian's glibc searches the multiarch directories, others
/lib64 and, on x86-64, the x32 pair. musl has no cache but a file with directories, which is added to instead.
"""

from __future__ import annotations

import errno
import os
import posixpath

from guest_cdi.hooks.root import Root, create_file, random_name, write_all
from guest_cdi.lean.light import Iterable, Sequence

CONF = "/etc/ld.so.conf"
CONF_DIRECTORY = "/etc/ld.so.conf.d"
INCLUDE_ALL = b"include /etc/ld.so.conf.d/*.conf\n"
# Of a container's whole configuration: what is read becomes lists of names, at some fifty bytes of memory for each.
CONF_LIMIT_BYTES = 1 << 18
CONF_FILES_LIMIT = 1024         # files, and patterns of files
CONF_NAMES_LIMIT = 1 << 16      # in the directories that patterns look into
DEBIAN_MARK = "/etc/debian_version"
ALPINE_MARK = "/etc/alpine-release"
# What musl searches as long as it has no path file; a new file must not take that away.
MUSL_DEFAULTS = ("/lib", "/usr/local/lib", "/usr/lib")

_MULTIARCH = {
    "x86_64": ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu"),
    "aarch64": ("/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu"),
}
_WIDE = {
    "x86_64": ("/lib64", "/usr/lib64", "/libx32", "/usr/libx32"),
    "aarch64": ("/lib64", "/usr/lib64"),
}


def system_directories(machine: str, *, is_debian_like: bool) -> tuple[str, ...]:
    if is_debian_like:
        return (*_MULTIARCH.get(machine, ()), "/lib", "/usr/lib")
    return ("/lib", "/usr/lib", *_WIDE.get(machine, ()))


def configure(root: Root, folders: Iterable[str], machine: str) -> list[str]:
    """Everything that must be in the container before its cache is made."""
    system = system_directories(machine, is_debian_like=root.is_file(DEBIAN_MARK))
    _ensure_conf(root)
    covered = {*system, *configured_directories(root)}
    added = [folder for folder in dict.fromkeys(folders) if folder not in covered]
    done = [write_dropin(root, "00-nvcr-", added)] if added else []
    done.append(write_dropin(root, "zz-nvcr-", system))
    if root.is_file(ALPINE_MARK):
        done += _extend_musl_path(root, f"/etc/ld-musl-{machine}.path", (*added, *system))
    return done


def write_dropin(root: Root, prefix: str, directories: Sequence[str]) -> str:
    """A new file below /etc/ld.so.conf.d, readable by whoever runs ldconfig in the container."""
    name = f"{prefix}{random_name()}.conf"
    with root.make_directories(CONF_DIRECTORY) as parent:
        create_file(parent, name, _lines(dict.fromkeys(directories)), 0o644)
    return f"{CONF_DIRECTORY}/{name}: {' '.join(directories)}"


def configured_directories(root: Root) -> set[str]:
    """The directories that the container's ld.so.conf and its includes name.

    Anything but a regular file is an error: ldconfig would open it too, and a FIFO would block it until the runtime
    loses patience. So is a configuration that is too large as a whole, however many files it is spread over.
    """
    directories: set[str] = set()
    files: list[str] = [CONF]
    patterns: list[str] = []
    left_bytes, left_names = CONF_LIMIT_BYTES, CONF_NAMES_LIMIT
    for path in files:  # which grows meanwhile
        text = _read_conf(root, path, left_bytes)
        left_bytes -= len(text)
        named, included = parse_conf(os.fsdecode(text))
        directories.update(named)
        for pattern in _new(patterns, (posixpath.join(posixpath.dirname(path), name) for name in included)):
            found, listed = _glob(root, pattern, left_names)
            left_names -= listed
            _new(files, found)
    return directories


def _new(known: list[str], names: Iterable[str]) -> list[str]:
    """Those that are not known yet, which they are from now on."""
    added = list(dict.fromkeys(names).keys() - dict.fromkeys(known).keys())
    if len(known) + len(added) > CONF_FILES_LIMIT:
        raise OSError(errno.E2BIG, f"more than {CONF_FILES_LIMIT} files are included", CONF)
    known += sorted(added)
    return known[len(known) - len(added):]


def parse_conf(text: str) -> tuple[list[str], list[str]]:
    """Directories, and patterns of files to include."""
    directories: list[str] = []
    included: list[str] = []
    for raw in text.splitlines():
        words = raw.partition("#")[0].split()
        if words[:1] == ["include"]:
            included += words[1:]
        elif words and words[0] != "hwcap":
            directories.append(words[0])
    return directories, included


def musl_lines(existing: bytes | None, directories: Iterable[str]) -> bytes:
    """What to append to musl's path file; existing is None where there is no such file."""
    known = set(MUSL_DEFAULTS if existing is None else _musl_entries(existing))
    wanted = [directory for directory in dict.fromkeys(directories) if existing is None or directory not in known]
    if existing is None:
        wanted += [directory for directory in MUSL_DEFAULTS if directory not in wanted]
    separator = b"\n" if existing and wanted and not existing.endswith(b"\n") else b""
    return separator + _lines(wanted)


def _musl_entries(content: bytes) -> list[str]:
    return os.fsdecode(content).replace("\n", ":").split(":")


def _extend_musl_path(root: Root, path: str, directories: Sequence[str]) -> list[str]:
    try:
        existing = root.read(path, CONF_LIMIT_BYTES)
    except FileNotFoundError:
        parent, name = posixpath.split(path)
        with root.make_directories(parent) as opened:
            create_file(opened, name, musl_lines(None, directories), 0o644)
        return [f"{path} made"]
    lines = musl_lines(existing, directories)
    if not lines:
        return []
    with root.open_regular(path, os.O_WRONLY | os.O_APPEND) as opened:
        write_all(opened.fd, lines)
    return [f"{path} extended"]


def _ensure_conf(root: Root) -> None:
    parent, name = posixpath.split(CONF)
    with root.make_directories(parent) as opened:
        try:
            create_file(opened, name, INCLUDE_ALL, 0o644)
        except FileExistsError:
            pass


def _read_conf(root: Root, path: str, left_bytes: int) -> bytes:
    try:
        return root.read(path, left_bytes)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as err:
        if err.errno != errno.EFBIG:
            raise
        raise OSError(errno.EFBIG, f"with all that it includes is larger than {CONF_LIMIT_BYTES} bytes", CONF) from err


def _glob(root: Root, pattern: str, left_names: int) -> tuple[list[str], int]:
    """Files that match, and how many names were looked at.

    Wildcards are honoured in the last part, which is where loaders' configurations have them.
    """
    directory, name = posixpath.split(pattern)
    if not any(character in name for character in "*?["):
        return [pattern], 0
    try:
        names = root.list(directory, left_names)
    except (FileNotFoundError, NotADirectoryError):
        return [], 0
    return [posixpath.join(directory, found) for found in names if _matches(found, name)], len(names)


def _matches(name: str, pattern: str) -> bool:
    """`*.conf`, which is nearly every line there is, without the module that compiles patterns."""
    if pattern.startswith("*") and not any(character in pattern[1:] for character in "*?["):
        return name.endswith(pattern[1:])
    import fnmatch

    return fnmatch.fnmatchcase(name, pattern)


def _lines(directories: Iterable[str]) -> bytes:
    return b"".join(os.fsencode(directory) + b"\n" for directory in directories)
