# SPDX-License-Identifier: Apache-2.0
"""Initdata made: the document of its entries, and its disk as Kata's runtime makes it. Off the boot path."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping

from nvrc.params.initdata import ENTRIES, GZIP, MAGIC, SECTOR, VERSION


def make_document(entries: Mapping[str, str], algorithm: str) -> bytes:
    """Texts as they are between three quotes where TOML allows that, so that a reader sees what is measured."""
    lines = [f'version = "{VERSION}"', f'algorithm = "{algorithm}"', "", "[data]"]
    lines += [f'"{name}" = {_toml_text(entries[name])}' for name in sorted(entries, key=_place)]
    return ("\n".join(lines) + "\n").encode()


def _toml_text(text: str) -> str:
    is_plain = "'''" not in text and not text.endswith("'") and "\r" not in text
    if is_plain and all(letter in "\n\t" or letter.isprintable() for letter in text):
        return f"'''\n{text}'''"
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _place(name: str) -> int:
    return ENTRIES.index(name) if name in ENTRIES else len(ENTRIES)


def pack_disk(document: bytes) -> bytes:
    """The disk as Kata's runtime makes it of a document; the same bytes for the same document."""
    packed = pack(document)
    content = MAGIC + len(packed).to_bytes(8, "little") + packed
    return content + b"\0" * (-len(content) % SECTOR)


def pack(document: bytes) -> bytes:
    """A gzip stream without a name and a time."""
    stream = zlib.compressobj(9, zlib.DEFLATED, GZIP)
    return stream.compress(document) + stream.flush()
