# SPDX-License-Identifier: Apache-2.0
"""Finished stages of one cache lent to another, so that a build under test makes anew what the test asks about, alone."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from nvrc_build.ground.cache import digest_times


def lend(source: Path, cache: Path, is_lent: Callable[[str], bool]) -> None:
    """Stages of a kind to be lent: all packages, and of others the newest two, which no other build is about to remove.
    Their files are linked; that they are what was made is taken over with them, so that not all of it is read again.
    """
    kinds: dict[str, list[Path]] = defaultdict(list)
    for stage in sorted(source.glob("stages/[!.]*"), key=lambda stage: stage.stat().st_mtime):
        kinds[stage.name.rsplit("-", 1)[0]].append(stage)
    lent = [stage for kind, found in kinds.items() if is_lent(kind) for stage in (found if kind == "package" else found[-2:])]
    for folder in ("stages", "seals"):
        (cache / folder).mkdir()
    for stage in lent:
        shutil.copytree(stage, cache / "stages" / stage.name, symlinks=True, copy_function=link_or_copy)
        content = (source / "seals" / stage.name).read_text().partition(" ")[0]
        (cache / "seals" / stage.name).write_text(f"{content} {digest_times(cache / 'stages' / stage.name)}")


def lend_debs(source: Path, cache: Path) -> None:
    (cache / "debs").mkdir(parents=True)
    for deb in (source / "debs").glob("*.deb"):
        link_or_copy(str(deb), str(cache / "debs" / deb.name))


def link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target)
