# SPDX-License-Identifier: Apache-2.0
"""Documents of a host, which others wrote, as plain values or in words what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping

from nvrc.vocabulary.tomltext import parse_toml

TOML_LIMIT, YAML_LIMIT = 1 << 20, 256 << 10  # some ten seconds at worst, of each
DEEPEST = 64
_VALUES, _PART_BYTES = 4 << 20, 16  # what all values of one may count, and each of them, whatever it is
Document = tuple[Mapping[str, object] | None, str]  # or what is wrong with it


def parse_toml_document(data: bytes) -> Document:
    if len(data) > TOML_LIMIT:
        return None, f"has more than {TOML_LIMIT >> 10} KiB"
    try:
        return parse_toml(data.decode("utf-8")), ""
    except ValueError as wrong:
        return None, f"cannot be read as TOML: {wrong}"


def parse_yaml_document(data: bytes) -> Document:
    from nvrc.preflight.yamldocument import read_yaml

    if len(data) > YAML_LIMIT:
        return None, f"has more than {YAML_LIMIT >> 10} KiB"
    try:
        found = read_yaml(data.decode("utf-8"), _VALUES // _PART_BYTES)
    except Exception as wrong:  # PyYAML raises what its parts raise, such as IndexError for `!!int ""`
        return None, f"cannot be read as YAML: {' '.join(str(wrong).split()) or type(wrong).__name__}"
    if not _is_bounded(found):
        return None, "cannot be read as YAML: its aliases make it larger than a file may be, or it is nested too deeply"
    return (found, "") if isinstance(found, dict) else (None, "is not a mapping")


def _is_bounded(document: object) -> bool:
    """An alias costs a file four bytes, and whoever prints the document all that it stands for."""
    waiting, left = [(document, 0)], _VALUES
    while waiting:
        value, depth = waiting.pop()
        left -= len(value) if isinstance(value, str | bytes) else _PART_BYTES
        if left < 0 or depth > DEEPEST:
            return False
        parts = value if isinstance(value, list | tuple | set) else ()
        if isinstance(value, dict):
            parts = tuple(part for pair in value.items() for part in pair)
        waiting += ((part, depth + 1) for part in parts)
    return True
