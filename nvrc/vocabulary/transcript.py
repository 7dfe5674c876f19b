# SPDX-License-Identifier: Apache-2.0
"""The console's lines back to values, for those who read logs: doctor, the lab. Never imported at boot.

The only place where a code is read off a text: inside the program a trouble is a value (nvrc.vocabulary.trouble).
"""

from __future__ import annotations

import re
from dataclasses import replace

from guest_cdi.lean.light import NamedTuple, Sequence
from nvrc.vocabulary.console import PREFIX, REFUSAL, WORDS
from nvrc.vocabulary.errors import find_code
from nvrc.vocabulary.trouble import AFTER_THE_BOOT, Trouble, remark


class StepLine(NamedTuple):
    name: str
    outcome: str
    seconds: float
    detail: str

    @property
    def trouble(self) -> Trouble | None:
        """Of a step that the boot went on without."""
        if self.outcome != "warn":
            return None
        return replace(read_trouble(self.detail), step=self.name)


class WarningLine(NamedTuple):
    text: str


class ReadyLine(NamedTuple):
    seconds: float
    mode: str
    gpus: int
    cdi: int
    agent: int


class EndLine(NamedTuple):
    code: str
    what: str


# A Trouble is what a FATAL line tells.
Line = StepLine | WarningLine | ReadyLine | Trouble | EndLine

# What may stand before our prefix on a serial console: the level of a raw record, the kernel's time, its caller.
_BEFORE = r"(?:<[0-9]{1,3}>)?(?:\[ *[0-9]+\.[0-9]+\](?:\[ *[TC][0-9]+\])? )?"
_TIME = r"([0-9]{1,6}\.[0-9]{3})s"
_NUMBER = r"([0-9]{1,9})"
_STRING = r'"((?:[^"\\]|\\.)*)"'
_STEP = rf"step (\S+) ({'|'.join(WORDS)}) {_TIME}(?: (.*))?"
_WARNING = r"warn (.*)"
_READY = rf"READY in {_TIME} mode=(\S+) gpus={_NUMBER} cdi={_NUMBER} agent={_NUMBER}"
_FATAL = rf"FATAL code=(\S+) step=(\S+) what={_STRING} hint={_STRING}"
_REFUSAL = rf"\b{REFUSAL}(E_[A-Z0-9_]{{1,61}})(?: in step ([a-z0-9-]{{1,64}}))?: (.*)"
_GPU = r"\b([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])\b(?: \((GPU-[0-9a-f-]{1,36})\))?"
_CUT = (r'FATAL code=(E_[A-Z0-9_]{1,61}) step=([a-z0-9-]{1,64})'
        r'(?: what="((?:[^"\\]|\\.)*)(?:" hint="((?:[^"\\]|\\.)*))?)?')
_END = rf"END code=(\S+) what={_STRING}"


def parse_line(text: str) -> Line | None:
    """The line as a value; None for pieces of a report and for everything that is not exactly of this grammar."""
    body = _body(text)
    if body is None:
        return None
    if found := re.fullmatch(_STEP, body):
        return StepLine(_word(found[1]), found[2], float(found[3]), _unescape(found[4] or ""))
    if found := re.fullmatch(_READY, body):
        return ReadyLine(float(found[1]), _word(found[2]), int(found[3]), int(found[4]), int(found[5]))
    if found := re.fullmatch(_FATAL, body):
        return Trouble(code=_word(found[1]), step=_word(found[2]), what=_unescape(found[3]), hint=_unescape(found[4]))
    if found := re.fullmatch(_END, body):
        return EndLine(_word(found[1]), _unescape(found[2]))
    if found := re.fullmatch(_WARNING, body):
        return WarningLine(_unescape(found[1]))
    return None


def read_cut(text: str) -> Trouble | None:
    """A verdict that a copy has only the begin of. The table's own remedy stands in for a hint that is not there."""
    found = re.match(_CUT, _body(text) or "")
    row = find_code(found[1]) if found else None
    if found is None or row is None or isinstance(parse_line(text), Trouble):
        return None
    what, hint = (_unescape(text or "") for text in (found[3], found[4]))
    return Trouble(code=row.code, step=found[2], what=what or row.meaning, hint=hint or row.remedy)


def read_trouble(text: str) -> Trouble:
    """A warning, or the detail of a step that warned; one that begins with no code of ours is a remark."""
    word, _, what = text.partition(" ")
    row = find_code(word.rstrip(":")) if word.startswith("E_") else None
    if row is None:
        return remark(text)
    named = dict(re.findall(_GPU, what))
    gpu, uuid = next(iter(named.items())) if len(named) == 1 else ("", "")
    return Trouble(code=row.code, step=row.step, what=what, hint=row.remedy, gpu=gpu, uuid=uuid)


def read_refusal(text: str) -> Trouble | None:
    """The verdict that PID 1 gave in the agent's place, in a runtime's error, in an event or a log."""
    found = re.search(_REFUSAL, text, re.DOTALL)
    if found is None:
        return None
    what, hint = found[3], ""
    if with_hint := re.fullmatch(r"(.*?) \(hint: (.*)", what, re.DOTALL):
        what, hint = with_hint[1], _end_of_hint(with_hint[2])
    else:
        what = what.removesuffix(": unknown")
    return Trouble(code=found[1], step=found[2] or AFTER_THE_BOOT, what=restore(what.strip()),
                   hint=restore(hint.strip()))


def _end_of_hint(text: str) -> str:
    """The hint without what its carriers add: containerd a word, others the end of a quotation."""
    ends = [text.index(end) for end in ("): unknown", ')"', ')\\"') if end in text]
    if ends:
        return text[:min(ends)]
    return text[:text.rindex(")")] if ")" in text else text


def is_forged(verdicts: Sequence[ReadyLine | Trouble | EndLine]) -> bool:
    """Whether these, in their order, are more than PID 1 says of one life.

    READY or FATAL once, after READY one END or a FATAL of `supervise`, and one of itself at worst.
    """
    *told, last = verdicts or (None,)
    if not (told and isinstance(last, Trouble) and last.step == "pid1"):
        told = list(verdicts)
    if told and isinstance(told[0], ReadyLine):
        told = told[1:]
        return len(told) > 1 or any(isinstance(one, ReadyLine) or not _is_way_down(one) for one in told)
    return len(told) > 1


def _is_way_down(line: Trouble | EndLine) -> bool:
    return isinstance(line, EndLine) or line.step in ("supervise", "pid1")


def parse_report_piece(text: str) -> str | None:
    """What a report line carries; None for other lines."""
    body = _body(text)
    return body.removeprefix("report ") if body is not None and body.startswith("report ") else None


def _body(text: str) -> str | None:
    start = re.match(_BEFORE + PREFIX, text)
    return None if start is None else text[start.end():].rstrip("\r\n")


def _word(text: str) -> str:
    return "" if text == "-" else _unescape(text)


def restore(text: str) -> str:
    """The text that `printable` was given, unless it was cut."""
    return _unescape(text)


def _unescape(text: str) -> str:
    def restore(found: re.Match[str]) -> str:
        escape = found[1]
        if escape in '"\\':
            return escape
        number = int(escape[1:], 16)
        return chr(number) if number < 0x110000 else found[0]

    return re.sub(r'\\(x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|["\\])', restore, text)
