# SPDX-License-Identifier: Apache-2.0
"""A policy in words: what each of its rows lets a command line do, and what it leaves open. Off the boot path."""

from __future__ import annotations

from guest_cdi.lean.light import Iterator, NamedTuple
from nvrc.params.module_options import driver_option
from nvrc.params.policy import Policy
from nvrc.params.table import PARAMS, Sensitivity, find
from nvrc.params.values import text
from nvrc.params.words import KATA, KATA_SET, NEVER


class Told(NamedTuple):
    """`name` as the file has it; empty for what a section says as a whole."""

    section: str
    name: str
    effect: str


def explain(policy: Policy) -> tuple[Told, ...]:
    return (*_pins(policy), *_limits(policy), *_denied(policy), *_allowed(policy), *_words(policy), *_open(policy))


def _pins(policy: Policy) -> Iterator[Told]:
    for name, value in policy.pins.items():
        effect = f"is {text(value)}; the line may repeat it, any other value ends the boot"
        yield Told("pin", name, f"{effect}. {_help(name)}")


def _limits(policy: Policy) -> Iterator[Told]:
    for name, limit in policy.limits.items():
        row = find(name)
        default = row.default if row is not None else None
        silent = "a silent line leaves it unset" if default is None else (
            f"a silent line means {text(default)}" if limit.admits(default) else
            f"a line must give it, because the default {text(default)} is outside")
        yield Told("limit", name, f"may be {limit.text()}; {silent}. {_help(name)}")


def _denied(policy: Policy) -> Iterator[Told]:
    for name in policy.deny:
        yield Told("deny", name, f"must not be on the line with any value. {_help(name)}".rstrip())


def _allowed(policy: Policy) -> Iterator[Told]:
    if policy.allow is None:
        yield Told("allow", "", "there is no list: every parameter that is neither pinned, limited nor denied is the "
                   "line's to decide; options of NVIDIA's modules are refused")
        return
    for name in policy.allow:
        limited = "within its limit" if name in policy.limits else "with any value"
        yield Told("allow", name, f"may be on the line {limited}. {_help(name)}".rstrip())
    yield Told("allow", "", "every other parameter on the line ends the boot, known or not")


def _words(policy: Policy) -> Iterator[Told]:
    for entry in policy.words or ():
        name, has_value, value = entry.partition("=")
        if entry == KATA_SET:
            effect = f"{len(KATA)} words that Kata's runtimes write, with their values, may be on the line"
        elif entry == "*":
            effect = "any word of the kernel, a module or the agent may be on the line"
        elif has_value:
            effect = f"{name} may be on the line with the value {value}"
        else:
            effect = f"{'words that begin so' if entry.endswith('*') else 'the word'} may be on the line with any value"
        yield Told("words", entry, effect)
    yield Told("words", "", f"every other word ends the boot; {len(NEVER)} families end it whatever a policy says")


def _open(policy: Policy) -> Iterator[Told]:
    """What bears on trust and is still the line's to decide."""
    for row in PARAMS:
        name = row.name if not row.is_pattern else f"{row.ends[0]}*"
        bounded = row.name in policy.pins or row.name in policy.limits or policy.denies(name)
        if row.sensitivity is Sensitivity.TRUST and not bounded and policy.allows(name):
            yield Told("open", name, f"affects trust, and the line decides it. {row.help}.")


def _help(name: str) -> str:
    row = find(name) or next((one for one in PARAMS if one.is_pattern and name == f"{one.ends[0]}*"), None)
    if row is None:
        return "Options of NVIDIA's modules." if driver_option(f"{name.rstrip('*')}.x") else ""
    return f"{row.help}."
