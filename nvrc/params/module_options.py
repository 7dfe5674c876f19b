# SPDX-License-Identifier: Apache-2.0
"""Words `module.parameter=value` of the command line: options for modules that are loaded later. Pure.

The kernel gives them to code that is built in; for modules whoever loads them has to, as kmod does. NVIDIA's drivers
are always modules, and their options decide about firmware, device files and registers, so a policy bounds these words
like parameters of our own. Words for other modules are the kernel's business.
"""

from __future__ import annotations

from guest_cdi.lean.light import Iterable
from nvrc.params.cmdline import Token

ModuleOption = tuple[str, str]  # the module in the kernel's spelling, and what it is given

DRIVER = "nvidia"


def read_options(tokens: Iterable[Token]) -> tuple[ModuleOption, ...]:
    """Of every word with a dot, as kmod takes them; most are of modules that nobody here loads."""
    found = []
    for token in tokens:
        module, dot, parameter = token.key.partition(".")
        if dot and module and parameter:
            found.append((module.replace("-", "_"), f"{parameter}{_assigned(token.value)}"))
    return tuple(found)


def _assigned(value: str | None) -> str:
    if value is None:
        return ""
    return f'="{value}"' if any(char.isspace() for char in value) else f"={value}"


def driver_option(key: str) -> str | None:
    """`nvidia_uvm.x` for `nvidia-uvm.x`, the name that a policy knows it by; None for all other keys."""
    module, dot, parameter = key.partition(".")
    name = module.replace("-", "_")
    is_driver = name == DRIVER or name.startswith(f"{DRIVER}_")
    return f"{name}.{parameter}" if dot and parameter and is_driver else None
