# SPDX-License-Identifier: Apache-2.0
"""Refresh lock files from the archive: what a reviewer sees in a diff is exactly what enters or leaves an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nvrc_build.declared.declared import Image, Root
from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.progress import Progress
from nvrc_build.job import NOTHING, Brought, open_supply
from nvrc_build.supply import supply
from nvrc_build.supply.apt import Archive
from nvrc_build.supply.lock import compare, read_lock, write_lock
from nvrc_build.supply.supply import lock_file


def relock(names: Sequence[str], *, cache: Path, mirror: str | None, checkout: Path,
           progress: Progress, brought: Brought = NOTHING) -> dict[str, tuple[str, ...]]:
    """Write the locks of the named images and roots (all when none is named); what changed, by lock.

    An image that is only declared gets one when it is named. With declarations of the caller's own, locks go to them.
    """
    things = open_supply(cache=cache, mirror=mirror, checkout=checkout, progress=progress, brought=brought)
    declared = things.declared
    rows: list[tuple[str, Root | Image]] = [*(("root", root) for root in declared.roots),
                                            *(("image", image) for image in declared.images
                                              if not image.declared_only or image.name in names)]
    unknown = set(names) - {row.name for _, row in rows}
    if unknown:
        raise BuildError(f"nothing to lock is called {', '.join(sorted(unknown))}",
                         f"there are: {', '.join(row.name for _, row in rows)}")
    open_archives: dict[object, Archive] = {}
    changes = {}
    with things.cache.locked():
        for kind, row in rows:
            if names and row.name not in names:
                continue
            which = (supply.archive_names(row), (row.driver, row.driver_branch) if isinstance(row, Image) else ())
            if which not in open_archives:
                open_archives[which] = supply.open_archive(things, row)
            current = supply.resolve(things, open_archives[which], row)
            path = lock_file(brought.declarations or checkout / "rootfs", kind, row.name)
            changes[path.stem] = compare(read_lock(path) if path.is_file() else (), current)
            path.parent.mkdir(exist_ok=True)
            path.write_text(write_lock(current), encoding="utf-8")
    return changes
