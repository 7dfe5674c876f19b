# SPDX-License-Identifier: Apache-2.0
"""The imitated TEE: its module, and the two of the kernel that it rests on, which its package has packed."""

from __future__ import annotations

import lzma
from pathlib import PurePath

from nvrc_build.supply import compile as compiler
from nvrc_build.tree.tree import Origin, Tree
from nvrc_lab.kit import standins
from nvrc_lab.kit.standins import Workshop

KERNELS = ("fs/configfs/configfs", "drivers/virt/coco/tsm")


def add_modules(shop: Workshop, tree: Tree, origin: Origin) -> None:
    release = compiler.headers_release(shop.root)
    for name in KERNELS:
        packed = shop.root / f"usr/lib/modules/{release}/kernel/{name}.ko.xz"
        tree.add_file(f"/lab/{PurePath(name).name}.ko", lzma.decompress(packed.read_bytes()), origin)
    tree.add_file("/lab/lab_tee.ko", standins.build_modules(shop).files["lab_tee"], origin)
