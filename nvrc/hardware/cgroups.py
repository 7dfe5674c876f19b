# SPDX-License-Identifier: Apache-2.0
"""Whether kata-agent will find the cgroups that it mounts, asked of the kernel before the agent dies of them.

As PID 1 the agent mounts version 2 if the command line says so, else each version 1 controller of /proc/cgroups that it
knows, and turns on the memory controller's hierarchy; any of it that fails is its end. A kernel may list a controller
there that it no longer has for version 1 (CONFIG_CPUSETS_V1, CONFIG_MEMCG_V1), so the list alone says nothing: the file
system is asked whether it takes the controller as an option, which mounts nothing.
"""

from __future__ import annotations

import errno

from nvrc.machine.system import System
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError

# Those that kata-agent knows; others in the list it leaves alone.
CONTROLLERS = ("cpu", "cpuacct", "blkio", "cpuset", "memory", "devices", "freezer", "net_cls", "perf_event", "net_prio",
               "hugetlb", "pids", "rdma")
NEEDED = ("devices", "memory")  # without the first it mounts none at all, and the second's hierarchy it insists on


def check_version_1(system: System) -> None:
    """Nothing when the agent can do with version 1, or when the kernel cannot be asked."""
    try:
        listed = enabled(system.read(paths.CGROUPS))
    except FileNotFoundError as err:
        raise NvrcError("E_CGROUP", f"kata-agent mounts cgroups, and the kernel has no {paths.CGROUPS}",
                        "build the guest kernel with CONFIG_CGROUPS") from err
    wanted = tuple(name for name in CONTROLLERS if name in listed)
    try:
        refused = system.refused_options("cgroup", wanted)
    except OSError as err:
        if err.errno != errno.ENODEV:
            return  # a kernel before 5.2: the agent has to find out by itself
        refused = wanted
    gone = sorted({*refused} | ({*NEEDED} - {*wanted}))
    if gone:
        raise NvrcError("E_CGROUP", "the command line leaves kata-agent with cgroup version 1, and the kernel has no "
                        f"version 1 of: {', '.join(gone)}")


def enabled(table: bytes) -> frozenset[str]:
    """The controllers that /proc/cgroups lists as enabled: name, hierarchy, number of groups, enabled."""
    rows = (line.split() for line in table.decode("ascii", "replace").splitlines() if not line.startswith("#"))
    return frozenset(row[0] for row in rows if len(row) == 4 and row[3] != "0")
