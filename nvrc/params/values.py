# SPDX-License-Identifier: Apache-2.0
"""The types that parameter values have, and how each is read from text and printed back.

`Kind.parse` returns a value or raises MalformedError with the rest of the sentence "<parameter>: ...". Whatever it
accepts, `text` prints in a form that parses to an equal value. Words are compared without regard to case, numbers are
plain decimal digits, and anything that is not listed is an error: "enabled" is not quietly "off".
"""

from __future__ import annotations

from guest_cdi.lean.light import Callable, Enum, Mapping, NamedTuple, Protocol
from nvrc.params.cmdline import shown


class MalformedError(ValueError):
    """The text is not a value of this kind; the message says why."""


class Written(Protocol):
    """A value of several parts that prints itself."""

    def text(self) -> str: ...


# What dcgm-exporter listens on unless it is told another, and it is told none.
EXPORTER_PORT = 9400
PORT_TAKEN = f"{EXPORTER_PORT} is taken: dcgm-exporter, which nvrc.dcgm=on starts, listens there; choose another"
# How a value prints that nobody gave and that has no default. No kind accepts it as text.
UNSET = "unset"
Value = bool | int | Enum | Written | None


class Kind(NamedTuple):
    form: str
    parse: Callable[[str], Value]
    is_number: bool = False
    unit: str = ""


def text(value: Value) -> str:
    if value is None:
        return UNSET
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Enum):
        return str(value.value)
    return value.text()


class LogLevel(Enum):
    OFF = "off"
    ERROR = "error"
    WARN = "warn"
    INFO = "info"
    DEBUG = "debug"
    TRACE = "trace"


class ReportTo(Enum):
    FILE = "file"
    CONSOLE = "console"


class ModeClaim(Enum):
    CPU = "cpu"
    GPU = "gpu"
    GPU_NVL4 = "gpu-nvl4"
    GPU_NVL5 = "gpu-nvl5"
    SERVICE_NVL4 = "servicevm-nvl4"
    SERVICE_NVL5 = "servicevm-nvl5"

    def holds(self, mode: str) -> bool:
        """Whether a detected mode bears the claim out; "gpu" speaks of GPUs and leaves the fabric open."""
        return mode == self.value or (self is ModeClaim.GPU and mode.startswith("gpu-"))


class FabricMode(Enum):
    FULL = "0"
    SHARED = "1"


class RailPolicy(Enum):
    GREEDY = "greedy"
    SYMMETRIC = "symmetric"


class ReadyState(Enum):
    NOT_READY = "0"
    READY = "1"


class RevokeRule(Enum):
    """What takes the ready state back after the boot."""

    NEVER = "never"
    GPU_LOST = "gpu-lost"
    FABRIC_LOST = "fabric-lost"
    ANY = "any"


class ReadyRule(Enum):
    ATTESTED = "attested"
    """When PID 1 sets the ready state; SRS leaves the answer to `nvrc.smi.srs`."""

    SRS = "srs"
    NEVER = "never"
    VERIFIED = "verified"
    ALWAYS = "always"


class CcMode(Enum):
    ANY = "any"
    OFF = "off"
    ON = "on"
    PPCIE = "ppcie"


class Corruption(Enum):
    IO_ERROR = "io-error"
    PANIC = "panic"
    RESTART = "restart"


class CountRule(Enum):
    EXACTLY = "exactly"
    AT_LEAST = "at least"
    ALL = "all"


class GpuCount(NamedTuple):
    """How many GPUs must come up: ALL means every one on the PCI bus, and then the number is 0."""

    rule: CountRule
    number: int = 0

    def text(self) -> str:
        if self.rule is CountRule.ALL:
            return "all"
        return f"min:{self.number}" if self.rule is CountRule.AT_LEAST else str(self.number)

    def required(self, on_bus: int) -> str:
        """`nvrc.gpus=all requires 8`, on a machine with 8."""
        return f"nvrc.gpus={self.text()} requires {on_bus if self.rule is CountRule.ALL else self.number}"

    def holds(self, ready: int, on_bus: int) -> bool:
        if self.rule is CountRule.ALL:
            return ready == on_bus
        return ready >= self.number if self.rule is CountRule.AT_LEAST else ready == on_bus == self.number


class ModuleOptions(NamedTuple):
    pairs: tuple[tuple[str, str], ...]

    def text(self) -> str:
        return ",".join(f"{name}={value}" for name, value in self.pairs)


MAX_GPUS = 128
_TRUE, _FALSE = ("on", "true", "1", "yes"), ("off", "false", "0", "no")


def read_number(given: str, low: int, high: int, unit: str = "") -> int:
    digits = given.isascii() and given.isdigit() and len(given) <= 20
    number = int(given) if digits else None
    if number is None or not low <= number <= high:
        raise MalformedError(f"{shown(given)} is not a whole number{unit and ' of ' + unit} from {low} to {high}")
    return number


def number(low: int, high: int, unit: str) -> Kind:
    return Kind(f"{unit}, {low} to {high}", lambda given: read_number(given, low, high, unit), is_number=True,
                unit=unit)


def choice(members: type[Enum], also: Mapping[str, Enum] | None = None, *, hide: tuple[str, ...] = ()) -> Kind:
    """One of the enumeration's values or of the further words in `also`."""
    words: dict[str, Enum] = {str(member.value): member for member in members} | dict(also or {})
    form = "|".join(word for word in words if word and word not in hide)
    return Kind(form, lambda given: _pick(given, words, form))


def _pick(given: str, words: Mapping[str, Enum], form: str) -> Enum:
    found = words.get(given.lower()) if given.isascii() else None
    if found is None:
        raise MalformedError(f"{shown(given)} is not one of {form}")
    return found


def _boolean(given: str) -> bool:
    lowered = given.lower()
    if lowered not in _TRUE + _FALSE:
        raise MalformedError(f"{shown(given)} is neither on (true, 1, yes) nor off (false, 0, no)")
    return lowered in _TRUE


def _gpu_count(given: str) -> GpuCount:
    if given.lower() == "all":
        return GpuCount(CountRule.ALL)
    least = given.lower().startswith("min:")
    try:
        found = read_number(given[4:] if least else given, 0, MAX_GPUS)
    except MalformedError:
        raise MalformedError(f"{shown(given)} is not one of N, min:N, all with N from 0 to {MAX_GPUS}") from None
    return GpuCount(CountRule.AT_LEAST if least else CountRule.EXACTLY, found)


def _module_options(given: str) -> ModuleOptions:
    pairs: dict[str, str] = {}
    for item in given.split(","):
        name, _, value = item.partition("=")
        if not _is_plain(name, "_") or not _is_plain(value, "_.:+-"):
            raise MalformedError(f"{shown(item)} is not name=value of letters, digits and _ (value also . : + -)")
        if name in pairs:
            raise MalformedError(f"option {name} is given twice")
        pairs[name] = value
    return ModuleOptions(tuple(pairs.items()))


def _is_plain(word: str, others: str) -> bool:
    return bool(word) and word.isascii() and all(c.isalnum() or c in others for c in word)


BOOLEAN = Kind("on|off", _boolean)
GPU_COUNT = Kind("N, min:N or all", _gpu_count)
MODULE_OPTIONS = Kind("name=value,...", _module_options)
