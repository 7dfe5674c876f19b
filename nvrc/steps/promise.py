# SPDX-License-Identifier: Apache-2.0
"""Step `promise`: what lets the agent start before the GPUs are attached, for nvrc.agent.early.

Containers are promised every GPU of the bus, by the names that follow from its order: the CDI document is whole from
the start, and a hook of it holds a container's program back until PID 1 has the GPUs up. A hook is no lock, because
agents log its failure and go on. So the kernel refuses the devices meanwhile to everybody outside the root cgroup,
where PID 1, its daemons and the agent are and no container is. PID 1 gives its word after the last step (`keep`), or
ends the VM.
"""

from __future__ import annotations

from nvrc.engine.asking import client_of
from nvrc.engine.facts import Facts, replace
from nvrc.hardware.gpu_files import read_driver
from nvrc.machine.system import System
from nvrc.nvml.client import SPARE_S
from nvrc.nvml.document import check_document
from nvrc.nvml.promised import FOLDERS, Promise, add_wait, read_majors, read_nodes
from nvrc.steps.agent import mount_cgroup2
from nvrc.steps.cdi import publish
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError


def run(system: System, facts: Facts) -> Facts:
    on_bus = tuple(sorted(facts.on_bus))
    told = read_driver(system, on_bus)
    client = client_of(facts)
    _made, described = client.promise_cdi([(bdf, int(told[bdf].minor)) for bdf in on_bus])
    document = check_document(system, described)
    mount_cgroup2(system)
    try:
        gate = system.shut_devices(paths.CGROUP, read_majors(document))
    except OSError as err:
        raise NvrcError("E_AGENT_EARLY", f"the kernel does not keep containers off the GPUs: {err}",
                        "drop nvrc.agent.early, or build the guest kernel with CONFIG_CGROUP_BPF") from err
    folders = tuple(filter(system.exists, FOLDERS))
    system.make_dir(paths.GPUS_FOLDER)
    publish(system, add_wait(document, facts.settings.timeout_boot_s, folders), paths.CDI_SPEC)
    return replace(facts, promise=Promise(read_nodes(document), gate))


def deadline_s(facts: Facts) -> float:
    return facts.nvml_patience_s + SPARE_S


def tell(facts: Facts) -> str:
    """`8 GPUs`"""
    count = len(facts.promise.nodes) if facts.promise else 0
    return f"{count} GPU{'' if count == 1 else 's'}"


def keep(system: System, promise: Promise) -> None:
    """Everything is up: the whole document for containers to come, the devices, and the word for those that wait."""
    system.publish(paths.CDI_SPEC, system.read(paths.CDI_HELD, 16 << 20))
    system.open_devices(paths.CGROUP, promise.gate)
    system.publish(paths.GPUS_READY, b"ready\n")
