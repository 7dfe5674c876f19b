# SPDX-License-Identifier: Apache-2.0
"""Initdata made and unwrapped: the document of its entries, its annotation, and its disk as Kata's runtime makes it.

Off the boot path.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Mapping

from nvrc.params.initdata import ENTRIES, GZIP, MAGIC, SECTOR, VERSION, is_initdata, unpack, unpack_disk
from nvrc.vocabulary.errors import NvrcError

_GZIP_HEAD = b"\x1f\x8b"
_ANNOTATION_HEAD = base64.b64encode(_GZIP_HEAD + b"\x08")


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


def unwrap(data: bytes) -> bytes:
    """The TOML document in any of its three forms: a disk, an annotation, or itself."""
    if is_initdata(data):
        return unpack_disk(data)
    try:
        packed = base64.b64decode(b"".join(data.split()), validate=True)
    except binascii.Error as wrong:
        if data.lstrip().startswith(_ANNOTATION_HEAD):
            raise NvrcError("E_INITDATA", f"initdata: its annotation is damaged ({wrong})") from wrong
        return data
    return unpack(packed) if packed.startswith(_GZIP_HEAD) else data
