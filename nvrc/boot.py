# SPDX-License-Identifier: Apache-2.0
"""The boot, on one screen. Order is `needs`, applicability is `when`, everything else belongs to the steps.

A failing step ends the VM unless its row says DEGRADE and nvrc.strict is off. Rows with `blocks` wait on a thread of
their own; persistenced is the first and only client of the GPUs until it is up, which is why everything that asks a GPU
needs it.
"""

from __future__ import annotations

from nvrc.conditions import always, has_devices, has_fabric, has_gpus, names_extensions, wants_dcgm
from nvrc.steps import (
    agent,
    cc_check,
    cdi,
    dcgm,
    device_nodes,
    extensions,
    fabric,
    filesystems,
    gpu_settings,
    identity,
    journal,
    lock_modules,
    loopback,
    modules,
    parameters,
    persistenced,
    ready_state,
    topology,
)
from nvrc.table import DEGRADE, Step, Table, seconds

SHORT, LONG = seconds(10), seconds(30)
# Of steps that wait for nothing but the processor: on a host with more work than processors ten seconds were too few,
# and no parameter can raise the limit of the step that reads them.
PATIENT = seconds(120)

BOOT: Table = (
    Step("filesystems",  filesystems.mount,        SHORT),
    Step("journal",      journal.open_log,         SHORT, needs=("filesystems",)),
    Step("parameters",   parameters.load,          PATIENT, needs=("filesystems",)),
    Step("extensions",   extensions.attach,        extensions.deadline_s, needs=("parameters", "journal"),
         blocks=names_extensions, tells=extensions.tell),
    Step("identity",     identity.establish,       SHORT, needs=("filesystems",)),
    Step("loopback",     loopback.raise_interface, SHORT, needs=("filesystems",)),
    Step("topology",     topology.detect,          PATIENT, needs=("parameters",), tells=topology.tell),
    Step("modules",      modules.load,             modules.deadline_s, needs=("topology", "extensions"),
         blocks=always, tells=modules.tell),
    Step("device-nodes", device_nodes.make,        LONG,  needs=("modules",),
         when=has_devices, tells=device_nodes.tell),
    Step("lock-modules", lock_modules.lock,        lock_modules.deadline_s, needs=("modules", "device-nodes"),
         blocks=always, tells=lock_modules.tell),
    Step("fabric",       fabric.bring_up,          fabric.deadline, needs=("device-nodes", "journal", "loopback"),
         when=has_fabric, blocks=always, tells=fabric.tell),
    Step("persistenced", persistenced.attach,      persistenced.deadline, needs=("device-nodes", "journal", "fabric"),
         when=has_gpus, blocks=always, tells=persistenced.tell),
    Step("gpu-settings", gpu_settings.apply,       gpu_settings.deadline_s, needs=("persistenced",),
         when=has_gpus, blocks=always, tells=gpu_settings.tell),
    Step("cc-check",     cc_check.check,           cc_check.deadline_s, needs=("gpu-settings",),
         when=has_gpus, blocks=always, tells=cc_check.tell),
    Step("cdi",          cdi.publish,              cdi.deadline_s, needs=("cc-check",),
         when=has_gpus, blocks=always, tells=cdi.tell),
    Step("dcgm",         dcgm.bring_up,            dcgm.deadline, needs=("gpu-settings",),
         when=wants_dcgm, blocks=always, on_failure=DEGRADE, tells=dcgm.tell),
    Step("ready-state",  ready_state.settle,       ready_state.deadline_s, needs=("cdi",),
         when=has_gpus, blocks=always, tells=ready_state.tell),
    Step("agent",        agent.start,              LONG,  needs=("journal", "identity", "loopback", "lock-modules",
                                                                "fabric", "ready-state", "dcgm")),
)
