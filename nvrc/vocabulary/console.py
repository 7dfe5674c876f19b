# SPDX-License-Identifier: Apache-2.0
"""The grammar of the console, written and read here: one line per event, ASCII only, at most LINE_LIMIT bytes.

    nvrc: step <name> <ok|skip|fail|warn> <seconds>s [detail]
    nvrc: warn <text>
    nvrc: READY in <seconds>s mode=<mode> gpus=<n> cdi=<n> agent=<pid>
    nvrc: FATAL code=<code> step=<step> what="..." hint="..."
    nvrc: END code=<code> what="..."
    nvrc: report <a piece of the report's JSON text; the pieces from `{` to `}`, joined, are the document>

A boot ends in READY or FATAL, exactly one of them. When a VM that was ready goes down, END or a FATAL of step
`supervise` says why. Whatever the input, a
line stays a line: control and non-ASCII characters become \\xNN, \\uNNNN or \\UNNNNNNNN, a backslash is doubled, and
quotes are escaped where they would end a string. Text that does not fit is cut and ends in "...".
The limit keeps a line with its prefix in one kernel log record (about 1 KiB), so that the kernel never splits it.
"""

from __future__ import annotations

from guest_cdi.lean.light import Callable, Iterable, Iterator, NamedTuple

PREFIX = "nvrc: "
LINE_LIMIT = 900
TOKEN_LIMIT = 64
WORDS = ("ok", "skip", "fail", "warn")
_CUT = "..."
_MAX_SECONDS = 999999.999


class StepLine(NamedTuple):
    name: str
    outcome: str
    seconds: float
    detail: str


class WarningLine(NamedTuple):
    text: str


class ReadyLine(NamedTuple):
    seconds: float
    mode: str
    gpus: int
    cdi: int
    agent: int


class FatalLine(NamedTuple):
    code: str
    step: str
    what: str
    hint: str


class EndLine(NamedTuple):
    code: str
    what: str


Line = StepLine | WarningLine | ReadyLine | FatalLine | EndLine


# Writing ---------------------------------------------------------------------------------------------------------


def step_line(name: str, outcome: str, seconds: float, detail: str = "") -> str:
    if outcome not in WORDS:
        raise ValueError(f"step {name}: {outcome!r} is no outcome of a finished step; one of {', '.join(WORDS)} is")
    head = f"{PREFIX}step {_token(name)} {outcome} {_seconds(seconds)}"
    text = _escape(detail.strip(), "", LINE_LIMIT - len(head) - 1)
    return f"{head} {text}" if text else head


def warning_line(text: str) -> str:
    return f"{PREFIX}warn {_escape(text.strip(), '', LINE_LIMIT - len(PREFIX) - 5)}"


def verdict_ready(seconds: float, mode: str, gpus: int, cdi: int, agent: int) -> str:
    return f"{PREFIX}READY in {_seconds(seconds)} mode={_token(mode)} gpus={gpus:d} cdi={cdi:d} agent={agent:d}"


def verdict_fatal(code: str, step: str, what: str, hint: str) -> str:
    head = f"{PREFIX}FATAL code={_token(code)} step={_token(step)}"
    what, hint = fit(what, hint, LINE_LIMIT - len(head) - len(' what="" hint=""'), '"')
    return f'{head} what="{what}" hint="{hint}"'


