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
    if options.strict:
        check_root(Tree(host, options.driver_root, strict=True))
    found = find_library(host, options, NVML_SONAME)
    if found is None:
        searched = dict.fromkeys(directory for one in _trees(host, options) for directory in one.library_dirs())
        raise CdiError("E_CDI_NVML_LIBRARY", f"{NVML_SONAME} is in none of {', '.join(searched)}")
    return os.path.realpath(root).rstrip("/") + found


def find_library(host: Host, options: Options, soname: str) -> str | None:
    """A library of the driver that is described, as a path of the host."""
    return next((found[0] for one in _trees(host, options) if (found := one.find_libraries(soname))), None)


def _trees(host: Host, options: Options) -> list[Tree]:
    chosen = Tree(host, strict=options.strict, search_paths=options.library_search_paths)
    trees = [*([chosen] if options.library_search_paths else []),
             Tree(host, options.driver_root, strict=options.strict)]
    # The reference leaves it to the loader in the end, which knows the machine's own directories.
    return trees if options.strict else [*trees, Tree(host, strict=False)]
