# SPDX-License-Identifier: Apache-2.0
"""The boot, on one screen. Order is `needs`, applicability is `when`, everything else belongs to the steps.

A row is carried out by the module of nvrc.steps with its name. A failing step ends the VM unless its row says DEGRADE
and nvrc.strict is off. Rows with `blocks` wait on a thread of their own; persistenced is the first and only client of
the GPUs until it is up, which is why everything that asks a GPU needs it. `early` is for nvrc.agent.early: the agent
comes before everything that touches a GPU, and PID 1's word that containers wait for after the last row.
"""

from __future__ import annotations

from nvrc.engine.conditions import (
    always,
    awaits_attestation,
    has_devices,
    has_fabric,
    has_gpus,
    has_nics,
    names_extensions,
    starts_early,
    wants_dcgm,
)
from nvrc.engine.table import DEGRADE, Step, Table

BOOT: Table = (
    Step("filesystems"),
    Step("journal",      needs=("filesystems",)),
    Step("hardening",    needs=("filesystems",)),
    Step("parameters",   needs=("filesystems",)),
    Step("extensions",   needs=("parameters", "journal", "hardening"),    blocks=names_extensions),
    Step("identity",     needs=("filesystems",)),
    Step("loopback",     needs=("filesystems",)),
    Step("topology",     needs=("parameters",)),
    Step("modules",      needs=("topology", "extensions"),                blocks=always),
    Step("device-nodes", needs=("modules",),                              when=has_devices),
    Step("fabric",       needs=("device-nodes", "journal", "loopback"),   when=has_fabric, blocks=always, leads=True,
         early=("agent",)),
    Step("persistenced", needs=("device-nodes", "journal", "fabric"),     when=has_gpus, blocks=always, leads=True,
         early=("agent", "fabric")),
    Step("lock-modules", needs=("modules", "device-nodes"),               blocks=always),
    Step("nics",         needs=("lock-modules", "journal"),               when=has_nics, blocks=always,
         on_failure=DEGRADE),
    Step("promise",      needs=("lock-modules", "device-nodes"),          when=starts_early, blocks=always),
    Step("places",       needs=("topology", "lock-modules"),              when=has_gpus, blocks=always,
         on_failure=DEGRADE, early=("agent",)),
    Step("gpu-settings", needs=("persistenced",),                         when=has_gpus, blocks=always),
    Step("cc-check",     needs=("gpu-settings",),                         when=has_gpus, blocks=always),
    Step("fabric-check", needs=("gpu-settings",),                         when=has_gpus, blocks=always),
    Step("links",        needs=("fabric-check", "places"),                when=has_gpus, blocks=always,
         on_failure=DEGRADE),
    Step("cdi",          needs=("cc-check", "links"),                    when=has_gpus, blocks=always),
    Step("dcgm",         needs=("gpu-settings",),                         when=wants_dcgm, blocks=always,
         on_failure=DEGRADE),
    Step("ready-state",  needs=("cdi", "fabric-check"),                   when=has_gpus, blocks=always),
    Step("agent",        needs=("journal", "identity", "loopback", "lock-modules", "nics", "promise",
                                "fabric", "ready-state", "dcgm"),
         early=("journal", "identity", "loopback", "lock-modules", "nics", "promise")),
    Step("attest",       needs=("agent",),                                when=awaits_attestation, blocks=always),
)
