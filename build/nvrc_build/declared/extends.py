# SPDX-License-Identifier: Apache-2.0
"""Variants of images: `extends = "nvidia"` begins with all that nvidia says, and a key of the variant replaces it.

`[add]` and `[remove]` have lists by key: what goes into a list of the other image, or comes out of it. What the other
says of itself (`declared_only`) is not taken over. No rule of images is here: the result is read as one file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nvrc_build.declared.toml import Findings, parse_toml

_OWN = ("declared_only",)
Table = dict[str, object]


def read_image_table(folder: Path, name: str, findings: Findings, above: tuple[str, ...] = ()) -> Table | None:
    """The image's keys with those of the image that it extends."""
    where = f"images/{name}.toml"
    table = parse_toml(folder / f"{name}.toml", findings, where)
    if table is None or "extends" not in table:
        return table
    base = table.pop("extends")
    if not isinstance(base, str) or not (folder / f"{base}.toml").is_file():
        findings.add(f"{where} extends", f"there is no image {base!r}")
        return None
    if base in (*above, name):
        way = (*above, name, base)
        findings.add(f"images/{way[0]}.toml extends", f"is circular: {' -> '.join(way)}")
        return None
    below = read_image_table(folder, base, findings if not above else Findings(), (*above, name))
    if below is None:
        return None
    kept = {key: value for key, value in below.items() if key not in _OWN}
    return _change(kept, table, where, findings)


def _change(below: Table, table: Table, where: str, findings: Findings) -> Table:
    added, removed = (_lists(table.pop(word, {}), f"{where} [{word}]", findings) for word in ("add", "remove"))
    whole = {**below, **table}
    for key, names in removed.items():
        whole[key] = _without(whole.get(key), names, f"{where} [remove] {key}", findings)
    for key, names in added.items():
        had = whole.get(key, [])
        whole[key] = [*had, *names] if isinstance(had, list) else had
    return whole


def _lists(value: object, where: str, findings: Findings) -> Mapping[str, list[object]]:
    if not isinstance(value, dict) or not all(isinstance(names, list) for names in value.values()):
        findings.add(where, "must be a table of lists, such as slices = [\"nvswitch\"]")
        return {}
    return value


def _without(had: object, names: list[object], where: str, findings: Findings) -> list[object]:
    rows = had if isinstance(had, list) else []
    for name in names:
        if name not in rows:
            findings.add(where, f"{name!r} is missing in the list, so it cannot be removed")
    return [row for row in rows if row not in names]
