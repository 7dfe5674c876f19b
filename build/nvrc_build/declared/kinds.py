# SPDX-License-Identifier: Apache-2.0
"""Types of what stands in a declaration, each with the rule that its text must follow. declared.py is made of them."""

from __future__ import annotations

import re
import stat
from typing import Annotated

from nvrc.vocabulary.needs import NAMES
from nvrc.vocabulary.records import Written
from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.image_path import clean_path

_SHA256 = re.compile(r"[0-9a-f]{64}")


def filled(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty")
    return text


def once(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"names {name!r} twice")
    return names


def image_path(text: str) -> str:
    try:
        return clean_path(text)
    except BuildError as wrong:
        raise ValueError(str(wrong)) from wrong


def inside(text: str) -> str:
    """A relative path that stays where it starts."""
    if text.startswith("/") or ".." in text.split("/"):
        raise ValueError(f"{text!r} must lie inside")
    return text


def mode_bits(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError as wrong:
        raise ValueError(f"must be an octal mode in quotes, such as \"0644\", not {text!r}") from wrong
    if mode & (stat.S_ISUID | stat.S_ISGID):
        raise ValueError(f"{mode:04o} is setuid or setgid; an image has no such file")
    return mode


def megabytes(number: int) -> int:
    return number * 1_000_000


def sha256_text(text: str) -> str:
    if not _SHA256.fullmatch(text):
        raise ValueError(f"{text!r} is not 64 hexadecimal digits")
    return text


def no_slash(text: str) -> str:
    if "/" in text:
        raise ValueError(f"{text!r} holds a slash")
    return text


def need(name: str) -> str:
    if name not in NAMES:
        raise ValueError(f"there is no need {name!r}; there are: {', '.join(NAMES)}")
    return name


Word = Annotated[str, filled]
Words = Annotated[tuple[Word, ...], once]
ImagePath = Annotated[str, image_path]
Paths = Annotated[tuple[ImagePath, ...], once]
Inside = Annotated[str, filled, inside]
ModeBits = Annotated[int, Written(str, mode_bits)]
Sha256 = Annotated[str, sha256_text]
FileWord = Annotated[str, filled, no_slash]
Needs = Annotated[tuple[Annotated[str, need], ...], once]
