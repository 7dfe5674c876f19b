# SPDX-License-Identifier: Apache-2.0
"""The MIG layout that a command line asks for: which GPU is cut into which instances.

    layout  = rule *( ";" rule )            0:3g.40gb,4g.40gb;1-3:off
    rule    = gpus ":" ( "off" | slice *( "," slice ) )
    gpus    = "all" | N | N "-" M           a number beats "all", whatever the order
    slice   = profile [ "*" count ]         profile as the driver names it: 1g.10gb, 1g.10gb+me, 1g.24gb+gfx, 1g.24gb-me

Numbers are the driver's GPU indices, in PCI order. Only shape and bounds are checked here; whether a GPU knows a
profile is for the driver to say. Compute instances (`1c.3g.40gb`) are not part of it: each instance gets one that
fills it.
"""

from __future__ import annotations

from itertools import groupby

from guest_cdi.lean.light import NamedTuple
from nvrc.params.cmdline import shown
from nvrc.params.values import MAX_GPUS, Kind, MalformedError, read_number

# The largest GPUs have eight slices of memory; an instance takes at least one.
MAX_SLICES = 8


class MigRule(NamedTuple):
    """GPUs first to last (None: all that no other rule names) get these instances, in this order; none means off."""

    gpus: tuple[int, int] | None
    profiles: tuple[str, ...]

    def text(self) -> str:
        return f"{_gpus_text(self.gpus)}:{_profiles_text(self.profiles)}"


class MigLayout(NamedTuple):
    rules: tuple[MigRule, ...]

    def text(self) -> str:
        return ";".join(rule.text() for rule in self.rules)

    def profiles(self, index: int) -> tuple[str, ...] | None:
        """What GPU `index` gets: () is MIG off, None is leave it as it is."""
        for rule in self.rules:
            if rule.gpus and rule.gpus[0] <= index <= rule.gpus[1]:
                return rule.profiles
        return next((rule.profiles for rule in self.rules if rule.gpus is None), None)


def read_layout(given: str) -> MigLayout:
    rules: list[MigRule] = []
    for part in given.split(";"):
        rule = _rule(part)
        if any(_overlap(rule.gpus, other.gpus) for other in rules):
            raise MalformedError(f"{shown(part)} names a GPU that an earlier rule already names")
        rules.append(rule)
    return MigLayout(tuple(rules))


LAYOUT = Kind("GPUS:PROFILE[*COUNT],...;...", read_layout)


def _rule(part: str) -> MigRule:
    gpus, colon, plan = part.partition(":")
    if not colon:
        raise MalformedError(f"{shown(part)} is not GPUS:PROFILES, such as all:1g.10gb*7 or 0:3g.40gb,4g.40gb;1:off")
    profiles = () if plan == "off" else tuple(name for item in plan.split(",") for name in _slices(item))
    if sum(int(name[0]) for name in profiles) > MAX_SLICES:
        raise MalformedError(f"{shown(plan)} asks for more than {MAX_SLICES} slices of one GPU")
    return MigRule(_gpus(gpus), profiles)


def _gpus(given: str) -> tuple[int, int] | None:
    if given == "all":
        return None
    first, dash, last = given.partition("-")
    low = read_number(first, 0, MAX_GPUS - 1)
    return low, read_number(last, low, MAX_GPUS - 1) if dash else low


def _slices(item: str) -> tuple[str, ...]:
    name, star, count = item.partition("*")
    if not _is_profile(name):
        raise MalformedError(f"{shown(name)} is not a profile name such as 1g.10gb or 1g.10gb+me")
    return (name,) * (read_number(count, 1, MAX_SLICES) if star else 1)


def _is_profile(name: str) -> bool:
    """`Ng.Mgb`, then nothing or one attribute such as `+me`, `+me.all`, `-me`."""
    slices, _, memory = name.partition("g.")
    size, gb, attribute = memory.partition("gb")
    return (
        name.isascii()
        and len(slices) == 1 and slices in "12345678"
        and gb == "gb" and size.isdigit() and len(size) <= 4 and not size.startswith("0")
        and (not attribute or _is_attribute(attribute))
    )


def _is_attribute(given: str) -> bool:
    return given[0] in "+-" and all(part.isalpha() and part.islower() for part in given[1:].split("."))


def _overlap(one: tuple[int, int] | None, other: tuple[int, int] | None) -> bool:
    if one is None or other is None:
        return one is other
    return one[0] <= other[1] and other[0] <= one[1]


def _gpus_text(gpus: tuple[int, int] | None) -> str:
    if gpus is None:
        return "all"
    return f"{gpus[0]}" if gpus[0] == gpus[1] else f"{gpus[0]}-{gpus[1]}"


def _profiles_text(profiles: tuple[str, ...]) -> str:
    runs = ((name, len(tuple(run))) for name, run in groupby(profiles))
    return ",".join(name if count == 1 else f"{name}*{count}" for name, count in runs) or "off"
