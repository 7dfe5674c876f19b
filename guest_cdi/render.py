# SPDX-License-Identifier: Apache-2.0
"""A Spec as text, canonical so that equal documents are equal bytes, and its atomic publication.

How the YAML looks is guest_cdi.lean.yamltext's.
"""

from __future__ import annotations

import os

from guest_cdi import spec as cdi
from guest_cdi.lean.errors import CdiError
from guest_cdi.lean.light import TYPE_CHECKING, Protocol, TypeAlias
from guest_cdi.lean.yamltext import write_yaml
from guest_cdi.spec import Spec

if TYPE_CHECKING:
    from guest_cdi.load import Data

Keys: TypeAlias = tuple[tuple[str, str], ...]


def document(spec: Spec) -> dict[str, Data]:
    """The document as plain data, with the published keys and without empty values.

    What stands in it twice, as the edits of a device with two names do, is one object.
    """
    return _record(spec, {})


# By class, so that what a value is says how it is written.
KEYS: dict[type, Keys] = {cdi.Spec: cdi.SPEC_KEYS, **{kind: cdi.keys_of(kind) for kind in cdi.PARTS}}


def _record(record: object, made: dict[int, dict[str, Data]]) -> dict[str, Data]:
    """`made`: by identity, what became of records."""
    if (known := made.get(id(record))) is not None:
        return known
    result = made[id(record)] = {}
    for attribute, key in KEYS[type(record)]:
        value = getattr(record, attribute)
        if value is None or value is False or value in ("", ()) or (value == 0 and attribute in ZERO_IS_EMPTY):
            continue
        plain = _plain(value, attribute, made)
        if plain != {}:
            result[key] = plain
    return result


# Elsewhere zero is a value: uid 0 is root, timeout 0 is none at all.
ZERO_IS_EMPTY = frozenset({"major", "minor"})


def _plain(value: object, attribute: str, made: dict[int, dict[str, Data]]) -> Data:
    if attribute == "annotations" and isinstance(value, tuple):
        return dict(sorted(value))
    if isinstance(value, tuple):
        return [_record(entry, made) if type(entry) in KEYS else entry for entry in value]
    if type(value) in KEYS:
        return _record(value, made)
    if isinstance(value, str | int):
        return value
    raise TypeError(f"{attribute} holds a {type(value).__name__}, which no CDI field does")


def render_json(spec: Spec) -> str:
    import json

    return json.dumps(document(spec), indent=2, ensure_ascii=False) + "\n"


def render_yaml(spec: Spec) -> str:
    return write_yaml(document(spec))


FORMATS = {"yaml": render_yaml, "json": render_json}


def render(spec: Spec, format_name: str) -> bytes:
    try:
        return FORMATS[format_name](spec).encode()
    except UnicodeEncodeError as err:
        bad = err.object.encode(errors="surrogateescape")
        raise CdiError("E_CDI_NAME_ENCODING", f"{bad[max(0, err.start - 60):err.end + 60]!r} is not UTF-8") from err


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
