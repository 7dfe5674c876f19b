# SPDX-License-Identifier: Apache-2.0
"""A scenario file read and checked; boots nothing.

What can be known to be wrong before a machine is made is an error of the file: unknown keys, products, faults, codes,
steps.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from nvrc.boot import BOOT
from nvrc.vocabulary.errors import CODES, find_code
from nvrc.vocabulary.nearmiss import closest
from nvrc.vocabulary.products import PRODUCTS, SWITCHES
from nvrc.vocabulary.records import FormatError
from nvrc_lab.ground.errors import LabError
from nvrc_lab.scenario.fault_check import check_fault
from nvrc_lab.scenario.faults import FAULTS
from nvrc_lab.scenario.records import read_yaml
from nvrc_lab.scenario.values import Expectation, Scenario, Verdict

SUFFIX = ".yaml"
_PCIE = re.compile(r"[1-6]x[0-9]{1,2}(/[1-6]x[0-9]{1,2})?")
# What a verdict line may name: a step of the boot, or what a code's own row names, such as the time after the boot.
STEPS = tuple(dict.fromkeys((*(step.name for step in BOOT), *(row.step for row in CODES))))


def read_scenario(path: Path) -> Scenario:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise LabError(f"scenario {path} cannot be read ({err})",
                       "see nvrc-lab list for those of this checkout") from err
    return parse_scenario(text, path.stem, str(path))


@cache
def parse_scenario(text: str, name: str, origin: str) -> Scenario:
    try:
        scenario = read_yaml(Scenario, text)
    except FormatError as err:
        raise _wrong(origin, err.problems) from err
    problems = tuple(check_scenario(scenario))
    if problems:
        raise _wrong(origin, problems)
    return Scenario(**{**{field: getattr(scenario, field) for field in Scenario.__slots__}, "name": name})


def _wrong(origin: str, problems: tuple[str, ...]) -> LabError:
    return LabError("\n".join(f"{origin}: {problem}" for problem in problems),
                    "see docs/lab.md for the format of scenarios")


def check_scenario(scenario: Scenario) -> Iterator[str]:
    """Mistakes beyond the types: names that nothing has, numbers out of range, contradictions."""
    expect, machine = scenario.expect, scenario.machine
    for index, gpu in enumerate(machine.gpus):
        yield from _unknown(f"machine.gpus[{index}].product", gpu.product, tuple(PRODUCTS))
        if gpu.count < 1 or (gpu.count > 1 and (gpu.uuid or gpu.at)):
            yield f"machine.gpus[{index}]: count {gpu.count}; one GPU each, where uuid or at is given"
        if gpu.numa is not None and not 0 <= gpu.numa < machine.numa:
            yield f"machine.gpus[{index}].numa: {gpu.numa}; machine.numa is {machine.numa}, counted from 0"
    for key, links in (("gpus", [gpu.pcie for gpu in machine.gpus]), ("nics", [nic.pcie for nic in machine.nics])):
        yield from (f"machine.{key}[{index}].pcie: {link!r} is neither GENERATIONxLANES nor two of these with a slash"
                    for index, link in enumerate(links) if link and not _PCIE.fullmatch(link))
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
        yield "expect.within_s: requires a step, and a time above zero"
    if expect.code and find_code(expect.code) is None:
        yield f"expect.code: {expect.code} is not a failure code; docs/failure-codes.md lists them"


def _unknown(key: str, word: str, known: tuple[str, ...]) -> Iterator[str]:
    if word not in known:
        near = closest(word, known)
        yield f"{key}: {word!r} is unknown; {f'did you mean {near}?' if near else 'known: ' + ', '.join(known)}"


def list_scenarios(folder: Path) -> tuple[Path, ...]:
    if not folder.is_dir():
        raise LabError(f"there is no folder of scenarios {folder}", "name one that exists, or install the wheel again")
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
