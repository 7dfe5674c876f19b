# SPDX-License-Identifier: Apache-2.0
"""The grammar of the console: one line per event, ASCII only, at most LINE_LIMIT bytes. transcript.py reads it.

    nvrc: step <name> <ok|skip|fail|warn> <seconds>s [detail]      (of warn: <code>: <what>)
    nvrc: warn [<code> ]<what>
    nvrc: READY in <seconds>s mode=<mode> gpus=<n> cdi=<n> agent=<pid>
    nvrc: FATAL code=<code> step=<step> what="..." hint="..."
    nvrc: END code=<code> what="..."
    nvrc: report <a piece of the report's JSON text; the pieces from `{` to `}`, joined, are the document>

A boot ends in READY or FATAL, exactly one of them. When a VM that was ready goes down, END or a FATAL of step
`supervise` says why. Whatever the input, a line stays a line: control and non-ASCII characters become \\xNN, \\uNNNN or
\\UNNNNNNNN, a backslash is doubled, and quotes are escaped where they would end a string. Text that does not fit is cut
and ends in "...". The limit keeps a line with its prefix in one kernel log record (about 1 KiB), so that the kernel
never splits it.

A Trouble becomes text here only, for the console and for whoever is told why there is no agent.
"""

from __future__ import annotations

from guest_cdi.lean.light import Callable, Iterable, Iterator
from nvrc.vocabulary.trouble import AFTER_THE_BOOT, Trouble

PREFIX = "nvrc: "
LINE_LIMIT = 900
TOKEN_LIMIT = 64
REFUSAL = "guest init: "
REFUSAL_LIMIT = 1024
ORDERLY = "OK"
WORDS = ("ok", "skip", "fail", "warn")
_CUT = "..."
_MAX_SECONDS = 999999.999


def step_line(name: str, outcome: str, seconds: float, detail: str = "", trouble: Trouble | None = None) -> str:
    """`trouble`: of a step that failed; its code leads where the boot goes on, and no verdict tells it."""
    if trouble is not None:
        detail = f"{trouble.code}: {trouble.what}" if outcome == "warn" else trouble.what
    if outcome not in WORDS:
        raise ValueError(f"step {name}: {outcome!r} is not an outcome of a finished step; one of {', '.join(WORDS)} is")
    head = f"{PREFIX}step {_token(name)} {outcome} {_seconds(seconds)}"
    text = _escape(detail.strip(), "", LINE_LIMIT - len(head) - 1)
    return f"{head} {text}" if text else head


def warning_line(text: str) -> str:
    return f"{PREFIX}warn {_escape(text.strip(), '', LINE_LIMIT - len(PREFIX) - 5)}"


def sentence(trouble: Trouble) -> str:
    """`E_GPU_LOST GPU 0000:41:00.0: Xid 79, fell off the bus`; of a remark, what it says."""
    return f"{trouble.code} {trouble.what}" if trouble.code else trouble.what


def headline(trouble: Trouble) -> str:
    """`E_MIG in step gpu-settings: no profile 9g`"""
    return f"{trouble.code} in step {trouble.step or AFTER_THE_BOOT}: {trouble.what}"


def trouble_line(trouble: Trouble) -> str:
    """Of what does not end the machine."""
    return warning_line(sentence(trouble))


def verdict_ready(seconds: float, mode: str, gpus: int, cdi: int, agent: int) -> str:
    return f"{PREFIX}READY in {_seconds(seconds)} mode={_token(mode)} gpus={gpus:d} cdi={cdi:d} agent={agent:d}"


def verdict_fatal(trouble: Trouble) -> str:
    head = f"{PREFIX}FATAL code={_token(trouble.code)} step={_token(trouble.step)}"
    what, hint = _fit(trouble.what, trouble.hint, LINE_LIMIT - len(head) - len(' what="" hint=""'), '"')
    return f'{head} what="{what}" hint="{hint}"'


def refusal(trouble: Trouble) -> str:
    """The verdict for a runtime, and for termination messages: one line that begins with no prefix of ours."""
    head = f"{REFUSAL}{printable(trouble.code, TOKEN_LIMIT)} in step {printable(trouble.step, TOKEN_LIMIT)}: "
    tail = " (hint: )"
    what, hint = (" ".join(text.split()) for text in (trouble.what, trouble.hint))
    what, hint = _fit(what, hint, REFUSAL_LIMIT - len(head) - len(tail))
    return f"{head}{what} (hint: {hint})" if hint else head + what


def _fit(what: str, hint: str, room: int, also: str = "") -> tuple[str, str]:
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
