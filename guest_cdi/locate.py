# SPDX-License-Identifier: Apache-2.0
"""Where NVIDIA's library is, on the machine that a CDI document describes."""

from __future__ import annotations

import os

from guest_cdi.discover.tree import Tree
from guest_cdi.generate import Options, check_root
from guest_cdi.host import Host
from guest_cdi.lean.errors import CdiError

NVML_SONAME = "libnvidia-ml.so.1"


def locate_nvml(host: Host, options: Options, root: str) -> str:
    """NVML of the driver that is described, as a path of this machine."""
    tree = Tree(host, options.driver_root, strict=options.strict)
    if options.strict:
        check_root(tree)
    chosen = Tree(host, strict=options.strict, search_paths=options.library_search_paths)
    trees = [*([chosen] if options.library_search_paths else []), tree]
    if not options.strict:
        # The reference leaves it to the loader in the end, which knows the machine's own directories.
        trees.append(Tree(host, strict=False))
    found = next((found[0] for one in trees if (found := one.find_libraries(NVML_SONAME))), None)
    if found is None:
        searched = dict.fromkeys(directory for one in trees for directory in one.library_dirs())
        raise CdiError("E_CDI_NVML_LIBRARY", f"{NVML_SONAME} is in none of {', '.join(searched)}")
    return os.path.realpath(root).rstrip("/") + found
