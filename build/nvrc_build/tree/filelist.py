# SPDX-License-Identifier: Apache-2.0
"""The driver's own list of its files (sandboxutils-filelist.json), chosen by type and category.

Each row is {name, type, category, is_32bit_compat}. 32-bit rows are never taken; a category that selects nothing is a
finding, because it means that the list changed its words.
"""

from __future__ import annotations

import fnmatch
import json
import posixpath
from collections.abc import Mapping

from nvrc_build.declared.parts import FileList
from nvrc_build.tree.pool import Item, Pool


def select_names(row: FileList, pool: Pool, slice_name: str, findings: list[str]) -> tuple[Item, ...]:
    lists = pool.match(row.package, row.path) if row.package in pool.packages else ()
    if not lists:
        findings.append(f"slice {slice_name!r}: {row.package} has no file list at {row.path}")
        return ()
    chosen = read_filelist(lists[0].file.read_bytes(), row, slice_name, findings)
    return tuple(item for package in pool.packages for item in pool.match(package, "/usr/**")
                 if posixpath.basename(item.path) in chosen)


def read_filelist(data: bytes, row: FileList, slice_name: str, findings: list[str]) -> frozenset[str]:
    where = f"slice {slice_name!r}: {row.path}"
    try:
        rows = json.loads(data)
    except (ValueError, RecursionError) as wrong:
        findings.append(f"{where}: {wrong}")
        return frozenset()
    if not isinstance(rows, list):
        findings.append(f"{where}: it is not a list")
        return frozenset()
    chosen: set[str] = set()
    for category in row.categories:
        names = {name for one in rows if isinstance(one, dict) and (name := _name_of(one, category, row))}
        if not names:
            findings.append(f"{where}: category {category!r} selects nothing of type {', '.join(row.types)}")
        chosen |= names
    return frozenset(name for name in chosen if not any(fnmatch.fnmatch(name, rule) for rule in row.without))


def _name_of(one: Mapping[str, object], category: str, row: FileList) -> str:
    """Of a row that is to be taken, else nothing."""
    name, categories = one.get("name"), one.get("category")
    is_taken = one.get("type") in row.types and not one.get("is_32bit_compat")
    is_of_it = isinstance(categories, list) and category in categories
    return name if is_taken and is_of_it and isinstance(name, str) else ""
