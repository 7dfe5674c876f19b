# SPDX-License-Identifier: Apache-2.0
"""Plain data as canonical YAML, so that equal data are equal bytes. By hand: a library costs more than all else.

The layout follows the reference's. Strings are quoted wherever YAML 1.1 or 1.2 could read something else, such as 1:0,
which is 60. Only writes; PID 1 publishes with it what its worker has described.
"""

from __future__ import annotations

from guest_cdi.lean.light import Iterable, Mapping, Sequence, lru_cache

INDENT = 4
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_/.=:+@%~-")
WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "~", "=", ".inf", ".nan"})
NUMBERS, MAPPINGS = (int, float, type(None)), (dict, Mapping)
ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def write_yaml(document: Mapping[str, object]) -> str:
    lines = ["---"]
    _write_mapping(lines, document, 0, "")
    lines.append("")
    return "\n".join(lines)


def _write_mapping(lines: list[str], mapping: Mapping[str, object], column: int, lead: str) -> None:
    """`lead` stands before the first key instead of the indentation: a sequence's dash."""
    pad = " " * column
    below = (column // INDENT + 1) * INDENT
    for key, value in mapping.items():
        start = lead or pad
        lead = ""
        if isinstance(value, str):
            lines.append(f"{start}{_scalar(key)}: {_scalar(value)}")
        elif isinstance(value, NUMBERS):  # before the abstract kinds, which take longer to ask for
            lines.append(f"{start}{key}: {str(value).lower()}")
        elif isinstance(value, MAPPINGS):
            lines.append(f"{start}{_scalar(key)}:")
            _write_mapping(lines, value, below, "")
        elif isinstance(value, Sequence):
            lines.append(f"{start}{_scalar(key)}:")
            _write_sequence(lines, value, below)
        else:
            raise TypeError(f"no YAML form for {type(value).__name__}")


def _write_sequence(lines: list[str], values: Iterable[object], column: int) -> None:
    dash = " " * column + "- "
    for value in values:
        if isinstance(value, str):
            lines.append(dash + _scalar(value))
        elif isinstance(value, MAPPINGS):
            _write_mapping(lines, value, column + 2, dash)
        else:
            lines.append(f"{dash}{value}")


# A document says the same few words hundreds of times.
@lru_cache(maxsize=4096)
def _scalar(text: str) -> str:
    return text if is_plain(text) else quote(text)


def is_plain(text: str) -> bool:
    """Whether every YAML reader takes the bare text for this very string. In doubt it does not."""
    if not text or not PLAIN.issuperset(text) or text[-1] == ":" or text.lower() in WORDS:
        return False
    first, second = text[0], text[1:2]
    if first in "+-.":
        return second not in "0123456789." or text.startswith("../")
    if first.isdigit():
        # Two dots and no colon make no number in any schema: a version.
        return text.count(".") > 1 and text.replace(".", "").isdigit()
    return first not in ":=@%~"


def quote(text: str) -> str:
    return '"' + "".join(ESCAPES.get(char) or _printable(char) for char in text) + '"'


def _printable(char: str) -> str:
    code = ord(char)
    if char.isprintable():
        return char
    if code < 0x100:
        return f"\\x{code:02x}"
    return char if 0xD800 <= code < 0xE000 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
