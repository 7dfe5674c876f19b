# SPDX-License-Identifier: Apache-2.0
"""What a line of a host's log says inside its wrapping, who said it, and of which sandbox.

Wrappings nest: a journal's prefix around logrus text around a console line. They are taken off until none is left. What
a guest wrote is never unwrapped further, so that no program in it can speak for the host. The forms are those of
systemd's journalctl, of logrus and slog, of the CRI's log files and of Docker's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

from guest_cdi.lean.light import Enum, NamedTuple

DEEPEST = 6
FORMATS = (
    "a VM's console, plain or with a time before each line", "a boot report or a status of this init",
    "logs of Kata's runtimes (logrus text or JSON, slog JSON)",
    "the journal (journalctl -o short, short-iso, json, export)",
    "logs of containerd, CRI-O and kubelet, log files of the CRI, errors of crictl and ctr",
    "kubectl describe, and kubectl get events as text, YAML or JSON",
    "what log stores print of these (Loki, Elasticsearch, CloudWatch, Google Cloud, CSV), and each packed with gzip",
)


class Speaker(Enum):
    CONSOLE = "console"  # the guest, by the runtime's word
    AGENT = "agent"
    HOST = "host"
    PLAIN = "plain"      # nothing says who: a console, or an event


class Said(NamedTuple):
    text: str
    speaker: Speaker
    sandbox: str = ""
    is_error: bool = False


class _Inside(NamedTuple):
    """What was inside one wrapping; without a speaker the wrapping does not tell."""

    text: str
    speaker: Speaker | None = None
    sandbox: str = ""
    is_error: bool = False


# ISO 8601, and as journalctl -o short-full has it with a weekday and the zone's name.
_STAMP = re.compile(r"(?:[A-Z][a-z]{2} )?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?"
                    r"(?: ?Z| ?[+-]\d\d:?\d\d| [A-Z]{3,5}(?= ))?[ \t]+(.*)", re.DOTALL)
_SHORT = re.compile(r"(?:<\d{1,3}>)?[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d{1,6})? (.*)", re.DOTALL)
# Syslog of RFC 5424: priority, version, time, host, program, process, message's kind, structured data.
_SYSLOG = re.compile(r"<\d{1,3}>1 \S+ \S+ \S+ \S+ \S+ (?:-|\[.*?\]) (.*)", re.DOTALL)
# journalctl -o short-monotonic, short-delta and short-unix: without a program behind the time it is the kernel's own.
_CLOCK = re.compile(r"(?:\[ *\d+\.\d{6}(?: <[ \d.]+>)?\]|\d{9,11}\.\d{6}) (.*)", re.DOTALL)
# Colours and alphabets anywhere, and what a terminal does before it writes a line.
_COLOUR = re.compile(r"\x1b\[[0-9;]*m|\x1b[()][0-9A-Z]|^(?:\x1b\[[0-9;?]*[A-Za-z])+")
_CRI = re.compile(r"(?:stdout|stderr) [FP] (.*)", re.DOTALL)
# What a local syslog socket gets has no host; without one a process id shows that it is a program's.
_PROGRAM = re.compile(r"(?:[A-Za-z0-9][\w.-]* [\w.@/()-]+(?:\[\d+\])?|[\w.@/()-]+\[\d+\]): (.*)", re.DOTALL)
# The time of CRI-O has a blank; of a log that somebody cut, the first line has the end of a time.
_LOGRUS = re.compile(r'(?:time="?[\d-]{10}[T ]|[\dT:.+Z-]{0,36}"? ?level=[a-z]+ )')
# Begins behind a blank only: a search that may begin anywhere in a long word takes the square of its length.
_PAIR = re.compile(r'(?<!\S)([A-Za-z_][\w.-]*)=("(?:[^"\\]|\\.)*(?:"|\\?$)|[^\s"]*)')
# Before a time of the runtime or a record: names of pods and streams, labels of Loki, what quotes a line in a letter.
_LABELS = re.compile(r'\{(?:[\w.]+="[^"]*"(?:, ?)?)*\} ')
_NAMES = re.compile(r'(?:[^\s"{]+[ \t]+){1,4}((?:time="?\d{4}-|\{").*)', re.DOTALL)
_QUOTED = re.compile(r"\s{0,8}(?:> ?)+(.*)", re.DOTALL)
# Times that dmesg -T, terminals and people put before a line of a console.
_BARE_TIME = re.compile(r"(?:\[[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}\]|"
                        r"\[?\d\d:\d\d:\d\d(?:[.,]\d{1,9})?\]?|\d{10}(?:\.\d{1,9})?) (.*)", re.DOTALL)
_RUBY = re.compile(r'\[.{0,400}?"(?:log|message|MESSAGE)"=>("(?:[^"\\]|\\.)*")')
_EXPORT = re.compile(r"\s*MESSAGE=(.*)", re.DOTALL)
_MEMBER = re.compile(r'\s*"?(?:message|note|MESSAGE|textPayload)"? ?: (.+)', re.DOTALL)
# In words of containerd, and as a field of the runtimes.
_SANDBOX = re.compile(r'sandbox(?:[ _-]?id)?["\\]*[=: ]+["\\]*([0-9a-f]{12,64})(?![0-9a-f])', re.IGNORECASE)
_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,127}")
# What kubectl describe and kubectl nvrc put before the termination message of a container.
OF_A_CONTAINER = "message of a container: "
_OF_CONTAINERS = ("Message:", OF_A_CONTAINER.rstrip())
TEXT_FIELDS = ("MESSAGE", "msg", "message", "log", "line", "textPayload", "_raw")
_SANDBOX_FIELDS = ("sandbox", "sandbox_id", "sandbox-id", "sid")
_BAD = frozenset({"error", "erro", "fatal", "crit", "critical", "panic"})
_GO_ESCAPE = re.compile(r"\\(x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|.)", re.DOTALL)
_GO_SHORT = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


def unwrap(line: str) -> Said:
    found = _Inside(_COLOUR.sub("", line) if "\x1b" in line else line)
    speaker, sandbox, is_error = Speaker.PLAIN, "", False
    for _ in range(DEEPEST):
        if is_of_a_container(found.text):
            break
        inner = next(filter(None, (reader(found.text) for reader in _READERS)), None)
        if inner is None:
            break
        found = inner
        speaker, sandbox = found.speaker or speaker, found.sandbox or sandbox
        is_error = is_error or found.is_error
        if speaker in (Speaker.CONSOLE, Speaker.AGENT):
            break
    if not sandbox and speaker in (Speaker.HOST, Speaker.PLAIN) and (named := _SANDBOX.search(found.text)):
        sandbox = named[1]
    return Said(found.text.rstrip("\r\n"), speaker, sandbox, is_error)


def is_of_a_container(text: str) -> bool:
    """Whatever it looks like inside, such as a record with a line of a console: the container may have written that."""
    return text.lstrip().startswith(_OF_CONTAINERS)


def member_text(line: str) -> str | None:
    """What a line of a Kubernetes object has as its message."""
    found = _read_member(line)
    return None if found is None else found.text


def _read_stamp(text: str) -> _Inside | None:
    found = _STAMP.fullmatch(text) or _SHORT.fullmatch(text)
    if found is None:
        clock = _CLOCK.fullmatch(text)
        behind = _SYSLOG.fullmatch(text) or (_PROGRAM.fullmatch(clock[1]) if clock else None)
        return _Inside(behind[1], Speaker.HOST) if behind else None
    if of_container := _CRI.fullmatch(found[1]):
        return _Inside(of_container[1])
    program = _PROGRAM.fullmatch(found[1])
    return _Inside(program[1], Speaker.HOST) if program else _Inside(_LABELS.sub("", found[1], count=1))


def _read_logrus(text: str) -> _Inside | None:
    if not _LOGRUS.match(text):
        return None
    return _from_fields({key: _unquote(value) for key, value in _PAIR.findall(text)}, text)


def _read_json(text: str) -> _Inside | None:
    stripped = text.strip().removeprefix("data: ").removesuffix(",")  # as of journalctl -o json-sse
    if not (stripped.startswith("{") and stripped.endswith("}")):
        return None
    try:
        document: object = json.loads(stripped)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    # Google's and Elasticsearch's records have the writer's own inside.
    inner = next((value for name in ("jsonPayload", "_source") if isinstance(value := document.get(name), dict)), None)
    fields = document if inner is None else inner
    try:
        texts = {str(key): _plain(value) for key, value in fields.items()}
    except RecursionError:  # nested as deep as Python just reads: to write it, it calls itself more often
        return None
    return _from_fields(texts, "")


def _from_fields(fields: Mapping[str, str], otherwise: str) -> _Inside | None:
    """`otherwise`: the text when no field is known to hold one, as of logrus with its error in a field of its own."""
    sandbox = next((fields[name] for name in _SANDBOX_FIELDS if _ID.fullmatch(fields.get(name, ""))), "")
    if fields.get("vmconsole"):
        return _Inside(fields["vmconsole"], Speaker.CONSOLE, sandbox)
    text = next((fields[name] for name in TEXT_FIELDS if name in fields), "")
    if not text and not otherwise:
        return None
    is_error = fields.get("level", "").lower() in _BAD
    if fields.get("name") == "kata-agent" or fields.get("source") == "agent":
        return _Inside(text, Speaker.AGENT, sandbox, is_error)
    error = next((fields[name] for name in ("error", "err") if fields.get(name)), "")
    return _Inside(f"{text}: {error}" if error and error not in text else text, Speaker.HOST, sandbox, is_error)


def _read_bare_time(text: str) -> _Inside | None:
    found = _BARE_TIME.fullmatch(text) or _QUOTED.fullmatch(text)
    return _Inside(found[1]) if found else None


def _read_named(text: str) -> _Inside | None:
    """What a collector put names before; only a record of a log is looked for behind them."""
    if found := _NAMES.fullmatch(text):
        return _read_logrus(found[1]) or _read_json(found[1])
    found = _RUBY.match(text)
    return _Inside(_unquote(found[1]), Speaker.HOST) if found else None


def _read_csv(text: str) -> _Inside | None:
    """A row of a table that a log store exported; the line is the longest of its fields."""
    if '""' not in text or not text.rstrip("\r").endswith('"'):
        return None
    import csv

    try:
        fields = next(csv.reader([text.rstrip("\r")], strict=True), [])
    except csv.Error:
        return None
    return _Inside(max(fields, key=len)) if len(fields) > 1 else None


def _read_export(text: str) -> _Inside | None:
    found = _EXPORT.fullmatch(text)
    return _Inside(found[1], Speaker.HOST) if found else None


def _read_member(text: str) -> _Inside | None:
    """A line of a Kubernetes object that was printed as YAML or JSON."""
    found = _MEMBER.fullmatch(text)
    if found is None:
        return None
    value = found[1].strip().removesuffix(",") or " "
    if value[0] == '"' and value[-1] == '"' and len(value) > 1:
        value = _unquote(value)
    elif value[0] == "'" and value[-1] == "'" and len(value) > 1:
        value = value[1:-1].replace("''", "'")
    return _Inside(value, Speaker.HOST)


_READERS: tuple[Callable[[str], _Inside | None], ...] = (
    _read_stamp, _read_logrus, _read_json, _read_export, _read_member, _read_bare_time, _read_named, _read_csv)


def _plain(value: object) -> str:
    """A field's text. The journal writes text that is not printable as a list of bytes."""
    if isinstance(value, list) and all(isinstance(item, int) and 0 <= item < 256 for item in value):
        return bytes(value).decode(errors="replace")
    return value if isinstance(value, str) else json.dumps(value)


def _unquote(text: str) -> str:
    """A string as Go's %q writes it; anything else as it is."""
    if len(text) < 2 or text[0] != '"':
        return text
    is_cut = text[-1] != '"' or text.endswith('\\"')
    return _GO_ESCAPE.sub(_unescape, text[1:] if is_cut else text[1:-1])


def _unescape(found: re.Match[str]) -> str:
    escape = found[1]
    if len(escape) > 1:
        number = int(escape[1:], 16)
        return chr(number) if number < 0x110000 else found[0]
    return _GO_SHORT.get(escape, escape)


def read_agent(text: str) -> Said | None:
    """A record of kata-agent, which it writes to the console as JSON."""
    inside = _read_json(text)
    return Said(inside.text, Speaker.AGENT, "", inside.is_error) if inside and inside.speaker is Speaker.AGENT else None
