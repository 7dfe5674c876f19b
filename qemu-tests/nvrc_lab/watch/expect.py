# SPDX-License-Identifier: Apache-2.0
"""Did a run go as its scenario says? Every difference in one line; pure.

Beyond what a scenario asks for, every run must end by itself, give one verdict and a report that agrees with it, and
after a failure nothing that depends on the failed step may have run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from nvrc.boot import BOOT
from nvrc.report.report import Outcome, Report
from nvrc.vocabulary.console import sentence
from nvrc.vocabulary.transcript import is_forged
from nvrc_lab.scenario.hardware import place_gpus
from nvrc_lab.scenario.node_numbers import check_numbers
from nvrc_lab.scenario.values import REAL, Scenario, Seen, Verdict
from nvrc_lab.watch.outcome import Container, Json, Told
from nvrc_lab.watch.places import check_places
from nvrc_lab.watch.verdict import judge
from nvrc_lab.watch.watch import Ending

POWER_OFF_S = 15.0
ANYTHING = "*"
CAUSE = 100  # characters of the verdict's reason that its shorter form has in any case
# That the report is wanted on the console is known once the command line was read.
BEFORE_REPORT = ("filesystems", "journal", "hardening", "parameters")
GPU_MAJOR = 195
# As in nv_caps.c and lab_mailbox.h: instances of a GPU, compute instances of each, and the minor of the very first.
INSTANCES, COMPUTE_INSTANCES, FIRST_INSTANCE = 15, 8, 3
_NAMES = ("name", "bdf", "uuid")
_DROPPED = re.compile(r"\*\* ([0-9]{1,9}) printk messages dropped \*\*")
_GPU_NODE = re.compile(r"nvidia\d+")


def verdict_of(told: Told) -> str:
    """What the console's verdicts come to, in the words of scenarios; `none` when there was none."""
    story = told.run.story
    if story.ready is not None:
        is_orderly = story.end is not None and story.end.code == "OK" and story.failure is None
        return Verdict.READY.value if is_orderly else Verdict.LOST.value
    if story.failure is not None:
        return Verdict.FAILED.value
    return Verdict.PANIC.value if story.panic else "none"


def code_of(told: Told) -> str:
    story = told.run.story
    if story.failure is not None:
        return story.failure.code
    return story.end.code if story.end is not None else "-"


def compare(scenario: Scenario, told: Told) -> tuple[str, ...]:
    checks = (_check_end, _check_lost, _check_verdict, _check_refusal, _check_report, _check_order, _check_lines,
              _check_container, _check_attaches, _check_nodes, check_places)
    if told.run.killed_by:  # whatever else is missing follows from that
        return (_explain_kill(told),)
    return tuple(problem for check in checks for problem in check(scenario, told))


def compare_foreign(told: Told) -> tuple[str, ...]:
    """Another init has no verdict line: it did its work when the agent ran and the machine ended by itself."""
    if told.run.killed_by:
        return (_explain_kill(told),)
    if not told.agent:
        return ("the agent never ran",)
    return () if told.run.ending is Ending.GUEST else (f"it did not end by itself: {told.run.ending.value}",)


def _explain_kill(told: Told) -> str:
    found = judge(told.run)
    return f"{found.what}: {found.hint}"


def _check_end(scenario: Scenario, told: Told) -> Iterator[str]:
    if told.run.ending is not Ending.GUEST:
        yield f"the machine did not power itself off: {told.run.ending.value} ({judge(told.run).what})"
    elif scenario.expect.verdict is Verdict.FAILED and (told.run.power_off_s or 0.0) > POWER_OFF_S:
        yield f"power-off took {told.run.power_off_s:.1f} s after the verdict, more than {POWER_OFF_S:g} s"


def _check_lost(_scenario: Scenario, told: Told) -> Iterator[str]:
    """What the kernel's log had no room for is missing from everything below."""
    if lost := sum(int(found[1]) for found in map(_DROPPED.search, told.lines) if found):
        yield f"the kernel dropped {lost} lines of its log before they were printed: programs were faster than the port"


