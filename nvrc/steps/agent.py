# SPDX-License-Identifier: Apache-2.0
"""Starts the agent: as PID 1 of a PID namespace of its own, so that it behaves as the init it believes to be.

kata-agent asks getpid() == 1 to decide who mounts, which cgroup driver is used and who powers off. With
`nvrc.agent.pidns=off` it runs as an ordinary child; what init mode would have set up is in place for both.
"""

from __future__ import annotations

import errno

from nvrc.engine.facts import Facts, replace
from nvrc.engine.table import LONG, nothing
from nvrc.machine.linux import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RELATIME
from nvrc.machine.program import PATH, Named, Program
from nvrc.machine.system import System
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError

OPEN_FILES = 1048576
OOM_SCORE_ADJ = -997
CGROUP_FLAGS = MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RELATIME


deadline_s, tell = LONG, nothing


def run(system: System, facts: Facts) -> Facts:
    settings = facts.settings
    if settings.cgroup_v2 or not settings.agent_pidns:
        mount_cgroup2(system)
    elif not settings.agent_has_config:  # which decides in the command line's place
        from nvrc.hardware.cgroups import check_version_1

        check_version_1(system)
    facts = _take_ports(system, facts)
    try:
        pid = system.start(describe(own_pid_namespace=settings.agent_pidns, infiniband=_infiniband(system, facts),
                                    has_gpu_extension=any(e.name == "gpu" for e in settings.extensions)))
    except OSError as err:
        raise NvrcError("E_AGENT_EXEC", f"cannot start {paths.AGENT}: {err.strerror}", _why(err)) from err
    return replace(facts, agent_pid=pid)


def _take_ports(system: System, facts: Facts) -> Facts:
    """Before a container can."""
    if facts.settings.status_port is None and facts.settings.metrics_port is None:
        return facts
    from nvrc.machine.ports import take_ports

    ports, remarks = take_ports(system, facts.settings, facts.metrics_listener)
    return replace(facts, ports=ports, warnings=facts.warnings + remarks)


def _infiniband(system: System, facts: Facts) -> tuple[Named, ...] | None:
    """kata-agent gives every container that has a VFIO device all that it finds in /dev/infiniband (cgroup `rwm`).

    With the ports that manage NVLink switches a container would reach the subnet of the board's fabric, so the agent is
    shown what a container may have, and that is nothing where the NICs are not known.
    """
    if not system.exists(paths.INFINIBAND_NODES):
        return None
    if not facts.nics:
        return ()
    from nvrc.hardware.nics import read_nodes

    return tuple((name, *node[:3]) for name, node in read_nodes(system, facts.nics))


def describe(*, own_pid_namespace: bool, has_gpu_extension: bool,
             infiniband: tuple[Named, ...] | None = None) -> Program:
    """The agent with everything it is given. The environment is made here, never inherited."""
    env = [("PATH", PATH), ("HOME", "/"), ("TERM", "linux")]
    if has_gpu_extension:
        env.append(("KATA_ATTESTER_VARIANT", "nvidia"))
    return Program(path=paths.AGENT, privileges=None, env=tuple(env), own_pid_namespace=own_pid_namespace,
                   open_files=OPEN_FILES, oom_score_adj=OOM_SCORE_ADJ, echoed=True, infiniband=infiniband)


def mount_cgroup2(system: System) -> None:
    mounts = system.read("/proc/self/mounts").decode("utf-8", "surrogateescape").splitlines()
    if any(line.split(" ")[1:3] == [paths.CGROUP, "cgroup2"] for line in mounts):
        return
    try:
        system.mount("cgroup2", paths.CGROUP, "cgroup2", CGROUP_FLAGS, "nsdelegate")
    except OSError as err:
        raise NvrcError("E_MOUNT", f"cannot mount cgroup2 on {paths.CGROUP}: {err.strerror}",
                        "build the guest kernel with CONFIG_CGROUPS") from err


def _why(err: OSError) -> str:
    match err.errno:
        case errno.ENOENT:
            return "the file exists, so its loader or interpreter is missing from the image"
        case errno.ENOEXEC:
            return "the file is not a program for this machine: check its architecture"
        case errno.EINVAL | errno.EPERM:
            return "the guest kernel needs CONFIG_PID_NS and CONFIG_NAMESPACES; or set nvrc.agent.pidns=off"
        case errno.EAGAIN | errno.ENOMEM:
            return "memory is used up: give the VM more"
        case _:
            return "check the agent's file in the image"
