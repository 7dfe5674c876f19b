# SPDX-License-Identifier: Apache-2.0
"""A host as files: the running one, or a copy of its /sys, /proc, /etc, /opt and /var below a folder. Read-only.

What is absent is None or empty, never an error: half of these paths exist on half of the hosts. What exists and may not
be read is None, too, and is remembered in `refused`, so that a row can tell the two apart. Links stay below the root.
Programs are started on the running host only, and only to ask for their version.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import stat
import subprocess
import time
from collections.abc import Callable, Mapping

from nvrc.preflight.documents import Document, parse_toml_document, parse_yaml_document

LIMIT = 4 << 20
WHOLE_S = 60.0
LINKS = 40
VERSION_S = 10.0


class SlowError(Exception):
    """What the host has to be read takes longer than anybody waits."""


class Host:
    def __init__(self, root: str = "/", node: bytes = b"", now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._until_s = now, now() + WHOLE_S
        self.root = os.path.realpath(root)
        self.is_live = self.root == "/"
        self.refused: set[str] = set()
        self.node = _read_node(node)
        self._folders: dict[str, str | None] = {}
        self._documents: dict[tuple[Callable[[bytes], Document], bytes], Document] = {}

    def place(self, path: str) -> str | None:
        """Where a path of the host lies; None where nothing is. Links are followed as the host would follow them."""
        if self._now() > self._until_s:
            raise SlowError(f"rows before it took {WHOLE_S:g} s; find files of the host that are too large or too many")
        if self.is_live:
            return path if self._exists(path) else None
        folder, _, name = path.rstrip("/").rpartition("/")
        if folder not in self._folders:
            self._folders[folder] = self._follow("", folder)
        start = self._folders[folder]
        found = None if start is None else self._follow(start, name)
        return None if found is None else self.root + found

    def _follow(self, here: str, path: str) -> str | None:
        """From a folder of the copy that no link leads to."""
        parts = [part for part in path.split("/") if part]
        for _ in range(LINKS * 8):
            if not parts:
                return here
            part = parts.pop(0)
            if part == "..":
                here = here.rpartition("/")[0]
                continue
            full = f"{self.root}{here}/{part}"
            try:
                target = os.readlink(full)
            except ValueError:  # a NUL: nothing has such a name
                return None
            except OSError as wrong:
                if wrong.errno != errno.EINVAL:  # that it is not a link
                    return None
                here = f"{here}/{part}"
                continue
            here = "" if target.startswith("/") else here
            parts = [one for one in target.split("/") if one not in ("", ".")] + parts
        return None

    def _exists(self, path: str) -> bool:
        try:
            os.stat(path)
        except PermissionError:
            self.refused.add(path)
            return True
        except (OSError, ValueError):
            return False
        return True

    def exists(self, path: str) -> bool:
        return self.place(path) is not None

    def read(self, path: str) -> bytes | None:
        descriptor = self._open(path)
        if descriptor is None:
            return None
        try:
            return _read_all(descriptor)
        except OSError:
            self.refused.add(path)
            return None
        finally:
            os.close(descriptor)

    def _open(self, path: str, more: int = 0) -> int | None:
        """Files alone: a pipe of a copy would be waited for, a device read without an end."""
        place = self.place(path)
        if place is None:
            return None
        try:
            descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | more)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            self.refused.add(path)
            return None
        kind = os.fstat(descriptor).st_mode
        if stat.S_ISREG(kind):
            return descriptor
        os.close(descriptor)
        if not stat.S_ISDIR(kind):
            self.refused.add(path)
        return None

    def text(self, path: str) -> str | None:
        data = self.read(path)
        return None if data is None else data.decode("utf-8", "replace").strip()

    def listing(self, path: str) -> tuple[str, ...]:
        place = self.place(path)
        try:
            return () if place is None else tuple(sorted(os.listdir(place)))
        except OSError:
            self.refused.add(path)
            return ()

    def link(self, path: str) -> str | None:
        """The last name of what a link points to, such as a driver."""
        folder, _, name = path.rpartition("/")
        place = self.place(folder)
        try:
            return None if place is None else os.readlink(f"{place}/{name}").rpartition("/")[2]
        except OSError:
            return None

    def is_link(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        place = self.place(folder)
        return place is not None and os.path.islink(f"{place}/{name}")

    def is_socket(self, path: str) -> bool:
        return self._is_kind(path, stat.S_ISSOCK)

    def is_file(self, path: str) -> bool:
        return self._is_kind(path, stat.S_ISREG)

    def _is_kind(self, path: str, is_kind: object) -> bool:
        place = self.place(path)
        try:
            return place is not None and callable(is_kind) and bool(is_kind(os.stat(place).st_mode))
        except OSError:
            return False

    def block(self, path: str, offset: int, size: int) -> bytes | None:
        """A piece of a large file."""
        descriptor = self._open(path)
        if descriptor is None:
            return None
        try:
            return os.pread(descriptor, size, offset)
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def register(self, path: str, offset: int) -> int | None:
        """32 bits of a PCI resource, which the kernel gives by mapping only."""
        descriptor = self._open(path, getattr(os, "O_SYNC", 0))
        if descriptor is None:
            return None
        page = mmap.ALLOCATIONGRANULARITY
        try:
            with mmap.mmap(descriptor, page, mmap.MAP_SHARED, mmap.PROT_READ, offset=offset // page * page) as view:
                return int.from_bytes(view[offset % page : offset % page + 4], "little")
        except (OSError, ValueError):
            return None
        finally:
            os.close(descriptor)

    def toml(self, path: str) -> Document:
        """The document, or None and what is wrong with it: nothing where there is no file."""
        return self._document(path, parse_toml_document)

    def yaml(self, path: str) -> Document:
        """YAML, of which JSON is a part."""
        return self._document(path, parse_yaml_document)

    def _document(self, path: str, parse: Callable[[bytes], Document]) -> Document:
        """Many rows ask for one file: it is read each time, and parsed once for as long as it stays the same."""
        data = self.read(path)
        if data is None:
            return None, "it cannot be read" if path in self.refused else ""
        if (parse, data) not in self._documents:
            self._documents[parse, data] = parse(data)
        return self._documents[parse, data]

    def version_of(self, program: str) -> str | None:
        """What the program says when it is asked, on the running host."""
        if not self.is_live or not program.startswith("/"):  # another one is of the folder that this was started in
            return None
        try:
            if not os.access(program, os.X_OK):
                return None
            done = subprocess.run(
                [program, "--version"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=VERSION_S,
                check=False,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
            )
        except (OSError, ValueError, subprocess.TimeoutExpired):
            return None
        return done.stdout.decode("utf-8", "replace")

    @property
    def labels(self) -> Mapping[str, str] | None:
        """The node's labels, where `kubectl get node -o json` was given."""
        return None if self.node is None else strings(dig(self.node, "metadata", "labels"))


def _read_all(descriptor: int) -> bytes:
    pieces, size = [], 0
    while size < LIMIT and (piece := os.read(descriptor, 1 << 16)):
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)


def _read_node(data: bytes) -> Mapping[str, object] | None:
    from nvrc.vocabulary.records import FormatError

    if not data:
        return None
    try:
        found: object = json.loads(data)
    except (ValueError, RecursionError) as wrong:
        raise FormatError(
            (f"--node: not JSON: {wrong}; give the output of 'kubectl get node NAME -o json'",)
        ) from wrong
    if not isinstance(found, dict) or found.get("kind") != "Node":
        raise FormatError(("--node: not a Node; give the output of 'kubectl get node NAME -o json'",))
    return found


def dig(value: object, *names: str) -> object:
    """What lies below these keys; None where one is missing or is not a table."""
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def table(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def rows(value: object) -> tuple[object, ...]:
    return tuple(value) if isinstance(value, list | tuple) else ()


def strings(value: object) -> Mapping[str, str]:
    return {str(name): str(item) for name, item in table(value).items()}