def fit(what: str, hint: str, room: int, also: str = "") -> tuple[str, str]:
    """Cause and advice as they stand in a line, together in at most `room` characters.

    The cause matters more than the advice: the hint keeps a third of the room, more only if the cause is short.
    """
    cause = _escape(what, also, room)
    advice = _escape(hint, also, max(room // 3, room - len(cause)))
    return _escape(what, also, room - len(advice)), advice


def end_line(code: str, what: str) -> str:
    head = f"{PREFIX}END code={_token(code)}"
    return f'{head} what="{_escape(what, chr(34), LINE_LIMIT - len(head) - 8)}"'


def report_lines(document: bytes) -> Iterator[str]:
    """A JSON document in printable ASCII, in pieces that fit."""
    head = f"{PREFIX}report "
    room = LINE_LIMIT - len(head)
    for line in document.decode("ascii").splitlines():
        for start in range(0, len(line), room):
            yield head + line[start:start + room]


def tell_imports(say: Callable[[str], None], names: Iterable[str]) -> None:
    """Which modules the boot has loaded up to here: what every boot pays for."""
    ordered = sorted(names)
    for start in range(0, len(ordered), 20):
        say(f"{PREFIX}log imported {' '.join(ordered[start:start + 20])}")


def printable(text: str, limit: int = 100_000) -> str:
    """Any text as it would stand in a line, for whoever shows what a guest wrote on a terminal or in a picture."""
    return _escape(text, "", limit)


def _seconds(value: float) -> str:
    # The comparison is false for NaN, which then reads as zero.
    return f"{min(value, _MAX_SECONDS) if value > 0 else 0.0:.3f}s"


def _token(text: str) -> str:
    """A word without blanks; an absent one is `-`."""
    if text in ("", "-"):
        return "-" if not text else "\\x2d"
    return _escape(text, ' "=', TOKEN_LIMIT)


def _escape(text: str, also: str, room: int) -> str:
    """ASCII text of at most `room` characters, cut between characters, never inside an escape."""
    if len(text) <= room and text.isascii() and text.isprintable() and not any(c in text for c in "\\" + also):
        return text
    # No character becomes shorter, so what lies beyond `room` cannot matter except for the fact that it is there.
    pieces = [_escape_char(char, also) for char in text[:room + 1]]
    if sum(map(len, pieces)) <= room:
        return "".join(pieces)
    kept = length = 0
    while (length := length + len(pieces[kept])) <= room - len(_CUT):
        kept += 1
    return "".join(pieces[:kept]) + _CUT


def _escape_char(char: str, also: str) -> str:
    if char == "\\" or (char == '"' and char in also):
        return "\\" + char
    number = ord(char)
    if 0x20 <= number <= 0x7E and char not in also:
        return char
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


# Reading ---------------------------------------------------------------------------------------------------------

# What may stand before our prefix on a serial console: the level of a raw record, the kernel's time, its caller.
_BEFORE = r"(?:<[0-9]{1,3}>)?(?:\[ *[0-9]+\.[0-9]+\](?:\[ *[TC][0-9]+\])? )?"
_TIME = r"([0-9]{1,6}\.[0-9]{3})s"
_NUMBER = r"([0-9]{1,9})"
_STRING = r'"((?:[^"\\]|\\.)*)"'
_STEP = rf"step (\S+) ({'|'.join(WORDS)}) {_TIME}(?: (.*))?"
_WARNING = r"warn (.*)"
_READY = rf"READY in {_TIME} mode=(\S+) gpus={_NUMBER} cdi={_NUMBER} agent={_NUMBER}"
_FATAL = rf"FATAL code=(\S+) step=(\S+) what={_STRING} hint={_STRING}"
_END = rf"END code=(\S+) what={_STRING}"


def parse_line(text: str) -> Line | None:
    """The line as a value; None for pieces of a report and for everything that is not exactly of this grammar."""
    import re

    body = _body(text)
    if body is None:
        return None
    if found := re.fullmatch(_STEP, body):
        return StepLine(_word(found[1]), found[2], float(found[3]), _unescape(found[4] or ""))
    if found := re.fullmatch(_READY, body):
        return ReadyLine(float(found[1]), _word(found[2]), int(found[3]), int(found[4]), int(found[5]))
    if found := re.fullmatch(_FATAL, body):
        return FatalLine(_word(found[1]), _word(found[2]), _unescape(found[3]), _unescape(found[4]))
    if found := re.fullmatch(_END, body):
        return EndLine(_word(found[1]), _unescape(found[2]))
    if found := re.fullmatch(_WARNING, body):
        return WarningLine(_unescape(found[1]))
    return None


def parse_report_piece(text: str) -> str | None:
    """What a report line carries; None for other lines."""
    body = _body(text)
    return body.removeprefix("report ") if body is not None and body.startswith("report ") else None


def _body(text: str) -> str | None:
    import re

    start = re.match(_BEFORE + PREFIX, text)
    return None if start is None else text[start.end():].rstrip("\r\n")


def _word(text: str) -> str:
    return "" if text == "-" else _unescape(text)


def restore(text: str) -> str:
    """The text that `printable` was given, unless it was cut."""
    return _unescape(text)


def _unescape(text: str) -> str:
    import re

    def restore(found: re.Match[str]) -> str:
        escape = found[1]
        if escape in '"\\':
            return escape
        number = int(escape[1:], 16)
        return chr(number) if number < 0x110000 else found[0]

    return re.sub(r'\\(x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|["\\])', restore, text)
