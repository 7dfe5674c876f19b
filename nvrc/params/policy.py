# SPDX-License-Identifier: Apache-2.0
"""What the image owner lets a command line decide: the typed form of /etc/nvrc/policy.toml.

The file is part of the measured image, the command line is not the image owner's. `pin` fixes a value, `deny` refuses
a parameter, `allow` refuses all others, `limit` bounds a value, `strict` turns warnings into errors, `words` names what
else may stand on the line, `initdata` which parameters a pod may give there, and whether it may describe its host for
NCCL. Every name and value is checked against the tables when the file is read, and all mistakes are reported together.
docs/policy.md explains the file to its authors. An image without one has NO_POLICY.
"""

from __future__ import annotations

from types import MappingProxyType

from guest_cdi.lean.light import TYPE_CHECKING, Iterable, Iterator, Mapping, NamedTuple
from nvrc.params.cmdline import shown
from nvrc.params.extension import read_name, unknown_items
from nvrc.params.module_options import DRIVER, driver_option
from nvrc.params.table import PARAMS, Param, find, wild_part
from nvrc.params.values import GPU_COUNT, CountRule, GpuCount, MalformedError, Value, text
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.nearmiss import closest
from nvrc.vocabulary.paths import POLICY

if TYPE_CHECKING:
    from nvrc.params.words import Refused

SIZE_LIMIT = 64 << 10
_SECTIONS = ("strict", "pin", "allow", "deny", "limit", "words", "initdata", "verifier")
_STRICT = "nvrc.strict"
TOPOLOGY = "nccl-topology.xml"  # an entry of initdata that PID 1 acts on, and an allow list of initdata may name


class Limit(NamedTuple):
    """Bounds of a number, or the values to choose from."""

    low: int | None = None
    high: int | None = None
    values: tuple[Value, ...] | None = None

    def admits(self, value: Value) -> bool:
        if self.values is not None:
            return value in self.values
        if isinstance(value, GpuCount):
            return value.rule is CountRule.ALL or self.admits(value.number)
        return (isinstance(value, int) and (self.low is None or value >= self.low)
                and (self.high is None or value <= self.high))

    def text(self) -> str:
        if self.values is not None:
            return ", ".join(text(value) for value in self.values)
        bounds = (("at least", self.low), ("at most", self.high))
        return " and ".join(f"{word} {bound}" for word, bound in bounds if bound is not None)


class Policy(NamedTuple):
    """Keys are full parameter names; `allow` and `deny` also hold prefixes ending in `*`. No allow list allows all.

    `words` bounds what is not ours (nvrc.params.words). None is an image without a policy: nothing is bounded.
    `sha256` is that of the file, by which reports and manifests name the policy. `initdata` names what a pod's own
    may decide there, None for all that the line may.
    """

    pins: Mapping[str, Value] = MappingProxyType({})
    limits: Mapping[str, Limit] = MappingProxyType({})
    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()
    words: tuple[str, ...] | None = None
    sha256: str = ""
    initdata: tuple[str, ...] | None = None
    requires_initdata: bool = False
    verifier: str = ""

    def allows_initdata(self, name: str) -> bool:
        """A parameter, on top of what holds for the line, or TOPOLOGY."""
        return self.initdata is None or name in self.pins or _covered(name, self.initdata)

    def denies(self, name: str) -> bool:
        return _covered(name, self.deny)

    def allows(self, name: str) -> bool:
        return self.allow is None or name in self.pins or _covered(name, self.allow)

    def allows_option(self, name: str) -> bool:
        """Of one of NVIDIA's modules: where there is a policy, a list has to name it."""
        return self.words is None or _covered(name, self.allow or ())

    def refuse_words(self, cmdline: bytes) -> Iterable[Refused]:
        """The words of others that the line must not have."""
        if self.words is None:
            return ()
        from nvrc.params.words import refuse  # only an image with a policy pays for the tables

        return refuse(cmdline, self.words)


NO_POLICY = Policy()


