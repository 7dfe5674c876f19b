# SPDX-License-Identifier: Apache-2.0
"""A Spec as text, canonical so that equal documents are equal bytes, and its atomic publication.

The YAML is written by hand: importing a YAML library costs more than the whole generation. The layout follows the
reference's. Strings are quoted wherever YAML 1.1 or 1.2 could read something else, such as 1:0, which is 60.
"""

from __future__ import annotations

import os

from guest_cdi import spec as cdi
from guest_cdi.lean.errors import CdiError
from guest_cdi.lean.light import TYPE_CHECKING, Iterable, Mapping, Protocol, Sequence, TypeAlias, lru_cache
from guest_cdi.spec import Spec

if TYPE_CHECKING:
    from guest_cdi.load import Data

Keys: TypeAlias = tuple[tuple[str, str], ...]

INDENT = 4
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_/.=:+@%~-")
WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "~", "=", ".inf", ".nan"})
ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def document(spec: Spec) -> dict[str, Data]:
    """The document as plain data, with the published keys and without empty values."""
    return _record(spec, cdi.SPEC_KEYS)


NESTED: dict[str, Keys] = {
    "devices": cdi.DEVICE_KEYS, "container_edits": cdi.EDITS_KEYS, "device_nodes": cdi.DEVICE_NODE_KEYS,
    "net_devices": cdi.NET_DEVICE_KEYS, "hooks": cdi.HOOK_KEYS, "mounts": cdi.MOUNT_KEYS,
    "intel_rdt": cdi.INTEL_RDT_KEYS,
}


def _record(record: object, keys: Keys) -> dict[str, Data]:
    result: dict[str, Data] = {}
    for attribute, key in keys:
        value = getattr(record, attribute)
        if value is None or value is False or value in ("", ()) or (value == 0 and attribute in ZERO_IS_EMPTY):
            continue
        plain = _plain(value, attribute)
        if plain != {}:
            result[key] = plain
    return result


# Elsewhere zero is a value: uid 0 is root, timeout 0 is none at all.
ZERO_IS_EMPTY = frozenset({"major", "minor"})


def _plain(value: object, attribute: str) -> Data:
    if attribute == "annotations" and isinstance(value, tuple):
        return dict(sorted(value))
    keys = NESTED.get(attribute)
    if isinstance(value, tuple):
        return [_record(entry, keys) for entry in value] if keys else list(value)
    if keys:
        return _record(value, keys)
    if isinstance(value, str | int):
        return value
    raise TypeError(f"{attribute} holds a {type(value).__name__}, which no CDI field does")


def render_json(spec: Spec) -> str:
    import json

    return json.dumps(document(spec), indent=2, ensure_ascii=False) + "\n"


def render_yaml(spec: Spec) -> str:
    lines = ["---"]
    _write_mapping(lines, document(spec), 0, "")
    lines.append("")
    return "\n".join(lines)


FORMATS = {"yaml": render_yaml, "json": render_json}


def render(spec: Spec, format_name: str) -> bytes:
    try:
        return FORMATS[format_name](spec).encode()
    except UnicodeEncodeError as err:
        bad = err.object.encode(errors="surrogateescape")
        raise CdiError("E_CDI_NAME_ENCODING", f"{bad[max(0, err.start - 60):err.end + 60]!r} is not UTF-8") from err


def _write_mapping(lines: list[str], mapping: Mapping[str, Data], column: int, lead: str) -> None:
    """`lead` stands before the first key instead of the indentation: a sequence's dash."""
    pad = " " * column
    below = (column // INDENT + 1) * INDENT
    for key, value in mapping.items():
        start = lead or pad
        lead = ""
        if isinstance(value, str):
            lines.append(f"{start}{_scalar(key)}: {_scalar(value)}")
        elif isinstance(value, Mapping):
            lines.append(f"{start}{_scalar(key)}:")
            _write_mapping(lines, value, below, "")
        elif isinstance(value, Sequence):
            lines.append(f"{start}{_scalar(key)}:")
            _write_sequence(lines, value, below)
        else:
            lines.append(f"{start}{key}: {str(value).lower()}")


def _write_sequence(lines: list[str], values: Iterable[Data], column: int) -> None:
    dash = " " * column + "- "
    for value in values:
        if isinstance(value, str):
            lines.append(dash + _scalar(value))
        elif isinstance(value, Mapping):
            _write_mapping(lines, value, column + 2, dash)
        else:
            lines.append(f"{dash}{value}")


# A document says the same few words hundreds of times.
@lru_cache(maxsize=4096)
def _scalar(text: str) -> str:
    return text if _is_plain(text) else quote(text)


def _is_plain(text: str) -> bool:
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


class Disk(Protocol):
    """The calls that change a file system, by their names in `os`, which is the production value."""

    def open(self, path: str, flags: int, mode: int = ...) -> int: ...
    def write(self, fd: int, data: bytes, /) -> int: ...
    def fchmod(self, fd: int, mode: int) -> None: ...
    def fsync(self, fd: int) -> None: ...
    def close(self, fd: int) -> None: ...
    def replace(self, src: str, dst: str) -> None: ...
    def unlink(self, path: str) -> None: ...
    def makedirs(self, name: str, mode: int = ..., exist_ok: bool = ...) -> None: ...


def publish(path: str, data: bytes, disk: Disk | None = None) -> None:
    """Put `data` at `path`: whole, with mode 0644 and on the medium, or not at all.

    The scratch name ends in .tmp because consumers take every *.yaml and *.json of the directory for a document.
    """
    disk = disk or _OS
    directory = os.path.dirname(path) or "."
    scratch = f"{directory}/.{os.path.basename(path)}.{os.urandom(6).hex()}.tmp"
    try:
        disk.makedirs(directory, 0o755, exist_ok=True)
        try:
            _write_file(disk, scratch, data)
            disk.replace(scratch, path)
        except OSError:
            _discard(disk, scratch)
            raise
        _sync_directory(disk, directory)
    except OSError as err:
        raise CdiError("E_CDI_PUBLISH", f"{path} could not be written: {err.strerror}") from err


def _write_file(disk: Disk, path: str, data: bytes) -> None:
    descriptor = disk.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[disk.write(descriptor, bytes(rest)):]
        disk.fchmod(descriptor, 0o644)
        disk.fsync(descriptor)
    finally:
        disk.close(descriptor)


def _discard(disk: Disk, path: str) -> None:
    try:
        disk.unlink(path)
    except OSError:
        pass    # it was never made, or the medium is gone; the first error is the one to report


def _sync_directory(disk: Disk, directory: str) -> None:
    descriptor = disk.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        disk.fsync(descriptor)
    finally:
        disk.close(descriptor)


_OS: Disk = os
