# SPDX-License-Identifier: Apache-2.0
"""Words `module.parameter=value` of the command line: options for modules that are loaded later. Pure.

The kernel gives them to code that is built in; for modules whoever loads them has to, as kmod does. NVIDIA's drivers
are always modules, and their options decide about firmware, device files and registers, so a policy bounds these words
like parameters of our own. Words for other modules are the kernel's business.

A module reads what it is given as the kernel reads its line: several options, parted by white space outside of quotes.
So a word with quotes inside may be several, and what is not read back as itself is given to none.
"""

from __future__ import annotations

from guest_cdi.lean.light import Iterable
from nvrc.params.cmdline import Token, tokenise, word

ModuleOption = tuple[str, str]  # the module in the kernel's spelling, and what it is given

DRIVER = "nvidia"
_END = b"--"  # of a module's options: it reads none of those behind it


def read_options(tokens: Iterable[Token]) -> tuple[ModuleOption, ...]:
    """Of every word with a dot, as kmod takes them; most are of modules that nobody here loads."""
    found = []
    for token in tokens:
        module, dot, parameter = token.key.partition(".")
        if dot and module and parameter and not refuse_option(token):
            found.append((module.replace("-", "_"), _option(parameter, token.value)))
    return tuple(found)


def refuse_option(token: Token) -> str:
    """Why a module would read another option of the word, or several; empty if it reads this one."""
    parameter = token.key.partition(".")[2]
    given = _option(parameter, token.value).encode("utf-8", "surrogateescape")
    is_one = tokenise(given) == (Token(parameter, token.value),) and given != _END
    return "" if is_one else "is not read by the module as this one option"


def _option(parameter: str, value: str | None) -> str:
    return parameter if value is None else word(parameter, value)


def driver_option(key: str) -> str | None:
    """`nvidia_uvm.x_y` for `nvidia-uvm.x-y`, the name that a policy knows it by, as the kernel takes both for the same;
    None for all other keys.
    """
    module, dot, parameter = key.partition(".")
    name = module.replace("-", "_")
    is_driver = name == DRIVER or name.startswith(f"{DRIVER}_")
    return f"{name}.{parameter.replace('-', '_')}" if dot and parameter and is_driver else None
