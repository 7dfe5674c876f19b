# SPDX-License-Identifier: Apache-2.0
"""Declarations below rootfs/ into frozen values. Linting a declaration is this loader and nothing more.

An image names slices, a kernel, modules, a format and a budget; a slice says which files it takes from which package,
what else it adds, which slices it needs, and why it exists. All mistakes of all files are reported at once.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Container, Iterable
from enum import Enum
from pathlib import Path
from typing import TypeVar

from nvrc_build.declared.declared import (
    AgentPolicy,
    Declarations,
    Driver,
    Edit,
    FileList,
    FileSystem,
    Folder,
    Format,
    Image,
    Layout,
    Link,
    Lock,
    Root,
    Slice,
    Suite,
    Take,
    Text,
    Unscripted,
    User,
)
from nvrc_build.declared.needs import check_needs, read_needs
from nvrc_build.declared.toml import Findings, Table, read_toml
from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.image_path import clean_path

_ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_E = TypeVar("_E", bound=Enum)


def load(rootfs: Path) -> Declarations:
    findings = Findings()
    declared = Declarations(
        archives=tuple(_suite(path, rootfs, findings) for path in sorted((rootfs / "archives").glob("*.toml"))),
        drivers=tuple(_driver(path, rootfs, findings) for path in sorted((rootfs / "drivers").glob("*.toml"))),
        roots=tuple(_root(path, rootfs, findings) for path in sorted((rootfs / "roots").glob("*.toml"))),
        images=tuple(_image(path, rootfs, findings) for path in sorted((rootfs / "images").glob("*.toml"))),
        slices=tuple(_slice(path, rootfs, findings) for path in sorted((rootfs / "slices").glob("*.toml"))),
    )
    _check_references(declared, findings)
    findings.raise_if_any(f"declarations in {rootfs.name}/")
    return declared


def _suite(path: Path, rootfs: Path, findings: Findings) -> Suite:
    table = read_toml(path, findings, str(path.relative_to(rootfs)))
    row = Suite(name=path.stem, distribution=table.text("distribution"), suite=table.text("suite"),
                components=table.texts("components", required=True),
                keyring=_path(table, "keyring", table.text("keyring")))
    table.close()
    return row


def _driver(path: Path, rootfs: Path, findings: Findings) -> Driver:
    table = read_toml(path, findings, str(path.relative_to(rootfs)))
    row = Driver(name=path.stem, why=table.text("why"), package=table.text("package"),
                 source=_path(table, "source", table.text("source")), folder=table.text("folder"),
                 modules=table.texts("modules", required=True),
                 edits=tuple(_edit(one) for one in table.tables("edit")))
    table.close()
    return row


def _edit(table: Table) -> Edit:
    row = Edit(why=table.text("why"), file=table.text("file"), find=table.text("find"), replace=table.text("replace"))
    if row.file.startswith("/") or ".." in row.file.split("/"):
        table.note("file", f"{row.file!r} must lie inside the source")
    table.close()
    return row


def _root(path: Path, rootfs: Path, findings: Findings) -> Root:
    table = read_toml(path, findings, str(path.relative_to(rootfs)))
    row = Root(name=path.stem, why=table.text("why"), archive=table.text("archive"),
               packages=table.texts("packages", required=True),
               links=tuple(_link(one) for one in table.tables("link")), lock_required=_lock_required(table))
    table.close()
    return row


def _slice(path: Path, rootfs: Path, findings: Findings) -> Slice:
    table = read_toml(path, findings, str(path.relative_to(rootfs)))
    row = Slice(
        name=path.stem,
        why=table.text("why"),
        needs=table.texts("needs"),
        takes=tuple(_take(one) for one in table.tables("take")),
        folders=tuple(_folder(one) for one in table.tables("folder")),
        links=tuple(_link(one) for one in table.tables("link")),
        texts=tuple(_text(one, rootfs) for one in table.tables("text")),
        users=tuple(_user(one) for one in table.tables("user")),
        unscripted=tuple(_unscripted(one) for one in table.tables("unscripted")),
        filelists=tuple(_filelist(one) for one in table.tables("filelist")),
        expects=tuple(_path(table, "expects", text) for text in table.texts("expects")),
        configs=tuple(_path(table, "configs", text) for text in table.texts("configs")),
        libraries=table.texts("libraries"),
        embeds=table.texts("embeds"),
        kernel_needs=read_needs(table, "kernel_needs"),
        console=table.flag("console"),
        production=not table.flag("never_in_production"),
    )
    table.close()
    return row


def _path(table: Table, key: str, text: str) -> str:
    if text:
        try:
            return clean_path(text)
        except BuildError as wrong:
            table.note(key, str(wrong))
    return text


def _take(table: Table) -> Take:
    paths = table.texts("paths", required=True)
    for text in paths:
        _path(table, "paths", text)
    row = Take(package=table.text("package"), paths=paths, count=table.number("count", 0),
               into=_path(table, "into", table.text("into", "")) if table.has("into") else "",
               bundle=_path(table, "bundle", table.text("bundle", "")) if table.has("bundle") else "")
    if row.into and row.bundle:
        table.note("bundle", "and into exclude each other")
    table.close()
    return row


def _folder(table: Table) -> Folder:
    row = Folder(path=_path(table, "path", table.text("path")), mode=_mode(table, 0o755))
    table.close()
    return row


def _mode(table: Table, default: int) -> int:
    mode = table.mode("mode", default)
    if mode & (stat.S_ISUID | stat.S_ISGID):
        table.note("mode", f"{mode:04o} is setuid or setgid; an image has no such file")
    return mode


def _link(table: Table) -> Link:
    row = Link(path=_path(table, "path", table.text("path")), target=table.text("target"))
    table.close()
    return row


def _text(table: Table, rootfs: Path) -> Text:
    source = table.text("source") if table.has("source") else ""
    content = table.raw_text("content") if table.has("content") else ""
    if table.has("source") == table.has("content"):
        table.note("", "needs either content or source")
    if ".." in source.split("/") or (source and not (rootfs / "files" / source).is_file()):
        table.note("source", f"{source!r} is not a file below files/")
    row = Text(path=_path(table, "path", table.text("path")), content=content, source=source,
               mode=_mode(table, 0o644))
    table.close()
    return row


def _user(table: Table) -> User:
    row = User(name=table.text("name"), number=table.number("id"),
               group=table.text("group", "") if table.has("group") else "",
               home=_path(table, "home", table.text("home", "/nonexistent")))
    if not _ACCOUNT.fullmatch(row.name) or (row.group and not _ACCOUNT.fullmatch(row.group)):
        table.note("name", f"{row.name!r} or its group is no account name")
    table.close()
    return row


def _unscripted(table: Table) -> Unscripted:
    row = Unscripted(package=table.text("package"), why=table.text("why"))
    table.close()
    return row


def _filelist(table: Table) -> FileList:
    row = FileList(package=table.text("package"), path=_path(table, "path", table.text("path")),
                   types=table.texts("types", required=True), categories=table.texts("categories", required=True),
                   without=table.texts("without"))
    table.close()
    return row


def _image(path: Path, rootfs: Path, findings: Findings) -> Image:
    table = read_toml(path, findings, str(path.relative_to(rootfs)))
    image = Image(
        name=path.stem, summary=table.text("summary"),
        format=_choice(table, "format", Format, Format.INITRD),
        filesystem=_choice(table, "filesystem", FileSystem, FileSystem.EROFS),
        layout=_choice(table, "layout", Layout, Layout.ROOT),
        archive=table.text("archive"),
        kernel=table.text("kernel", "") if table.has("kernel") else "",
        modules=table.texts("modules"),
        serves=read_needs(table, "serves"), unsigned=table.flag("unsigned_modules"),
        driver=table.text("driver", "") if table.has("driver") else "",
        slices=table.texts("slices", required=True),
        over=table.text("over", "") if table.has("over") else "",
        options=table.texts("kernel_options"),
        budget_bytes=table.number("budget_mb") * 1_000_000,
        lock_required=_lock_required(table),
        stand_in=table.flag("stand_in_agent"), development=table.flag("development"),
        agent_policy=_choice(table, "agent_policy", AgentPolicy, AgentPolicy.ALLOW_ALL),
        declared_only=table.text("declared_only", "") if table.has("declared_only") else "",
    )
    if image.format is Format.INITRD and table.has("filesystem"):
        table.note("filesystem", "is for disks; an initrd has none")
    table.close()
    return image


def _lock_required(table: Table) -> bool:
    return _choice(table, "lock", Lock, Lock.REQUIRED) is Lock.REQUIRED


def _choice(table: Table, key: str, kind: type[_E], default: _E) -> _E:
    text = table.text(key, str(default.value))
    for choice in kind:
        if choice.value == text:
            return choice
    table.note(key, f"{text!r} is none of {', '.join(str(choice.value) for choice in kind)}")
    return default


def _check_references(declared: Declarations, findings: Findings) -> None:
    by_name = {row.name: row for row in declared.slices}
    archives = {row.name for row in declared.archives}
    for row in declared.slices:
        _check_names(f"slices/{row.name}.toml needs", "slice", row.needs, by_name, findings)
        cycle = _find_cycle(row.name, by_name)
        if cycle:
            findings.add(f"slices/{row.name}.toml needs", f"goes round in a circle: {' -> '.join(cycle)}")
    for root in declared.roots:
        _check_names(f"roots/{root.name}.toml archive", "archive", (root.archive,), archives, findings)
    for image in declared.images:
        where = f"images/{image.name}.toml"
        _check_names(f"{where} slices", "slice", image.slices, by_name, findings)
        _check_names(f"{where} archive", "archive", (image.archive,), archives, findings)
        _check_names(f"{where} driver", "driver", filter(None, (image.driver,)),
                     {row.name for row in declared.drivers}, findings)
        _check_names(f"{where} over", "image", filter(None, (image.over,)),
                     {row.name for row in declared.images}, findings)
    if not findings.lines:
        _check_production(declared, findings)
        _check_extensions(declared, findings)
        check_needs(declared, findings)


def _check_names(where: str, kind: str, names: Iterable[str], known: Container[str], findings: Findings) -> None:
    for name in names:
        if name not in known:
            findings.add(where, f"there is no {kind} {name!r}")


def _check_production(declared: Declarations, findings: Findings) -> None:
    """A slice that must never be in production needs an image that says it is none."""
    for image in declared.images:
        for row in declared.slices_of(image):
            if not row.production and not image.development:
                findings.add(f"images/{image.name}.toml", f"has slice {row.name!r}, which is never in production; "
                             "take it out, or say development = true")


def _check_extensions(declared: Declarations, findings: Findings) -> None:
    """Accounts are looked up in the root's /etc; an extension's own would never be read."""
    for image in declared.images:
        for row in declared.slices_of(image):
            if image.layout is Layout.EXTENSION and row.users:
                findings.add(f"images/{image.name}.toml", f"is an extension; slice {row.name!r} adds users, which "
                             "belong into the image below")


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
