# SPDX-License-Identifier: Apache-2.0
"""A document is applied by our own injector before it is published, so that a published document always injects.

On the boot path, so it imports no reader and no validator: the document is a Spec, and its names were checked when it
was made.
"""

from __future__ import annotations

import stat

from guest_cdi.host import Host
from guest_cdi.lean.errors import CdiError
from guest_cdi.lean.light import lru_cache, replace
from guest_cdi.oci import apply_edits, join_edits
from guest_cdi.spec import Spec, all_edits


def prove(spec: Spec, host: Host) -> None:
    """Apply every device of the document to one empty container; CdiError where one could not be, or lacks a source.

    Container engines make a missing mount source or hook the container's failure, or none at all; here it is ours.
    """
    distinct = {id(device.container_edits): device.container_edits for device in spec.devices}  # a device has two names
    everything = join_edits((spec.container_edits, *distinct.values()))
    nodes = {id(node): node for node in everything.device_nodes}  # `all` has those of every device
    problems = []
    try:
        apply_edits(replace(everything, device_nodes=tuple(nodes.values())), {}, lru_cache(maxsize=None)(host.lstat))
    except CdiError as err:
        problems.append(err.what)
    problems += _missing_files(spec, host)
    if problems:
        raise CdiError("E_CDI_INJECT", "; ".join(problems))


def _missing_files(spec: Spec, host: Host) -> list[str]:
    problems = []
    for path in dict.fromkeys(mount.host_path for edits in all_edits(spec) for mount in edits.mounts):
        try:
            host.stat(path)
        except OSError as err:
            problems.append(f"mount source {path}: {err.strerror}")
    for path in dict.fromkeys(hook.path for edits in all_edits(spec) for hook in edits.hooks):
        try:
            if not host.stat(path).mode & stat.S_IXUSR:
                problems.append(f"hook {path}: is not executable")
        except OSError as err:
            problems.append(f"hook {path}: {err.strerror}")
    return problems
