# SPDX-License-Identifier: Apache-2.0
"""Finished stages by the content of their inputs. A stage is there whole or not at all.

Work happens in a folder of another name and is renamed when it is done, so an interrupted build leaves nothing that
could be taken for a result. One build at a time makes an entry; another waits for the entries that it needs itself.
What is found is compared with a digest of all of it, taken when it was made, unless the file system says that nothing
was touched since; what differs is made anew. That helps against accidents. Who may write into a cache can put a stage
and its digest there, so one that other accounts can write is not used.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.holding import Patience, hold, is_free, tell_on_stderr

_KEEP_PER_STAGE = 4
_UNFINISHED = ".unfinished-"
_MOST_SEAL = 4096
# Whose program this is can change it as well as a cache.
_OWNER = Path(__file__).stat().st_uid


def digest(*parts: str | bytes) -> str:
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little"))
        total.update(data)
    return total.hexdigest()


def digest_files(paths: Iterator[Path] | tuple[Path, ...], base: Path) -> str:
    words: list[str | bytes] = []
    for path in paths:
        inside = path.relative_to(base) if path.is_relative_to(base) else path.name
        words += [str(inside), path.read_bytes()]
    return digest(*words)


def digest_tree(folder: Path) -> str:
    """Of every name, mode, link and content below a folder."""
    return digest(*(word for entry in _walk(folder)
                    for word in (os.fsencode(entry.path.removeprefix(str(folder))), *_content(entry))))


def digest_times(folder: Path) -> str:
    """Of what the file system changes by itself whenever anybody changes anything below a folder."""
    found = ((entry.path, entry.stat(follow_symlinks=False)) for entry in _walk(folder))
    return digest(*(f"{path.removeprefix(str(folder))!a} {info.st_mode:o} {info.st_ino} {info.st_size} "
                    f"{info.st_mtime_ns} {info.st_ctime_ns}" for path, info in found))


def _walk(folder: Path | str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            yield entry
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path)


def _content(entry: os.DirEntry[str]) -> tuple[str | bytes, ...]:
    mode = f"{entry.stat(follow_symlinks=False).st_mode:o}"
    if entry.is_symlink():
        return "link", os.fsencode(os.readlink(entry.path))
    if entry.is_file(follow_symlinks=False):
        with open(entry.path, "rb") as stream:
            return mode, hashlib.file_digest(stream, "sha256").digest()
    return mode, "no file"


class Cache:
    """Invariant: whoever makes an entry holds the lock of that entry. One that needs others takes their locks, too, and
    that cannot go round in a circle. `locked` is for what is no entry: the archives' lists and packages.
    """

    def __init__(self, root: Path, waiting: Callable[[str], None] = tell_on_stderr,
                 limit_s: float | None = None) -> None:
        self.root = root
        self.hits: list[str] = []
        self._patience = Patience(tell=waiting, limit_s=limit_s)
        self._held: set[str] = set()
        self._sound: set[str] = set()  # stages whose content has been compared by this process

    @property
    def debs(self) -> Path:
        return self.root / "debs"

    def folder(self, name: str) -> Path:
        path = self.root / name
        for place in (self.root, path):
            place.mkdir(mode=0o755, parents=True, exist_ok=True)
        for place in (self.root, path):
            self._check_place(place)
        return path

    def _check_place(self, place: Path) -> None:
        found = place.stat()
        if found.st_mode & stat.S_IWOTH or found.st_uid not in (0, os.geteuid(), _OWNER):
            raise BuildError(f"other accounts can write into the cache {place}, so its content is not to be trusted",
                             f"delete it, or use another one: --cache; then keep it to yourself: chmod o-w {place}")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """For what reads and fetches from archives."""
        with self._hold("archives", "the packages of the archives"):
            yield

    @contextmanager
    def _hold(self, name: str, what: str) -> Iterator[None]:
        if name in self._held:
            yield
            return
        with hold(self.folder("locks") / name, self._patience, what=what, is_kept=name == "archives"):
            self._sweep()
            self._held.add(name)
            try:
                yield
            finally:
                self._held.discard(name)

    def _sweep(self) -> None:
        """What killed builds have left: no one holds the lock of it."""
        for left in self.folder("stages").glob(f"{_UNFINISHED}*"):
            if is_free(self.root / "locks" / left.name.removeprefix(_UNFINISHED)):
                shutil.rmtree(left, ignore_errors=True)

    def find(self, stage: str, key: str) -> Path | None:
        """A finished stage that still is what was made."""
        path = self.root / "stages" / f"{stage}-{key[:24]}"
        return path if path.is_dir() and not path.is_symlink() and self._is_sound(path) else None

    def get(self, stage: str, key: str, make: Callable[[Path], None], *, prune: bool = True) -> Path:
        """The folder of a finished stage; `make` fills a new one when there is none for this key."""
        found = self._hit(stage, key)
        if found is not None:
            return found
        with self._hold(f"{stage}-{key[:24]}", stage):
            # Another build may have made it while this one waited.
            return self._hit(stage, key) or self._make(stage, key, make, prune=prune)

    def _hit(self, stage: str, key: str) -> Path | None:
        found = self.find(stage, key)
        if found is not None:
            self.hits.append(stage)
            os.utime(found)
        return found

    def _is_sound(self, found: Path) -> bool:
        """Whether a stage is still what was made. One of a build before there were seals is not known to be."""
        if found.name not in self._sound:
            content, _, times = self._read_seal(found).partition(" ")
            if times != digest_times(found):  # changed, or only copied
                if content != digest_tree(found):
                    return False
                self._write_seal(found, content, found)
            self._sound.add(found.name)
        return True

    def _seal(self, stage: Path) -> Path:
        return self.folder("seals") / stage.name

    def _read_seal(self, stage: Path) -> str:
        seal = self._seal(stage)
        if seal.is_symlink() or not seal.is_file() or seal.stat().st_size > _MOST_SEAL:
            return ""
        return seal.read_text(encoding="ascii", errors="replace")

    def _write_seal(self, stage: Path, content: str, folder: Path) -> None:
        fresh = self._seal(stage).with_suffix(f".{os.getpid()}")
        for place in (fresh, self._seal(stage)):
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
        fresh.unlink(missing_ok=True)
        with fresh.open("x", encoding="ascii") as out:
            out.write(f"{content} {digest_times(folder)}")
        fresh.rename(self._seal(stage))

    def _make(self, stage: str, key: str, make: Callable[[Path], None], *, prune: bool) -> Path:
        final = self.folder("stages") / f"{stage}-{key[:24]}"
        if os.path.lexists(final):
            self._patience.tell(f"{final} is not what was made there, or has no record of it; "
                                "making it again")
            _remove(final)
        partial = final.with_name(f"{_UNFINISHED}{final.name}")
        if partial.is_symlink() or partial.is_file():
            partial.unlink()
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir()
            make(partial)
            os.utime(partial)
            # The record first: a build that is killed in between has made nothing, and never a stage without one.
            self._write_seal(final, digest_tree(partial), partial)
            partial.rename(final)
            self._sound.add(final.name)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        if prune:
            self._prune(stage, final)
        return final

    def _prune(self, stage: str, newest: Path) -> None:
        same = [path for path in newest.parent.glob(f"{stage}-*") if len(path.name) == len(newest.name)]
        for old in sorted(same, key=_age, reverse=True)[_KEEP_PER_STAGE:]:
            _remove(old)
            self._seal(old).unlink(missing_ok=True)


def _age(stage: Path) -> float:
    """When it was used last; of one that another build has removed meanwhile, long ago."""
    try:
        return stage.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _remove(stage: Path) -> None:
    """Under another name first, so that a removal that is interrupted leaves no part of it as the whole. The name is
    that of no stage: another build may make this one anew meanwhile.
    """
    doomed = stage.with_name(f"{_UNFINISHED}{stage.name}.removed-{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):  # another build was quicker
        stage.rename(doomed)
    if doomed.is_symlink() or doomed.is_file():
        doomed.unlink()
    shutil.rmtree(doomed, ignore_errors=True)
