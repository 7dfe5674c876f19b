# SPDX-License-Identifier: Apache-2.0
"""`nvrc explain`: one word of this program, of the driver or of a log, from the tables that the boot itself uses."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO

from guest_cdi.lean.errors import CODES as CDI_CODES
from nvrc.boot import BOOT
from nvrc.engine.conditions import always
from nvrc.hostlogs.collect import collect
from nvrc.params.table import PARAMS, find
from nvrc.params.values import text
from nvrc.pid1.health import FAULT as FAULTY
from nvrc.pid1.health import FAULTS, LOST, OFF_THE_BUS
from nvrc.report.diagnosis import State
from nvrc.services.signatures import SIGNATURES
from nvrc.services.signatures import explain as explain_line
from nvrc.vocabulary.console import printable
from nvrc.vocabulary.errors import CODES, find_code
from nvrc.vocabulary.jsonread import FormatError
from nvrc.vocabulary.nearmiss import closest
from nvrc.vocabulary.output import write_document
from nvrc.vocabulary.terminal import UNLIMITED, fold, width_of, wrap

NAME = "explain"
HELP = "explain a word: a failure code, a parameter, a step, an Xid, a line of a log"
EPILOG = """\
examples:
  nvrc explain E_GPU_ATTACH           a failure code
  nvrc explain nvrc.smi.lgc           a kernel parameter; part of a line works as well, and so does an old name
  nvrc explain persistenced           a step of the boot
  nvrc explain Xid 79                 what the driver tells with a number
  nvrc explain 'NVRM: GPU 0000:41:00.0: RmInitAdapter failed! (0x22:0x56:897)'
  nvrc explain E_GPU_ATTACH --json    for machines

Exit status 2 for a word that is not known; the nearest that is known is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    kind: str
    name: str
    meaning: str
    remedy: str = ""
    who: str = ""
    facts: tuple[tuple[str, str], ...] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", metavar="WORD", nargs="+", help="a word, or a whole line")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace, out: TextIO) -> int:
    found = explain(" ".join(args.words).strip())
    if args.json:
        write_document(out, {"kind": found.kind, "name": found.name, "meaning": found.meaning, "remedy": found.remedy,
                             "who": found.who, "facts": dict(found.facts)})
    else:
        out.writelines(f"{line}\n" for line in show(found, width_of(out)))
    return 0


def explain(word: str) -> Explanation:
    found = (_explain_code(word) or _explain_parameter(word) or _explain_step(word) or _explain_xid(word)
             or _explain_signature(word) or _explain_code(f"E_{word}") or _explain_text(word))
    if found is None:
        names = {name.lower(): name for name in _names()}
        near = names.get(closest(word, names) or "")
        raise FormatError((f"{printable(word, 100)}: unknown" + (f", did you mean {near}?" if near else
                           "; known are failure codes, parameters, steps, Xids and lines of logs"),))
    return found


def show(found: Explanation, width: int = UNLIMITED) -> Iterator[str]:
    yield from wrap(printable(f"{found.kind} {found.name}"), width)
    rows = (("means", found.meaning), ("do", found.remedy), ("who", found.who), *found.facts)
    for label, words in rows:
        if words:
            yield from fold(label, printable(words), width)


def _names() -> Iterator[str]:
    yield from (row.code for row in CODES)
    yield from (row.code for row in CDI_CODES)
    yield from (row.name for row in PARAMS)
    yield from (step.name for step in BOOT)
    yield from (row.name for row in SIGNATURES)


def _explain_code(word: str) -> Explanation | None:
    row = find_code(word.upper())
    if row is None:
        return None
    return Explanation(kind="code", name=row.code, meaning=row.meaning, remedy=row.remedy, who=row.who,
                       facts=(("step", row.step),))


def _explain_parameter(word: str) -> Explanation | None:
    row = find(word.partition("=")[0])
    if row is None:
        return None
    facts = (("form", row.kind.form), ("default", text(row.default)), ("read by", row.step),
             ("worst", row.sensitivity.value), ("since", row.since), ("was", ", ".join(row.aliases)))
    return Explanation(kind="parameter", name=row.name, meaning=f"{row.help}. {row.more}".strip(),
                       facts=tuple(fact for fact in facts if fact[1]))


def _explain_step(word: str) -> Explanation | None:
    step = next((step for step in BOOT if step.name == word.lower()), None)
    if step is None:
        return None
    about = " ".join((step.load().__doc__ or "").partition("\n\n")[0].split())
    facts = (("needs", ", ".join(step.needs)), ("when", "always" if step.when is always else step.when.__name__),
             ("fails", step.on_failure.value), ("codes", ", ".join(row.code for row in CODES if row.step == step.name)),
             ("reads", ", ".join(row.name for row in PARAMS if step.name in row.readers)))
    return Explanation(kind="step", name=step.name, meaning=about, facts=tuple(fact for fact in facts if fact[1]))


def _explain_xid(word: str) -> Explanation | None:
    found = re.fullmatch(r"(?:Xid[ :]*)?([0-9]{1,4})", word, re.IGNORECASE)
    if found is None:
        return None
    number = int(found[1])
    if number not in FAULTS:
        return Explanation(kind="xid", name=f"{number}", remedy="look the number up in NVIDIA's list of Xids",
                           meaning="not one that takes a GPU out of service; many are the workload's own errors")
    row = find_code(LOST if number == OFF_THE_BUS else FAULTY)
    return Explanation(kind="xid", name=f"{number}", meaning=FAULTS[number], remedy=row.remedy if row else "",
                       who=row.who if row else "", facts=(("code", row.code if row else ""),))


def _explain_signature(word: str) -> Explanation | None:
    row = next((row for row in SIGNATURES if row.name == word.lower()), None)
    if row is None:
        return None
    return Explanation(kind="signature", name=row.name, meaning=row.cause, remedy=row.remedy, who=row.who,
                       facts=(("source", row.source), ("words", " ... ".join(row.words)), ("code", row.code)))


def _explain_text(line: str) -> Explanation | None:
    """A line of a log: ours, a host's, or one of the driver or a daemon."""
    told = next((one for one in collect([line]).diagnose() if one.state in (State.FAILED, State.DEGRADED)), None)
    if told is not None:
        what = (("what", told.failure.what), ("hint", told.failure.hint)) if told.failure else ()
        return Explanation(kind="line", name=told.summary, meaning=told.cause, remedy=told.remedy, who=told.who,
                           facts=what)
    if (row := explain_line([line])) is not None:
        return _explain_signature(row.name)
    if found := re.search(r"\bXid(?: \([^)]*\))?:? *([0-9]{1,4})\b", line):
        return _explain_xid(found[1])
    if code := re.search(r"\bE_[A-Z0-9_]+", line):
        return _explain_code(code[0])
    return next(filter(None, map(_explain_parameter, line.split())), None)
