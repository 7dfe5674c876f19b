# SPDX-License-Identifier: Apache-2.0
"""The kernel command line as words, split exactly as the kernel splits it (`next_arg` in lib/cmdline.c).

A double quote protects white space and may stand around a whole word (`"key=a b"`) or around a value (`key="a b"`);
the kernel drops the outer pair and keeps any other. A bare `--`, after which the kernel hands words to init instead of
reading them itself, is a word like any other: init is us, and the agent reads the whole line too. Bytes that are not
UTF-8 survive as surrogates. Meaning is not this module's business.
"""

from __future__ import annotations

from guest_cdi.lean.light import NamedTuple, Sequence

# What the kernel's isspace() says, Latin-1 no-break space included.
_SPACES = b"\t\n\v\f\r \xa0"
_TO_BLANK = bytes.maketrans(_SPACES, b" " * len(_SPACES))

# COMMAND_LINE_SIZE of x86-64 and arm64 less its NUL: what is longer was cut before anybody could read it.
KERNEL_KEEPS = 2047


class Token(NamedTuple):
    key: str
    value: str | None = None
    # The line ended inside quotes: this last word took everything after the opening one.
    unclosed: bool = False


def tokenise(cmdline: bytes) -> tuple[Token, ...]:
    words = _words(cmdline)
    tokens = [_token(word) for word in words]
    if tokens and cmdline.count(b'"') % 2:
        tokens[-1] = tokens[-1]._replace(unclosed=True)
    return tuple(tokens)


def word(key: str, value: str) -> str:
    """The word that reads back as this key and value; a value that needs quotes must not contain any."""
    return f'{key}="{value}"' if not value.isascii() or any(c.isspace() for c in value) else f"{key}={value}"


def shown(text: str, limit: int = 60) -> str:
    """Untrusted text for a message: quoted, printable ASCII only, and of bounded length."""
    return ascii(text if len(text) <= limit else text[:limit] + "...")


def _words(line: bytes) -> list[bytes]:
    words: list[bytes] = []
    current = b""
    for index, part in enumerate(line.split(b'"')):
        if index:
            current += b'"'
        if index % 2:
            current += part
            continue
        *ended, rest = part.translate(_TO_BLANK).split(b" ")
        for piece in ended:
            words.append(current + piece)
            current = b""
        current += rest
    return [found for found in (*words, current) if found]


def _token(raw: bytes) -> Token:
    quoted = raw.startswith(b'"')
    body = raw[1:] if quoted else raw
    # A "=" in first place is part of the key, as the kernel has it.
    key, equals, value = body[1:].partition(b"=")
    if not equals:
        return Token(_text(body.removesuffix(b'"') if quoted else body))
    if value.startswith(b'"'):
        quoted, value = True, value[1:]
    return Token(_text(body[:1] + key), _text(value.removesuffix(b'"') if quoted else value))


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def plain(key: str) -> str:
    """The key itself where it can be printed, else quoted."""
    return key if len(key) <= 80 and key.isascii() and key.isprintable() else shown(key)


def wants_cgroup_v2(tokens: Sequence[Token]) -> bool:
    """As the agent reads it: the last one of each name counts, and either is enough."""
    last = {token.key: token.value for token in tokens if token.value is not None}
    unified = last.get("systemd.unified_cgroup_hierarchy", "")
    is_number = unified.isascii() and unified.isdecimal() and unified.strip("0") != ""
    return last.get("cgroup_no_v1") == "all" or unified == "true" or is_number
