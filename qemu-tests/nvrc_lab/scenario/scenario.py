# SPDX-License-Identifier: Apache-2.0
"""A scenario file as a value: image, machine, faults, expectation. Reads and checks; boots nothing.

The fields of these classes are the format; docs/lab.md explains them to the authors of files. What can be known to be
wrong before a machine is made is an error of the file: unknown keys, products, faults, codes, steps.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from nvrc.boot import BOOT
from nvrc.vocabulary.errors import CODES, find_code
from nvrc.vocabulary.nearmiss import closest
from nvrc.vocabulary.products import PRODUCTS, SWITCHES
from nvrc_lab.ground.errors import LabError
from nvrc_lab.scenario.records import RecordError, read_record

SUFFIX = ".yaml"
# As `driver`: NVIDIA's own modules and programs, which the image has to have; else the release that the emulated says.
REAL = "real"
# An extension by this name has the driver.
GPU_EXTENSION = "gpu"
# What a verdict line may name: a step of the boot, or what a code's own row names, such as the time after the boot.
STEPS = tuple(dict.fromkeys((*(step.name for step in BOOT), *(row.step for row in CODES))))


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


def read_scenario(path: Path) -> Scenario:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise LabError(f"scenario {path} cannot be read ({err})", "nvrc-lab list names those of this checkout") from err
    return parse_scenario(text, path.stem, str(path))


def parse_scenario(text: str, name: str, origin: str) -> Scenario:
    try:
        scenario = read_record(Scenario, text)
    except RecordError as err:
        raise _wrong(origin, err.problems) from err
    problems = tuple(check_scenario(scenario))
    if problems:
        raise _wrong(origin, problems)
    return Scenario(**{**{field: getattr(scenario, field) for field in Scenario.__slots__}, "name": name})


def _wrong(origin: str, problems: tuple[str, ...]) -> LabError:
    return LabError("\n".join(f"{origin}: {problem}" for problem in problems),
                    "docs/lab.md describes the format of scenarios")


def check_scenario(scenario: Scenario) -> Iterator[str]:
    """Mistakes beyond the types: names that nothing has, numbers out of range, contradictions."""
    from nvrc_lab.scenario.fault_check import check_fault  # noqa: PLC0415  (both are about scenarios)
    from nvrc_lab.scenario.faults import FAULTS  # noqa: PLC0415

    expect, machine = scenario.expect, scenario.machine
    for index, gpu in enumerate(machine.gpus):
        yield from _unknown(f"machine.gpus[{index}].product", gpu.product, tuple(PRODUCTS))
        if gpu.count < 1 or (gpu.count > 1 and (gpu.uuid or gpu.at)):
            yield f"machine.gpus[{index}]: count {gpu.count}; one GPU each, where uuid or at is given"
        if gpu.numa is not None and not 0 <= gpu.numa < machine.numa:
            yield f"machine.gpus[{index}].numa: {gpu.numa}; machine.numa is {machine.numa}, counted from 0"
    yield from _unknown("machine.switch_product", machine.switch_product, tuple(SWITCHES))
    for key, number in (("machine.memory_mib", machine.memory_mib), ("machine.cpus", machine.cpus),
                        ("machine.numa", machine.numa),
                        ("deadline_s", scenario.deadline_s)):
        if number <= 0:
            yield f"{key}: {number} is not above zero"
    for index, fault in enumerate(scenario.faults):
        yield from _unknown(f"faults[{index}].name", fault.name, tuple(FAULTS))
        yield from (f"faults[{index}]: {text}" for text in check_fault(fault, scenario))
    if expect.step:
        yield from _unknown("expect.step", expect.step, STEPS)
    yield from _check_verdict(expect)
    yield from _check_container(scenario)


def _check_container(scenario: Scenario) -> Iterator[str]:
    seen = scenario.expect.container
    for instance in seen.instances if seen else ():
        if not re.fullmatch(r"\d+/\d+/\d+", instance):
            yield f"expect.container.instances: {instance!r} is not MINOR/GI/CI"
    if (seen is None) != (scenario.container is None):
        yield "container and expect.container belong together"


def _check_verdict(expect: Expectation) -> Iterator[str]:
    if expect.verdict is Verdict.READY and (expect.code or expect.step):
        yield "expect: a machine that gets ready has neither code nor step"
    if expect.verdict in (Verdict.FAILED, Verdict.LOST) and not expect.code:
        yield f"expect.code: missing; verdict {expect.verdict.value} has one"
    if expect.within_s < 0 or (expect.within_s and not expect.step):
        yield "expect.within_s: wants a step, and a time above zero"
    if expect.code and find_code(expect.code) is None:
        yield f"expect.code: {expect.code} is no failure code; docs/failure-codes.md lists them"


def _unknown(key: str, word: str, known: tuple[str, ...]) -> Iterator[str]:
    if word not in known:
        near = closest(word, known)
        yield f"{key}: {word!r} is unknown; {f'did you mean {near}?' if near else 'known: ' + ', '.join(known)}"


def list_scenarios(folder: Path) -> tuple[Path, ...]:
    if not folder.is_dir():
        raise LabError(f"there is no folder of scenarios {folder}", "name one that exists, or install the wheel anew")
    return tuple(sorted(folder.glob(f"*{SUFFIX}")))


def find_scenario(word: str, folder: Path) -> Path:
    """A path, or the name of a scenario of this checkout."""
    if "/" in word or word.endswith(SUFFIX):
        return Path(word)
    found = folder / f"{word}{SUFFIX}"
    if not found.is_file():
        near = closest(word, [path.stem for path in list_scenarios(folder)])
        raise LabError(f"no scenario {word!r} in {folder}", f"did you mean {near}?" if near else "nvrc-lab list")
    return found