def load_policy(data: bytes, origin: str = POLICY) -> Policy:
    """The policy in a file's content; NvrcError E_POLICY with every mistake in it."""
    mistakes: list[str] = []
    document = _document(data, origin)
    mistakes += (_unknown_section(name) for name in document if name not in _SECTIONS)
    pins = _pins(document, mistakes)
    limits = _limits(document.get("limit", {}), mistakes)
    mistakes += (f"pin {name} = {text(pins[name])} is outside its own limit ({limits[name].text()})"
                 for name in pins if name in limits and not limits[name].admits(pins[name]))
    policy = Policy(
        pins=pins, limits=limits, deny=_names(document, "deny", mistakes),
        allow=_names(document, "allow", mistakes) if "allow" in document else None, words=_words(document, mistakes),
        sha256=_sha256(data), verifier=_verifier(document, mistakes))
    if "initdata" in document:
        policy = _with_initdata(policy, document["initdata"], mistakes)
    if mistakes:
        raise NvrcError("E_POLICY", f"{origin}: " + "; ".join(mistakes))
    return policy


def _document(data: bytes, origin: str) -> dict[str, object]:
    from nvrc.vocabulary.plaintoml import read_toml  # only an image with a policy pays for it

    if len(data) > SIZE_LIMIT:
        raise NvrcError("E_POLICY", f"{origin}: has {len(data)} bytes, more than the {SIZE_LIMIT} it may have")
    try:
        return read_toml(data.decode())
    except ValueError as err:
        raise NvrcError("E_POLICY", f"{origin}: {err}") from err


def _sha256(data: bytes) -> str:
    from hashlib import sha256  # only an image with a policy pays for it

    return sha256(data).hexdigest()


def _unknown_section(name: str) -> str:
    near = closest(name, _SECTIONS)
    return f"{shown(name)} is not one of {', '.join(_SECTIONS)}" + (f", did you mean {near}?" if near else "")


def _pins(document: Mapping[str, object], mistakes: list[str]) -> dict[str, Value]:
    pins: dict[str, Value] = {}
    for name, given in _leaves("pin", document.get("pin", {}), mistakes):
        row = _row("pin", name, mistakes)
        if row is None:
            continue
        try:
            pins[name] = _read(row, given)
        except MalformedError as err:
            mistakes.append(f"pin {name}: {err}")
    strict = document.get("strict", False)
    if not isinstance(strict, bool):
        mistakes.append("strict is neither true nor false")
    elif strict and pins.setdefault(_STRICT, True) is not True:
        mistakes.append(f"strict = true contradicts pin {_STRICT} = off")
    return pins


def _limits(section: object, mistakes: list[str]) -> dict[str, Limit]:
    limits: dict[str, Limit] = {}
    for name, given in _leaves("limit", section, mistakes):
        row = _row("limit", name, mistakes)
        if row is None:
            continue
        try:
            limits[name] = _limit(row, given)
        except MalformedError as err:
            mistakes.append(f"limit {name}: {err}")
    return limits


def _limit(row: Param, given: object) -> Limit:
    if isinstance(given, list):
        if not given:
            raise MalformedError("an empty list admits nothing; use deny")
        return Limit(values=tuple(_read(row, item) for item in given))
    if not isinstance(given, dict):
        raise MalformedError("is neither a list of values nor { min = N, max = N }")
    if not row.kind.is_number and (row.kind is not GPU_COUNT or "max" in given):
        also = " (min alone is possible)" if row.kind is GPU_COUNT else ""
        raise MalformedError(f"min and max are for numbers{also}; list the values among {row.kind.form}")
    low, high = (_bound(row, given[word]) if word in given else None for word in ("min", "max"))
    if low is not None and high is not None and low > high:
        raise MalformedError(f"min {low} is above max {high}")
    return Limit(low, high)


def _bound(row: Param, given: object) -> int:
    read = text(_read(row, given))
    if not read.isdecimal():
        raise MalformedError(f"{shown(read)} is not a plain number")
    return int(read)


def _read(row: Param, given: object) -> Value:
    if row.is_pattern and (unknown := unknown_items(str(given))):
        raise MalformedError(f"has unknown items: {', '.join(shown(item) for item in unknown)}")
    if isinstance(given, bool | int | str):
        return row.kind.parse(given if isinstance(given, str) else text(given))
    raise MalformedError("is not a string, a number, true or false")


