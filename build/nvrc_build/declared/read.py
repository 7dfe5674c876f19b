# SPDX-License-Identifier: Apache-2.0
"""Declarations below rootfs/ into frozen values. Linting a declaration is this loader and nothing more.

An image names slices, a kernel, modules, a format and a budget; a slice says which files it takes from which package,
what else it adds, which slices it needs, and why it exists. All mistakes of all files are reported at once.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from nvrc_build.declared.declared import Declarations, Driver, Image, Layout, Root, Slice, Suite
from nvrc_build.declared.extends import read_image_table
from nvrc_build.declared.needs import check_needs
from nvrc_build.declared.toml import Findings, read_table, read_toml

T = TypeVar("T")
MODULES = "@modules"


def load(rootfs: Path) -> Declarations:
    findings = Findings()
    declared = Declarations(
        archives=_read_all(Suite, rootfs, "archives", findings),
        drivers=_read_all(Driver, rootfs, "drivers", findings),
        roots=_read_all(Root, rootfs, "roots", findings),
        images=_read_images(rootfs, findings),
        slices=_read_all(Slice, rootfs, "slices", findings),
    )
    _check_sources(declared, rootfs, findings)
    _check_references(declared, rootfs, findings)
    findings.raise_if_any(f"declarations in {rootfs.name}/")
    return declared


def _read_all(kind: type[T], rootfs: Path, folder: str, findings: Findings) -> tuple[T, ...]:
    rows = (read_toml(kind, path, findings, f"{folder}/{path.name}", {"name": path.stem})
            for path in sorted((rootfs / folder).glob("*.toml")))
    return tuple(row for row in rows if row is not None)


def _read_images(rootfs: Path, findings: Findings) -> tuple[Image, ...]:
    found = []
    for path in sorted((rootfs / "images").glob("*.toml")):
        table = read_image_table(rootfs / "images", path.stem, findings)
        found.append(read_table(Image, table, findings, f"images/{path.name}", {"name": path.stem}) if table else None)
    return tuple(image for image in found if image is not None)


def _check_sources(declared: Declarations, rootfs: Path, findings: Findings) -> None:
    for row in declared.slices:
        for number, text in enumerate(row.texts, start=1):
            if text.source and not (rootfs / "files" / text.source).is_file():
                findings.add(f"slices/{row.name}.toml [[text]] {number} source",
                             f"{text.source!r} is not a file below files/")


def _check_references(declared: Declarations, rootfs: Path, findings: Findings) -> None:
    """By the names of the files: one that cannot be read is there all the same."""
    by_name = {row.name: row for row in declared.slices}
    for where, kind, names in _references(declared):
        _check_names(where, kind, names, {path.stem for path in (rootfs / f"{kind}s").glob("*.toml")}, findings)
    for row in declared.slices:
        if cycle := _find_cycle(row.name, by_name):
            findings.add(f"slices/{row.name}.toml needs", f"is circular: {' -> '.join(cycle)}")
    if not findings.lines:
        _check_production(declared, findings)
        _check_extensions(declared, findings)
        _check_modules(declared, findings)
        _check_branches(declared, findings)
        check_needs(declared, findings)


def _references(declared: Declarations) -> Iterator[tuple[str, str, Iterable[str]]]:
    """Where something is named, what kind of thing, and the names."""
    yield from ((f"slices/{row.name}.toml needs", "slice", row.needs) for row in declared.slices)
    yield from ((f"roots/{root.name}.toml archive", "archive", (root.archive,)) for root in declared.roots)
    for image in declared.images:
        where = f"images/{image.name}.toml"
        yield f"{where} slices", "slice", image.slices
        yield f"{where} archive", "archive", (image.archive,)
        yield f"{where} further_archives", "archive", image.further_archives
        yield f"{where} driver", "driver", filter(None, (image.driver,))
        yield f"{where} over", "image", filter(None, (image.over,))


def _check_names(where: str, kind: str, names: Iterable[str], known: Container[str], findings: Findings) -> None:
    for name in names:
        if name not in known:
            findings.add(where, f"there is no {kind} {name!r}")


def _check_production(declared: Declarations, findings: Findings) -> None:
    """A slice that must never be in production needs an image that says it is none."""
    for image in declared.images:
        for row in declared.slices_of(image):
            if row.never_in_production and not image.development:
                findings.add(f"images/{image.name}.toml", f"has slice {row.name!r}, which is never in production; "
                             "take it out, or say development = true")


def _check_extensions(declared: Declarations, findings: Findings) -> None:
    """Accounts are looked up in the root's /etc; an extension's own would never be read."""
    for image in declared.images:
        for row in declared.slices_of(image):
            if image.layout is Layout.EXTENSION and row.users:
                findings.add(f"images/{image.name}.toml", f"is an extension; slice {row.name!r} adds users, which "
                             "belong into the image below")


def _check_modules(declared: Declarations, findings: Findings) -> None:
    """What names a kernel, modules or a driver carries modules: a copy that lost the slice would boot without them."""
    for image in declared.images:
        takes = {take.package for row in declared.slices_of(image) for take in row.takes}
        named = next((key for key, value in (("driver", image.driver), ("modules", image.modules),
                                             ("serves", image.kernel and image.serves),
                                             ("kernel", image.kernel)) if value), "")
        if named and MODULES not in takes:
            findings.add(f"images/{image.name}.toml {named}", f"needs a slice that takes {MODULES!r} (slice 'modules')")
        if MODULES in takes and not image.kernel:
            findings.add(f"images/{image.name}.toml kernel", f"missing: a slice of it takes {MODULES!r}")


def _check_branches(declared: Declarations, findings: Findings) -> None:
    for image in declared.images:
        branches = declared.driver(image.driver).branches if image.driver else ()
        if image.driver_branch not in (branches or ("",)):
            findings.add(f"images/{image.name}.toml driver_branch",
                         f"expected one of {', '.join(branches)}, not {image.driver_branch!r}" if branches else
                         "is for drivers that have branches")


def _find_cycle(start: str, by_name: dict[str, Slice]) -> tuple[str, ...]:
    """The shortest way from a slice back to itself, if there is one."""
    ways: list[tuple[str, ...]] = [(start,)]
    seen: set[str] = set()
    while ways:
        way = ways.pop(0)
        for need in by_name[way[-1]].needs if way[-1] in by_name else ():
            if need == start:
                return (*way, need)
            if need not in seen:
                seen.add(need)
                ways.append((*way, need))
    return ()
