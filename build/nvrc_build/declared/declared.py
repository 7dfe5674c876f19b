# SPDX-License-Identifier: Apache-2.0
"""What declarations say, as frozen values: archives, roots, drivers, slices, images. manifest.py reads them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from nvrc_build.ground.errors import BuildError


class Format(Enum):
    INITRD = "initrd"
    DISK = "disk"


class Lock(Enum):
    """What to do when the archive no longer has a locked version: stop, or go on with the archive's own and say so."""

    REQUIRED = "required"
    PREFERRED = "preferred"


class FileSystem(Enum):
    """Of a disk image."""

    EROFS = "erofs"
    EXT4 = "ext4"


class AgentPolicy(Enum):
    """What the image's agent may be asked for: everything, a policy, or nothing before the measured one is there."""

    ALLOW_ALL = "allow-all"
    ALLOW_SET_POLICY = "allow-set-policy"
    DENY = "deny"


class Layout(Enum):
    ROOT = "root"
    EXTENSION = "extension"


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """Files of one package. `count` is how many entries the patterns must match together; 0 means at least one.

    With `into` they keep their names in another folder; with `bundle` they become one file, in order of their names.
    """

    package: str
    paths: tuple[str, ...]
    count: int
    into: str
    bundle: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    path: str
    mode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    path: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A small file: its content stands in the slice, or in a file below rootfs/files."""

    path: str
    content: str
    source: str
    mode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """An account without password or shell; its group has the same number, and its name unless another is given."""

    name: str
    number: int
    group: str
    home: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unscripted:
    """Why a package's files are good although its maintainer scripts never ran."""

    package: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """`libraries` names packages that only the closure of ELF dependencies takes from; it takes what is needed.

    `embeds` names packages of the tools root whose files are inside a product of this slice, for the bills.
    `kernel_needs`: without these of nvrc/vocabulary/needs.py its programs start and cannot work.
    """

    name: str
    why: str
    needs: tuple[str, ...]
    takes: tuple[Take, ...]
    folders: tuple[Folder, ...]
    links: tuple[Link, ...]
    texts: tuple[Text, ...]
    users: tuple[User, ...]
    unscripted: tuple[Unscripted, ...]
    filelists: tuple[FileList, ...]
    expects: tuple[str, ...]
    configs: tuple[str, ...]
    libraries: tuple[str, ...]
    embeds: tuple[str, ...]
    kernel_needs: tuple[str, ...]
    console: bool
    production: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FileList:
    """Files named by a list that a package ships (NVIDIA's sandboxutils-filelist.json), chosen by type and category."""

    package: str
    path: str
    types: tuple[str, ...]
    categories: tuple[str, ...]
    without: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Where packages come from: a suite of a distribution. The mirror is the building machine's business."""

    name: str
    distribution: str
    suite: str
    components: tuple[str, ...]
    keyring: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A root that programs of the build run in (freezer, compiler, packers); never part of an image.

    Its packages are unpacked, not installed: what a maintainer script would have linked is declared in `links`.
    """

    name: str
    why: str
    archive: str
    packages: tuple[str, ...]
    links: tuple[Link, ...]
    lock_required: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """One change to a source before it is compiled: text that must be there once, and what it becomes."""

    why: str
    file: str
    find: str
    replace: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """Kernel modules that are compiled from a package's source for the image's kernel."""

    name: str
    why: str
    package: str
    source: str
    folder: str
    modules: tuple[str, ...]
    edits: tuple[Edit, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """`serves`: the needs of nvrc/vocabulary/needs.py whose modules it carries; `modules`: further ones by name.

    `unsigned`: the kernel's modules go without their signatures, whose check is most of what loading costs.
    """

    name: str
    summary: str
    format: Format
    filesystem: FileSystem
    layout: Layout
    archive: str
    kernel: str
    modules: tuple[str, ...]
    serves: tuple[str, ...]
    unsigned: bool
    driver: str
    slices: tuple[str, ...]
    over: str
    options: tuple[str, ...]
    budget_bytes: int
    lock_required: bool
    stand_in: bool
    agent_policy: AgentPolicy
    development: bool
    declared_only: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Declarations:
    archives: tuple[Suite, ...]
    drivers: tuple[Driver, ...]
    roots: tuple[Root, ...]
    images: tuple[Image, ...]
    slices: tuple[Slice, ...]

    def archive(self, name: str) -> Suite:
        return next(row for row in self.archives if row.name == name)

    def driver(self, name: str) -> Driver:
        return next(row for row in self.drivers if row.name == name)

    def root(self, name: str) -> Root:
        return next(row for row in self.roots if row.name == name)

    def image(self, name: str) -> Image:
        for image in self.images:
            if image.name == name:
                return image
        known = ", ".join(image.name for image in self.images)
        raise BuildError(f"no image is called {name!r}", f"there are: {known}")

    def slice(self, name: str) -> Slice:
        return next(row for row in self.slices if row.name == name)

    def slices_of(self, image: Image) -> tuple[Slice, ...]:
        """The image's slices and all they need, a slice after the ones it needs."""
        ordered: list[Slice] = []

        def visit(name: str) -> None:
            row = self.slice(name)
            if row in ordered:
                return
            for need in row.needs:
                visit(need)
            ordered.append(row)

        for name in image.slices:
            visit(name)
        return tuple(ordered)