def _leaves(section: str, table: object, mistakes: list[str]) -> Iterator[tuple[str, object]]:
    """Names with values. `"nvrc.log" = 1` and `nvrc.log = 1` mean the same, though the second one nests in TOML."""
    seen: set[str] = set()
    waiting: list[tuple[str, object]] = [("", table)]
    while waiting:
        name, value = waiting.pop()
        is_bounds = section == "limit" and isinstance(value, dict) and value and value.keys() <= {"min", "max"}
        if isinstance(value, dict) and not is_bounds:
            waiting += ((f"{name}.{key}" if name else key, inner) for key, inner in reversed(value.items()))
        elif not name:
            mistakes.append(f"{section} is not a table")
        elif name in seen:
            mistakes.append(f"{section} {shown(name)} is given twice")
        else:
            seen.add(name)
            yield name, value


def _row(section: str, name: str, mistakes: list[str]) -> Param | None:
    row = find(name)
    if row is not None and row.is_pattern:
        return row if _names_one(row, name, section, mistakes) else None
    if row is not None and name not in row.aliases:
        return row
    near = row.name if row is not None else closest(name, (param.name for param in PARAMS))
    reason = "is an old name" if row is not None else "is not a parameter"
    mistakes.append(f"{section} {shown(name)} {reason}" + (f", did you mean {near}?" if near else ""))
    return None


def _names_one(row: Param, name: str, section: str, mistakes: list[str]) -> bool:
    try:
        read_name(wild_part(row, name))
    except MalformedError as err:
        mistakes.append(f"{section} {shown(name)}: {err}")
        return False
    return True


def _names(document: Mapping[str, object], section: str, mistakes: list[str], also: str = "") -> tuple[str, ...]:
    given = document.get(section, [])
    if not isinstance(given, list):
        mistakes.append(f"{section} is not a list of names")
        return ()
    names = [item for item in given if isinstance(item, str)]
    if len(names) < len(given):
        mistakes.append(f"{section} holds something that is not a name")
    for name in names:
        if driver_option(name) == name or (also and name == also):
            continue
        if not name.endswith("*"):
            _row(section, name, mistakes)
        elif not _touches_table(name[:-1]):
            mistakes.append(f"{section} {shown(name)} covers no parameter")
    return tuple(names)


def _verifier(document: Mapping[str, object], mistakes: list[str]) -> str:
    given = document.get("verifier", "")
    if isinstance(given, str) and (not given or (given.startswith("/") and ".." not in given and given.isprintable())):
        return given
    mistakes.append("verifier is not the path of a program in the image")
    return ""


def _with_initdata(policy: Policy, section: object, mistakes: list[str]) -> Policy:
    if not isinstance(section, dict) or not section or section.keys() - {"allow", "require"}:
        mistakes.append("initdata is not a table with allow, require or both")
        return policy
    required = section.get("require", False)
    if not isinstance(required, bool):
        mistakes.append("initdata require is neither true nor false")
    allow = _names(section, "allow", mistakes, also=TOPOLOGY) if "allow" in section else None
    return policy._replace(initdata=allow, requires_initdata=required is True)


def _words(document: Mapping[str, object], mistakes: list[str]) -> tuple[str, ...]:
    from nvrc.params.words import DEFAULT, entry_mistake
    given = document.get("words", list(DEFAULT))
    if not isinstance(given, list) or not all(isinstance(item, str) for item in given):
        mistakes.append("words is not a list of words")
        return ()
    mistakes += (f"words {shown(item)} {mistake}" for item in given if (mistake := entry_mistake(item)))
    return tuple(given)


def _touches_table(prefix: str) -> bool:
    heads = (row.ends[0] for row in PARAMS if row.is_pattern)
    return (prefix.startswith(DRIVER) or any(row.name.startswith(prefix) for row in PARAMS)
            or any(prefix.startswith(head) for head in heads))


def _covered(name: str, entries: tuple[str, ...]) -> bool:
    return any(name.startswith(entry[:-1]) if entry.endswith("*") else name == entry for entry in entries)
