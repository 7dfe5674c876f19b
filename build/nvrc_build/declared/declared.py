# SPDX-License-Identifier: Apache-2.0
"""What declarations say, as frozen values: archives, roots, drivers, slices, images.

The types are the schema by which read.py reads them: a field with a default may be left out of a file, and
`metadata=key(...)` is a field that a file calls otherwise. `name` is that of the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated

from nvrc.vocabulary.nearmiss import closest
from nvrc.vocabulary.records import Written, key
from nvrc_build.declared.kinds import ImagePath, Needs, Paths, Word, Words, megabytes
from nvrc_build.declared.parts import Edit, FileList, Folder, Link, Take, Text, Unscripted, User
from nvrc_build.ground.errors import WrongCallError


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


class Compression(Enum):
    """Of an initrd: what a start pays for unpacking, or for reading and hashing; docs/images.md has figures."""

    LZ4 = "lz4"
    ZSTD = "zstd"
    STORED = "stored"


class AgentPolicy(Enum):
    """What the image's agent may be asked for: everything, a policy, or nothing before the measured one is there."""

    ALLOW_ALL = "allow-all"
    ALLOW_SET_POLICY = "allow-set-policy"
    DENY = "deny"


class Signatures(Enum):
    """Where those of an image's modules are: in a file beside each, for kernels that require them, or in its end, where
    every kernel checks them.
    """

    BESIDE = "beside"
    APPENDED = "appended"


class Layout(Enum):
    ROOT = "root"
    EXTENSION = "extension"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """`libraries` names packages that only the closure of ELF dependencies takes from; it takes what is needed.

    `embeds` names packages of the roots `tools` and `compile` that are part of a product of this slice, for the bills.
    `kernel_needs`: without these of nvrc/vocabulary/needs.py its programs start and cannot work.
    """

    name: str
    why: Word
    needs: Words = ()
    takes: tuple[Take, ...] = field(default=(), metadata=key("take"))
    folders: tuple[Folder, ...] = field(default=(), metadata=key("folder"))
    links: tuple[Link, ...] = field(default=(), metadata=key("link"))
    texts: tuple[Text, ...] = field(default=(), metadata=key("text"))
    users: tuple[User, ...] = field(default=(), metadata=key("user"))
    unscripted: tuple[Unscripted, ...] = ()
    filelists: tuple[FileList, ...] = field(default=(), metadata=key("filelist"))
    expects: Paths = ()
    configs: Paths = ()
    libraries: Words = ()
    embeds: Words = ()
    kernel_needs: Needs = ()
    console: bool = False
    never_in_production: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Where packages come from: a suite of a distribution. The mirror is the building machine's business.

    An archive of somebody else's has no mirror: its address is `uri`, or given where the image is built. A `suite` that
    ends in a slash is a folder of the archive and has no components. `keyring` is absolute, or below the declarations.
    """

    name: str
    distribution: Word = ""
    suite: Word
    components: Words = ()
    keyring: Word = ""
    uri: Word = ""

    def mistakes(self) -> Iterator[tuple[str, str]]:
        if self.suite.endswith("/") is bool(self.components):
            yield "components", "go with a suite's name, and not with a folder (a suite that ends in /)"
        if self.distribution and self.uri:
            yield "uri", "and distribution exclude each other: a distribution has mirrors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A root that programs of the build run in (freezer, compiler, packers); never part of an image.

    Its packages are unpacked, not installed: what a maintainer script would have linked is declared in `links`.
    """

    name: str
    why: Word
    archive: Word
    packages: Words
    links: tuple[Link, ...] = field(default=(), metadata=key("link"))
    lock: Lock = Lock.REQUIRED

    @property
    def lock_required(self) -> bool:
        return self.lock is Lock.REQUIRED


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """Kernel modules that are compiled from a package's source for the image's kernel.

    `source` is a tar archive with the sources in `folder`, or a folder; its path may have `*`. An image names
    one of the `branches`, if there are any; then packages of `pins` (with `*`) are of it, whatever archives have.
    """

    name: str
    why: Word
    package: Word
    source: ImagePath
    folder: Word = ""
    modules: Words
    branches: Words = ()
    pins: Words = ()
    edits: tuple[Edit, ...] = field(default=(), metadata=key("edit"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """`serves`: the needs of nvrc/vocabulary/needs.py whose modules it carries; `modules`: further ones by name.

    `signatures_named`: where those of the modules are; left out, the kernel decides (products.py).
    """

    name: str
    summary: Word
    format: Format = Format.INITRD
    filesystem_named: FileSystem | None = field(default=None, metadata=key("filesystem"))
    compression_named: Compression | None = field(default=None, metadata=key("compression"))
    layout: Layout = Layout.ROOT
    archive: Word
    further_archives: Words = ()
    kernel: Word = ""
    modules: Words = ()
    serves_named: Needs | None = field(default=None, metadata=key("serves"))
    signatures_named: Signatures | None = field(default=None, metadata=key("module_signatures"))
    driver: Word = ""
    driver_branch: Word = ""
    slices: Words
    over: Word = ""
    options: Words = field(default=(), metadata=key("kernel_options"))
    budget_bytes: Annotated[int, Written(int, megabytes)] = field(metadata=key("budget_mb"))
    lock: Lock = Lock.REQUIRED
    stand_in: bool = field(default=False, metadata=key("stand_in_agent"))
    agent_policy: AgentPolicy = AgentPolicy.ALLOW_ALL
    development: bool = False
    declared_only: Word = ""

    @property
    def serves(self) -> tuple[str, ...]:
        return self.serves_named or ()

    @property
    def is_confidential(self) -> bool:
        """It keeps the host's hands off by the policy of its agent."""
        return self.agent_policy is not AgentPolicy.ALLOW_ALL

    @property
    def filesystem(self) -> FileSystem:
        return self.filesystem_named or FileSystem.EROFS

    @property
    def compression(self) -> Compression:
        return self.compression_named or Compression.LZ4

    @property
    def lock_required(self) -> bool:
        return self.lock is Lock.REQUIRED

    def mistakes(self) -> Iterator[tuple[str, str]]:
        if self.format is Format.INITRD and self.filesystem_named is not None:
            yield "filesystem", "is for disks; an initrd has none"
        if self.format is Format.DISK and self.compression_named is not None:
            yield "compression", "is for an initrd; a disk has that of its file system"
        if self.kernel and self.layout is Layout.ROOT and self.serves_named is None:
            yield "serves", "missing: name the needs whose modules are to be loaded, or say serves = [] for none"
        if self.signatures_named is not None and not self.kernel:
            yield "module_signatures", "is for images with a kernel; this one has no modules"


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
        known = [image.name for image in self.images]
        near = closest(name, known)
        raise WrongCallError(f"no image is called {name!r}",
                             f"did you mean {near}?" if near else f"there are: {', '.join(known)}")

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
