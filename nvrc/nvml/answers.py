# SPDX-License-Identifier: Apache-2.0
"""What the worker with NVIDIA's library answers, as values; both sides import this, and it imports nothing of NVIDIA's.

On the way they are JSON. PID 1 takes nothing on trust that came out of a process with a foreign library in it: a record
has exactly its fields with exactly their types, or the worker counts as crashed.
"""

# No `annotations` from the future here: the types of the fields are what answers are checked against.

from guest_cdi.lean.light import NamedTuple, Sequence, TypeVar
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.gpu import name_place

T = TypeVar("T")

MOST = 2048  # of anything in an answer, such as pairs of 64 GPUs


class NvmlGpu(NamedTuple):
    """A GPU that NVML lists. `error` names the call that failed; fields not yet known then are empty. `serial` is the
    number on the board, where it was asked for and the GPU has one.
    """

    number: int
    bdf: str            # as sysfs spells it
    uuid: str
    name: str
    minor: int
    error: str
    serial: str = ""

    @property
    def label(self) -> str:
        return f"GPU {self.number} {name_place(self.bdf, self.uuid)}".rstrip()

    @property
    def identity(self) -> str:
        """All that tells this GPU from others, in one word."""
        return f"{self.number}={self.bdf}/{self.uuid}/{self.minor}"


class Applied(NamedTuple):
    """One setting of one GPU. `got` is what the GPU says afterwards, -1 where it does not say."""

    number: int
    setting: str        # the field of Settings
    asked: int
    got: int
    error: str


class MigMade(NamedTuple):
    """The instances of one GPU after its part of the layout was made."""

    number: int
    profiles: tuple[str, ...]
    changed: bool
    error: str


class CcSystem(NamedTuple):
    """NVML's numbers for the whole machine, as they are; -1 for a question that this driver does not know."""

    environment: int
    feature: int
    devtools: int
    multi_gpu: int
    cpu: int
    gpus: int


class CcMemory(NamedTuple):
    """How much memory of one GPU is protected; -1 where the GPU does not say."""

    number: int
    protected_kib: int


class Certificate(NamedTuple):
    """Which certificate one GPU signs evidence with; empty where there is none."""

    number: int
    leaf: str


class CcAnswer(NamedTuple):
    """`system` is None where this machine has no confidential mode to speak of."""

    system: CcSystem | None
    gpus: tuple[CcMemory, ...]


class SwitchTold(NamedTuple):
    """What NVIDIA's library says of one NVSwitch; empty or -1 with an `error` where it does not say."""

    uuid: str
    bdf: str            # as sysfs spells it
    mode: int           # NSCQ's number for protected PCIe
    error: str


class ReadyAnswer(NamedTuple):
    """Whether the GPUs accepted work before the question, and whether they do now."""

    before: bool
    now: bool


class FabricState(NamedTuple):
    """NVML's numbers for one GPU's registration with the NVLink fabric; `state` -1 where the driver knows none."""

    number: int
    state: int
    status: int
    clique: int
    cluster: str        # 32 hexadecimal digits


class LinkCount(NamedTuple):
    """Active NVLinks of one GPU, how many of them lead to a switch, and the bus ids that the others lead to."""

    number: int
    active: int
    switched: int
    peers: tuple[str, ...]


class PairState(NamedTuple):
    """NVML's numbers for two GPUs; -1 for a question that this driver does not know."""

    one: int
    other: int
    read: int
    write: int
    nvlink: int


class CdiMade(NamedTuple):
    """The published document. `devices` does not count the second, UUID name that each device has."""

    version: str
    driver: str
    devices: int
    nodes: int
    mounts: int
    hooks: int
    missing: tuple[str, ...]        # optional things that this driver does not have
    left_out: tuple[str, ...]       # devices with a fault, with what it is
    faulty: tuple[int, ...]         # the GPU that each of those belongs to
    gpus: tuple[str, ...]           # the identities of all others


def read_record(kind: type[T], value: object) -> T:
    """A record from the list that JSON made of it."""
    (record,) = read_records(kind, [value])
    return record


def read_records(kind: type[T], value: object) -> tuple[T, ...]:
    if not isinstance(value, list) or len(value) > MOST:
        raise _malformed(kind, value)
    hints = tuple(kind.__annotations__.values())
    return tuple([_read_record(kind, hints, item) for item in value])


def _read_record(kind: type[T], hints: tuple[type, ...], value: object) -> T:
    if not isinstance(value, list) or len(value) != len(hints):
        raise _malformed(kind, value)
    if tuple(map(type, value)) == hints:
        return kind(*value)
    return kind(*[_read_field(kind, hint, item) for hint, item in zip(hints, value, strict=True)])


def _read_field(kind: type, hint: type, value: object) -> object:
    """A plain value, or a tuple of plain values of one type."""
    if inner := getattr(hint, "__args__", ()):
        if not isinstance(value, list) or len(value) > MOST:
            raise _malformed(kind, value)
        return tuple(_read_field(kind, inner[0], item) for item in value)
    if type(value) is not hint:
        raise _malformed(kind, value)
    return value


def _malformed(kind: type, value: object) -> NvrcError:
    return NvrcError("E_NVML_CRASH", f"the worker's answer holds no {kind.__name__}: {ascii(value)[:80]}")


def indices(value: object) -> tuple[int, ...]:
    """The GPU numbers that a request was given."""
    if not isinstance(value, Sequence) or not all(type(item) is int for item in value):
        raise TypeError(f"not a list of numbers: {value!r}")
    return tuple(value)
