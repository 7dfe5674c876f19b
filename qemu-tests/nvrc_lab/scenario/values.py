# SPDX-License-Identifier: Apache-2.0
"""A scenario as a value: image, machine, faults, expectation. The fields of these classes are the format of its file.

docs/lab.md explains them to the authors of files; `scenario` reads and checks. No function here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

# As `driver`: NVIDIA's own modules and programs, which the image has to have; else the release that the emulated says.
REAL = "real"
# An extension by this name has the driver.
GPU_EXTENSION = "gpu"


class Confidential(Enum):
    OFF = "off"
    ON = "on"
    DEVTOOLS = "devtools"
    PPCIE = "ppcie"
    UNKNOWN = "unknown"


class Verdict(Enum):
    """`ready`: READY and an orderly end. `failed`: FATAL before that. `lost`: READY, and later an END with a code.

    `panic`: the kernel itself ends the machine, as it does for data that do not verify.
    """

    READY = "ready"
    FAILED = "failed"
    LOST = "lost"
    PANIC = "panic"


class Damage(Enum):
    """What is wrong with an extension, or with what is said about it."""

    NONE = "none"
    FLIPPED_BIT = "flipped-bit"            # in a block that is read when it is mounted
    FLIPPED_LATER = "flipped-later"        # in a file that is read only afterwards
    WRONG_HASH = "wrong-root-hash"
    NO_DISK = "no-disk"
    NO_PARAMETERS = "no-parameters"
    TWO_DISKS = "two-disks"
    NOT_EROFS = "not-erofs"
    OTHER_KERNEL = "other-kernel"          # whole, but with the modules of another kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU, or `count` equal ones. `minor` counts up from the number given; absent: the driver decides.

    `numa`: the memory node that it is near to.
    """

    product: str
    count: int = 1
    at: str = ""
    uuid: str = ""
    minor: int | None = None
    attach_ms: int = 20
    confidential: Confidential = Confidential.OFF
    mig: tuple[str, ...] = ()
    numa: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    name: str
    damage: Damage = Damage.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """`displays`: another vendor's display adapters; `nics`: ordinary ConnectX functions; `numa`: memory nodes,
    over which memory and processors are divided.

    `bridged`: each GPU behind a bridge of its own, as on a real board.
    """

    gpus: tuple[Gpu, ...] = ()
    nvswitches: int = 0
    switch_product: str = "H100"
    management_nics: int = 0
    nics: int = 0
    displays: int = 0
    bridged: bool = False
    memory_mib: int = 512
    cpus: int = 1
    numa: int = 1
    extensions: tuple[Extension, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A row of faults.py by name, and where it strikes. Which of the places a fault needs is in its row."""

    name: str
    gpu: int | None = None
    program: str = ""
    call: str = ""
    value: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """`does`: words of the stand-in (qemu-tests/standins/agent.c), done in this order."""

    does: tuple[str, ...] = ("poweroff",)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """The container that the agent starts in the end: the devices it asks for, as annotation values of a request."""

    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the container must see. `gpus`: minors of the GPU nodes, exactly these. `refused`: it must not start.

    `instances`: MIG instances as `MINOR/GI/CI`; it has the capability nodes of exactly these. `is_confined`: nodes that
    it makes itself of GPUs it was not given cannot be opened.
    """

    gpus: tuple[int, ...] = ()
    instances: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    refused: str = ""
    is_confined: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """`report`: fields of the boot report by path (`gpus/0/state`, `steps/cdi/outcome`); `*` stands for anything.

    `what`: words of the verdict's reason that are facts, such as a bus id. `console`, `agent`: texts that some line
    must hold; `absent`: texts that no line may hold. `within_s`: how long `step` may take, by the machine's clock.
    """

    verdict: Verdict
    code: str = ""
    step: str = ""
    within_s: float = 0.0
    what: tuple[str, ...] = ()
    mode: str = ""
    gpus: int | None = None
    cdi: int | None = None
    warnings: tuple[str, ...] = ()
    report: Mapping[str, str] = field(default_factory=dict)
    agent: tuple[str, ...] = ()
    console: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    container: Seen | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """`variant`: a neighbour of another scenario, which a plain `nvrc-lab matrix` leaves out."""

    summary: str
    expect: Expectation
    story: str = ""
    machine: Hardware = Hardware()
    cmdline: str = ""
    policy: str = ""
    driver: str = ""
    faults: tuple[Fault, ...] = ()
    agent: Agent = Agent()
    container: Container | None = None
    deadline_s: float = 60.0
    variant: bool = False
    name: str = ""
