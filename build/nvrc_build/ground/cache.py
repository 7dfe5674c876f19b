# SPDX-License-Identifier: Apache-2.0
"""Finished stages by the content of their inputs. A stage is there whole or not at all.

Work happens in a folder of another name and is renamed when it is done, so an interrupted build leaves nothing that
could be taken for a result. One build at a time makes something in a cache; one that finds all it needs waits for none.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_KEEP_PER_STAGE = 4
_UNFINISHED = ".unfinished-"


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


def _say_nothing(_line: str) -> None:
    """For callers that need not know why it takes long."""


@contextmanager
def hold(lock: Path, waiting: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock file for as long as the context lasts; the kernel drops it with the process."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting(f"another build uses {lock.parent}; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


class Cache:
    """Invariant: whoever makes an entry holds the lock. It is taken once per process, however deep stages nest."""

    def __init__(self, root: Path, waiting: Callable[[str], None] = _say_nothing) -> None:
        self.root = root
        self.hits: list[str] = []
        self._waiting = waiting
        self._held = 0

    @property
    def debs(self) -> Path:
        return self.root / "debs"

    def folder(self, name: str) -> Path:
        path = self.root / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    @contextmanager
    def locked(self, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
        if self._held:
            yield
            return
        with hold(self.folder(".") / "lock", waiting or self._waiting):
            for left in self.folder("stages").glob(f"{_UNFINISHED}*"):
                shutil.rmtree(left)
            self._held += 1
            try:
                yield
            finally:
                self._held -= 1

    def find(self, stage: str, key: str) -> Path | None:
        path = self.root / "stages" / f"{stage}-{key[:24]}"
        return path if path.is_dir() else None

    def get(self, stage: str, key: str, make: Callable[[Path], None], *, prune: bool = True) -> Path:
        """The folder of a finished stage; `make` fills a new one when there is none for this key."""
        found = self._hit(stage, key)
        if found is not None:
            return found
        with self.locked():
            # Another build may have made it while this one waited.
            return self._hit(stage, key) or self._make(stage, key, make, prune=prune)

    def _hit(self, stage: str, key: str) -> Path | None:
        found = self.find(stage, key)
        if found is not None:
            self.hits.append(stage)
            os.utime(found)
        return found

    def _make(self, stage: str, key: str, make: Callable[[Path], None], *, prune: bool) -> Path:
        final = self.folder("stages") / f"{stage}-{key[:24]}"
        partial = final.with_name(f"{_UNFINISHED}{final.name}")
        partial.mkdir()
        try:
            make(partial)
            os.utime(partial)
            partial.rename(final)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        if prune:
            self._prune(stage, final)
        return final

    def _prune(self, stage: str, newest: Path) -> None:
        same = [path for path in newest.parent.glob(f"{stage}-*") if len(path.name) == len(newest.name)]
        for old in sorted(same, key=lambda path: path.stat().st_mtime, reverse=True)[_KEEP_PER_STAGE:]:
            shutil.rmtree(old, ignore_errors=True)
