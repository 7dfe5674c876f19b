# SPDX-License-Identifier: Apache-2.0
"""Initrds of several archives: the kernel unpacks one after the other, so the last one's file wins."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from nvrc_build.tree.cpio import write_cpio
from nvrc_build.tree.tree import Tree


def join_archives(layers: Sequence[Path], last: Tree, target: Path) -> None:
    """One archive behind another; the kernel looks for the next one at a multiple of four bytes, and takes what follows
    one of lz4 for more of that, unless it is zeros.
    """
    with target.open("wb") as out:
        for layer in layers:
            with layer.open("rb") as stream:
                shutil.copyfileobj(stream, out, 1 << 20)
            out.write(b"\0" * (8 - out.tell() % 4))
        out.writelines(write_cpio(last, 0))
