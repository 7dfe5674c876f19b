# SPDX-License-Identifier: Apache-2.0
"""Finished stages by the content of their inputs. A stage is there whole or not at all.

Work happens in a folder of another name and is renamed when it is done, so an interrupted build leaves nothing that
could be taken for a result. One build at a time uses a cache; a second one waits.
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


class Cache:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.hits: list[str] = []

    @property
    def debs(self) -> Path:
        return self.root / "debs"

    def folder(self, name: str) -> Path:
        path = self.root / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    @contextmanager
    def locked(self, waiting: Callable[[str], None]) -> Iterator[None]:
        with (self.folder(".") / "lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting("another build uses this cache; waiting for it")
                fcntl.flock(handle, fcntl.LOCK_EX)
            for left in self.folder("stages").glob(f"{_UNFINISHED}*"):
                shutil.rmtree(left)
            yield

    def find(self, stage: str, key: str) -> Path | None:
        path = self.root / "stages" / f"{stage}-{key[:24]}"
        return path if path.is_dir() else None

    def get(self, stage: str, key: str, make: Callable[[Path], None], *, prune: bool = True) -> Path:
        """The folder of a finished stage; `make` fills a new one when there is none for this key."""
        final = self.folder("stages") / f"{stage}-{key[:24]}"
        if final.is_dir():
            self.hits.append(stage)
            os.utime(final)
            return final
        partial = final.with_name(f"{_UNFINISHED}{final.name}")
        shutil.rmtree(partial, ignore_errors=True)
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