def _check_verdict(scenario: Scenario, told: Told) -> Iterator[str]:
    expect, story, found = scenario.expect, told.run.story, verdict_of(told)
    if found != expect.verdict.value:
        yield f"verdict: expected {expect.verdict.value}, found {found}: {judge(told.run).what}"
        return
    if expect.code and code_of(told) != expect.code:
        yield f"code: expected {expect.code}, found {code_of(told)}: {judge(told.run).what}"
    if is_forged(story.said):
        yield f"{len(story.said)} verdict lines about one boot: one of them is forged"
    if expect.step and story.failure is not None and story.failure.step != expect.step:
        yield f"step: expected {expect.step}, found {story.failure.step}"
    reason = story.failure.what if story.failure else story.end.what if story.end else ""
    yield from (f"what: {word!r} is not in {reason!r}" for word in expect.what if word not in reason)
    if story.failure is not None and not story.failure.hint:
        yield "the verdict has no hint"
    if story.ready is not None:
        wanted = (("mode", expect.mode or None, story.ready.mode), ("gpus", expect.gpus, story.ready.gpus),
                  ("cdi", expect.cdi, story.ready.cdi))
        yield from (f"{name}: expected {due}, found {found}" for name, due, found in wanted if due not in (None, found))


def _check_refusal(_scenario: Scenario, told: Told) -> Iterator[str]:
    """What a runtime was told is all that a pod's author sees. That it was told at all, `runtime_side` sees to."""
    failure, found = told.run.story.failure, told.refusal
    if found is None:
        return
    if failure is None:
        yield f"the runtime was refused, and the console knows of no failure: {found}"
        return
    head = f"status=9 guest init: {failure.code} in step {failure.step}: "
    cause = " ".join(failure.what.split())[:CAUSE]
    if not found.startswith(head):
        yield f"the runtime was told {found!r}, which does not begin with {head!r}"
    elif cause.isascii() and "\\" not in cause and cause not in found:
        yield f"the runtime was told {found!r}, which lacks {cause!r}"
    if len(found.removeprefix("status=9 ")) > 1024 or not found.isascii() or not found.isprintable():
        yield f"the runtime was told something else than one line of printable ASCII below 1 KiB: {found!r}"


def _check_report(scenario: Scenario, told: Told) -> Iterator[str]:
    expect, story = scenario.expect, told.run.story
    if expect.verdict is Verdict.PANIC:
        return
    if told.report is None:
        if expect.step not in BEFORE_REPORT:
            yield told.report_problem
        return
    failure = told.report.failure
    if expect.verdict is Verdict.FAILED and story.failure is not None and (
            failure is None or failure.code != story.failure.code):
        yield f"the report's failure is {failure.code if failure else 'none'}, the verdict's is {story.failure.code}"
    for path, due in expect.report.items():
        found = look_up(told.document, path.split("/"))
        if found is None or due not in (ANYTHING, found):
            yield f"report {path}: expected {due}, found {found if found is not None else 'nothing there'}"
    yield from _check_time(scenario, told.report)
    heard = (*story.warnings, *map(sentence, told.report.troubles), *told.report.notes)
    for text in expect.warnings:
        if not any(text in warning for warning in heard):
            yield f"warnings: none has {text!r}; there are {list(story.warnings)}"


def _check_time(scenario: Scenario, report: Report) -> Iterator[str]:
    expect = scenario.expect
    if not expect.within_s:
        return
    row = next((step for step in report.steps if step.name == expect.step), None)
    if row is None or row.start_s is None or row.end_s is None:
        yield f"step {expect.step}: it has no beginning or no end in the report"
    elif row.end_s - row.start_s > expect.within_s:
        found = f"took {row.end_s - row.start_s:.1f} s"
        yield f"step {expect.step}: {found}, expected within {expect.within_s:g} s"


def look_up(document: Json, path: Sequence[str]) -> str | None:
    """A field as text. An item of a list by its number, or by its name, bus id or UUID."""
    if not path:
        return _text(document)
    head, rest = path[0], path[1:]
    if isinstance(document, dict):
        return look_up(document[head], rest) if head in document else None
    if isinstance(document, list):
        if head.isdigit():
            return look_up(document[int(head)], rest) if int(head) < len(document) else None
        item = next((row for row in document if isinstance(row, dict) and head in map(row.get, _NAMES)), None)
        return look_up(item, rest) if item is not None else None
    return None


def _text(value: Json) -> str:
    if isinstance(value, (list, dict)):
        return f"{len(value)} items"
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return str(value)


def _check_order(scenario: Scenario, told: Told) -> Iterator[str]:
    """Nothing that needs the failed step may have run, and no agent with it."""
    if scenario.expect.verdict is not Verdict.FAILED or told.report is None or told.report.failure is None:
        return
    is_early = any(step.name == "promise" and step.outcome is not Outcome.SKIP for step in told.report.steps)
    needs = {step.name: step.early if is_early and step.early is not None else step.needs for step in BOOT}
    later = depend_on(told.report.failure.step, needs)
    ran = [step.name for step in told.report.steps if step.name in later and step.start_s is not None
           and step.outcome in (Outcome.OK, Outcome.WARN, Outcome.FAIL)]
    if ran:
        yield f"after the failure of {told.report.failure.step} there ran {', '.join(ran)}"
    if told.agent and "agent" in later:
        yield "the agent ran although the boot failed"


