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

    `numa`: the memory node that it is near to. `pcie`: its link, `4x8` for eight lanes of the fourth generation, or
    `4x8/5x16` where it could have more. `nvml`: what NVIDIA's library says of it besides
    (qemu-tests/standins/nvml/README.md), by key.
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
    pcie: str = ""
    nvml: Mapping[str, str] = field(default_factory=dict)


class Link(Enum):
    ROCE = "roce"
    INFINIBAND = "infiniband"


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """One ConnectX function, or `count` equal ones. `virtual`: of a card whose physical function the host keeps.

    `pcie`: as of a GPU.
    """

    link: Link = Link.ROCE
    virtual: bool = False
    count: int = 1
    at: str = ""
    numa: int | None = None
    pcie: str = ""


class Tree(Enum):
    """How the PCI functions of GPUs and NICs hang together.

    `flat`: on root buses, without a bridge. `ports`: each below a root port of its own, as Kata plugs them. `switches`:
    as on a board: a root port and a switch for each pair of a GPU and a NIC, a root bus for each memory node. `nested`:
    the same, with two of these switches behind a larger one, and NICs before GPUs in the order of the bus.
    """

    FLAT = "flat"
    PORTS = "ports"
    SWITCHES = "switches"
    NESTED = "nested"


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    name: str
    damage: Damage = Damage.NONE


class DiskDamage(Enum):
    """What is wrong with the disk that carries the pod's initdata."""

    NONE = "none"
    CUT_SHORT = "cut-short"                # the stream ends before its end
    TWO_DISKS = "two-disks"                # two disks with it
    PARTITION = "partition"                # a disk with it, and another one that has it in a partition
    TOO_LARGE = "too-large"                # more packed bytes than the limit, by the header
    BOMB = "bomb"                          # few bytes that unpack to very many


class Tee(Enum):
    """Whether the guest is in a TEE (an imitated SEV-SNP), and with which digest of initdata it was started."""

    NONE = "none"
    MATCHING = "matching"
    OTHER = "other"
    NO_INITDATA = "no-initdata"


@dataclass(frozen=True, slots=True, kw_only=True)
class Initdata:
    """`kept_back`: the host does not attach the disk."""

    entries: Mapping[str, str]
    damage: DiskDamage = DiskDamage.NONE
    kept_back: bool = False


class Network(Enum):
    """Whether the machine reaches the host's loopback, as 10.0.2.2, by QEMU's own user network."""

    NONE = "none"
    USER = "user"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """`displays`: another vendor's display adapters; `numa`: memory nodes, over which memory and processors are
    divided; `scratch_mib`: an empty disk to write on.
    """

    gpus: tuple[Gpu, ...] = ()
    nvswitches: int = 0
    switch_product: str = "H100"
    management_nics: int = 0
    nics: tuple[Nic, ...] = ()
    displays: int = 0
    tree: Tree = Tree.FLAT
    memory_mib: int = 512
    cpus: int = 1
    numa: int = 1
    extensions: tuple[Extension, ...] = ()
    initdata: Initdata | None = None
    tee: Tee = Tee.NONE
    network: Network = Network.NONE
    scratch_mib: int = 0


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
    it makes itself of GPUs it was not given cannot be opened. `is_held`: its program must never have run, however far
    the engine came.
    """

    gpus: tuple[int, ...] = ()
    instances: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    refused: str = ""
    is_confined: bool = True
    is_held: bool = False


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
    """`variant`: a neighbour of another scenario, which a plain `nvrc-lab matrix` leaves out. `files`: texts that the
    image has, by path.
    """

    summary: str
    expect: Expectation
    story: str = ""
    machine: Hardware = Hardware()
    cmdline: str = ""
    policy: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    driver: str = ""
    faults: tuple[Fault, ...] = ()
    agent: Agent = Agent()
    container: Container | None = None
    deadline_s: float = 60.0
    variant: bool = False
    name: str = ""
