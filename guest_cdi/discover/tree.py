# SPDX-License-Identifier: Apache-2.0
"""Finds files below the driver root: in a list of directories, by a pattern, with or without following links.

Patterns know one wildcard, "*", which matches inside a name; that is all the driver's file names need. Each directory
is read once, whatever the number of patterns. Strict trees make an error of what a lenient one passes over: a link
loop, an unreadable directory, a damaged ld.so.cache.
"""

from __future__ import annotations

import errno
import stat

from guest_cdi import ldcache
from guest_cdi.host import MAX_LINKS, Host, Kind, read_file
from guest_cdi.lean.errors import CdiError
from guest_cdi.lean.light import Iterable, Iterator, Mapping

LIBRARY_DIRS = (
    "/",
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu/nvidia/current",
    "/usr/lib/aarch64-linux-gnu/nvidia/current",
    "/lib64",
    "/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/lib/x86_64-linux-gnu/nvidia/current",
    "/lib/aarch64-linux-gnu/nvidia/current",
)

_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR})


class Tree:
    """The files of `host` below `root`; "/" is all of them."""

    __slots__ = ("_cache", "_libraries", "_search_paths", "host", "root", "strict")

    def __init__(self, host: Host, root: str = "/", *, strict: bool = True, search_paths: Iterable[str] = ()) -> None:
        self.host = host
        self.root = clean(root).rstrip("/")
        self.strict = strict
        self._search_paths = tuple(search_paths)
        self._libraries: dict[str, tuple[str, ...]] = {}
        self._cache: ldcache.LibraryCache | bool | None = False     # False: not looked at yet

    def place(self, path: str) -> str:
        """Where a path of the driver is on the host."""
        return clean(f"{self.root}/{path}")

    def inside(self, path: str) -> str:
        """The path as the driver, and so the container, knows it. A path outside the root stays as it is."""
        return path[len(self.root):] if path.startswith(f"{self.root}/") else "/" if path == self.root else path

    def is_file(self, path: str) -> bool:
        """Whether `path`, followed to its end, exists and is no directory."""
        try:
            return not stat.S_ISDIR(self.host.stat(path).mode)
        except OSError as err:
            self._judge(err, path)
            return False

    def is_executable(self, path: str) -> bool:
        try:
            mode = self.host.stat(path).mode
        except OSError as err:
            self._judge(err, path)
            return False
        return not stat.S_ISDIR(mode) and mode & 0o111 != 0

    def kind(self, path: str) -> Kind | None:
        directory, _, name = path.rpartition("/")
        return self._scan(directory or "/").get(name)

    def find(self, directories: Iterable[str], pattern: str) -> Iterator[str]:
        """Paths of files, links not followed, directory by directory and sorted within each."""
        for directory in dict.fromkeys(directories):
            for path, kind in self._match(self.place(f"{directory}/{pattern}")):
                if kind is Kind.FILE or (kind is not Kind.DIRECTORY and self.is_file(path)):
                    yield path

    def find_real(self, directories: Iterable[str], pattern: str) -> tuple[str, ...]:
        """The same with links followed, each file once."""
        return tuple(dict.fromkeys(self.host.resolve(path) for path in self.find(directories, pattern)))

    def find_libraries(self, pattern: str) -> tuple[str, ...]:
        """Driver libraries: in the usual directories, or else by ld.so.cache."""
        found = self._libraries.get(pattern)
        if found is None:
            found = self._find_libraries(pattern)
            self._libraries[pattern] = found
        return found

    def library_dirs(self) -> tuple[str, ...]:
        """Where libraries are searched, as host paths, for messages."""
        return self._search_paths or tuple(self.place(directory) for directory in LIBRARY_DIRS)

    def _find_libraries(self, pattern: str) -> tuple[str, ...]:
        if self._search_paths:
            return Tree(self.host, "/", strict=self.strict).find_real(self._search_paths, pattern)
        return self.find_real(LIBRARY_DIRS, pattern) or self._find_cached(pattern)

    def _find_cached(self, pattern: str) -> tuple[str, ...]:
        chains = (self._chain(self.place(path)) for path in self._cached(pattern.partition("*")[0].partition(".so")[0]))
        hits = [path for chain in chains for path in chain if matches(path.rpartition("/")[2], pattern)]
        try:
            return tuple(dict.fromkeys(self.host.resolve(path) for path in hits))
        except OSError as err:
            self._judge(err, hits[0])
            return ()

    def _cached(self, stem: str) -> tuple[str, ...]:
        cache = self._open_cache()
        try:
            return cache.paths(stem) if cache else ()
        except ldcache.CacheError as err:
            self._judge_cache(err)
            return ()

    def _open_cache(self) -> ldcache.LibraryCache | None:
        if isinstance(self._cache, bool):
            self._cache = self._read_cache()
        return self._cache

    def _read_cache(self) -> ldcache.LibraryCache | None:
        path = self.place(ldcache.PATH)
        try:
            data = read_file(self.host, path, ldcache.MAX_BYTES)
            # Images have an empty one as a place for a later mount; to the loader, too, it is none.
            return ldcache.LibraryCache(data) if data else None
        except OSError as err:
            self._judge(err, path)
        except ldcache.CacheError as err:
            self._judge_cache(err)
        return None

    def _judge_cache(self, err: ldcache.CacheError) -> None:
        if self.strict:
            raise CdiError("E_CDI_LDCACHE", f"{self.place(ldcache.PATH)}: {err}") from err

    def _chain(self, path: str) -> tuple[str, ...]:
        """A path and every link target on the way to the file itself; of a longer one nothing can be opened."""
        chain: list[str] = []
        while path not in chain and len(chain) <= MAX_LINKS:
            chain.append(path)
            try:
                if not stat.S_ISLNK(self.host.lstat(path).mode):
                    break
                target = self.host.read_link(path)
            except OSError as err:
                self._judge(err, path)
                return ()
            path = clean(target if target.startswith("/") else f"{path.rpartition('/')[0]}/{target}")
        return tuple(chain)

    def _match(self, path_pattern: str) -> Iterator[tuple[str, Kind | None]]:
        if "*" not in path_pattern:
            yield path_pattern, None
            return
        directory, _, pattern = path_pattern.rpartition("/")
        names = self._scan(directory or "/")
        for name in sorted(name for name in names if matches(name, pattern)):
            check_name(directory, name)
            yield f"{directory}/{name}", names[name]

    def _scan(self, directory: str) -> Mapping[str, Kind]:
        try:
            return self.host.scan(directory)
        except OSError as err:
            self._judge(err, directory)
            return {}

    def _judge(self, err: OSError, path: str) -> None:
        """Absence is an answer; anything else hides files that the document should have."""
        if err.errno in _ABSENT or not self.strict:
            return
        if err.errno == errno.ELOOP:
            raise CdiError("E_CDI_LINK_LOOP", f"{path} is reached through a loop of links, or too many") from err
        raise CdiError("E_CDI_READ", f"{path}: {err.strerror}") from err


def clean(path: str) -> str:
    """The path without empty and "." parts; ".." is resolved by name, as is due in a path that a person wrote."""
    if "//" not in path and "/." not in path and not path.endswith("/"):
        return path
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def matches(name: str, pattern: str) -> bool:
    first, *rest = pattern.split("*")
    if not rest:
        return name == pattern
    last = rest.pop()
    if not name.startswith(first) or not name.endswith(last) or len(name) < len(first) + len(last):
        return False
    position, end = len(first), len(name) - len(last)
    for part in rest:
        position = name.find(part, position, end)
        if position < 0:
            return False
        position += len(part)
    return True


def check_name(directory: str, name: str) -> None:
    """A document is UTF-8 text; a name that is not cannot be written into it."""
    if not name.isascii():
        try:
            name.encode()
        except UnicodeEncodeError:
            shown = f"{directory}/{name}".encode(errors="surrogateescape")
            raise CdiError("E_CDI_NAME_ENCODING", f"{shown!r} is a driver file with a name that is not UTF-8") from None