def depend_on(step: str, needs: Mapping[str, Sequence[str]]) -> frozenset[str]:
    later: frozenset[str] = frozenset()
    while True:
        more = frozenset(name for name, due in needs.items() if step in due or later & set(due))
        if more == later:
            return later
        later = more


def _check_lines(scenario: Scenario, told: Told) -> Iterator[str]:
    expect = scenario.expect
    yield from (f"agent: no line has {text!r}" for text in expect.agent if not any(text in line for line in told.agent))
    yield from (f"console: no line has {text!r}" for text in expect.console
                if not any(text in line for line in told.lines))
    yield from (f"console: {text!r} must be in no line, and is in {line!r}" for text in expect.absent
                for line in told.lines if text in line)


def _check_container(scenario: Scenario, told: Told) -> Iterator[str]:
    seen, container = scenario.expect.container, told.container
    if seen is None:
        return
    if seen.is_held:
        if container is not None and container.ran:
            yield "container: it started, although its GPUs never came up"
    elif container is None:
        yield "container: the engine never spoke"
    elif seen.refused:
        if container.ran:
            yield "container: it started, although it must be refused"
        if not any("refused" in line and seen.refused in line for line in container.said):
            yield f"container: not refused with {seen.refused!r}: {list(container.said[-3:])}"
    else:
        yield from _check_seen(seen, container)
        if scenario.container and not scenario.container.devices:
            yield from (f"container: it asked for nothing and has {name}" for name in container.nodes)
        elif not container.cached:
            yield "container: its loader cache does not have libcuda.so.1"


def _check_seen(seen: Seen, container: Container) -> Iterator[str]:
    if not container.ran or container.status != 0:
        yield f"container: it did not run (status {container.status}): {list(container.said[-3:])}"
        return
    found = {node.minor for name, node in container.nodes.items() if _GPU_NODE.fullmatch(name)}
    if found != set(seen.gpus):
        yield f"container: GPU minors expected {sorted(seen.gpus)}, found {sorted(found)}"
    capabilities = {name for name in container.nodes if name.startswith("nvidia-caps/")}
    due = {name for instance in seen.instances for name in capability_nodes(instance)}
    if capabilities != due:
        yield f"container: capability nodes expected {sorted(due)}, found {sorted(capabilities)}"
    for name, node in container.nodes.items():
        if node.opened != "ok":
            yield f"container: {name} cannot be opened: {node.opened}"
        if _GPU_NODE.fullmatch(name) and (node.major, node.minor) != (GPU_MAJOR, int(name.removeprefix("nvidia"))):
            yield f"container: {name} is {node.major}:{node.minor}"
    yield from (f"container: no node {name}" for name in seen.nodes if name not in container.nodes)
    yield from (f"container: no library {name}" for name in seen.libraries if name not in container.libraries)
    yield from (f"container: {name}: expected {due!r}, found {container.env.get(name)!r}"
                for name, due in seen.env.items() if container.env.get(name) != due)
    if seen.is_confined:
        yield from (f"container: the device cgroup let it through: {text}" for text in container.forbidden)


def capability_nodes(instance: str) -> tuple[str, str]:
    """The nodes of a GPU instance and of its compute instance; numbered as in nv_caps.c."""
    minor, gi, ci = map(int, instance.split("/"))
    first = FIRST_INSTANCE + (minor * INSTANCES + gi) * (1 + COMPUTE_INSTANCES)
    return f"nvidia-caps/nvidia-cap{first}", f"nvidia-caps/nvidia-cap{first + 1 + ci}"


def _check_attaches(scenario: Scenario, told: Told) -> Iterator[str]:
    """Nobody touches a GPU before nvidia-persistenced: the driver keeps the name of who opened it first."""
    if scenario.faults or scenario.expect.verdict is not Verdict.READY:
        return
    for row in told.attaches:
        if not row.endswith("first=nvidia-persiste") or " attaches=1 " not in row or " failures=0 " not in row:
            yield f"attach: nvidia-persistenced must have been the first and the only one to attach: {row}"


def _check_nodes(scenario: Scenario, told: Told) -> Iterator[str]:
    if scenario.driver == REAL and scenario.machine.gpus and scenario.expect.step != "modules":
        yield from check_numbers(told.lines, [gpu.minor for gpu in place_gpus(scenario.machine)])
