# SPDX-License-Identifier: Apache-2.0
"""Machines with an NVIDIA driver, made from a description: a real tree of files, and what NVML says.

Device nodes need privileges, so a tree made by an ordinary user has plain files in their place and `DescribedHost`
answers lstat for them from the description. As root `build(..., nodes=True)` makes real ones.

The description is text, one entry per line:

    run --driver-root=/opt/driver       arguments of `guest-cdi generate`
    dir PATH                            link PATH TARGET
    file PATH [MODE [CONTENT]]          "|" in the content ends a line
    lib DIR NAME SONAME                 shared object, and its SONAME link where that is another name
    elf PATH SONAME|-                   shared object alone
    char PATH MAJOR MINOR [MODE [GID]]  socket PATH
    cache ROOT PATH...                  ROOT/etc/ld.so.cache with these libraries
    driver VERSION
    gpu INDEX MINOR BUS-ID UUID [mig]   mig GPU:INDEX GI CI UUID [gfx]
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from fakes.elf import library_cache, shared_object
from fakes.nvml import FakeNvml
from guest_cdi import cli
from guest_cdi.generate import generate
from guest_cdi.gpu import Gpu, Mig
from guest_cdi.host import FileInfo, Kind, LinuxHost
from guest_cdi.render import render_yaml

ROOTS = Path(__file__).resolve().parents[1] / "roots"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    major: int
    minor: int
    mode: int = 0o666
    gid: int = 0


@dataclass(slots=True, kw_only=True)
class Machine:
    arguments: tuple[str, ...] = ()
    directories: list[str] = field(default_factory=list)
    files: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    sockets: list[str] = field(default_factory=list)
    driver: str = "580.95.05"
    gpus: list[Gpu] = field(default_factory=list)

    def nvml(self) -> FakeNvml:
        return FakeNvml(version=self.driver, found=tuple(self.gpus))

    def build(self, root: Path, *, nodes: bool = False) -> Path:
        """Make the tree. Links first: what is described below a link lies below its target."""
        for path in self.directories:
            find_place(root, path).mkdir(parents=True, exist_ok=True)
        for path, target in self.links.items():
            place = _parent(root, path)
            place.symlink_to(target)
        for path, (mode, content) in self.files.items():
            place = _parent(root, path)
            place.write_bytes(content)
            place.chmod(mode)
        for path in self.sockets:
            os.mknod(_parent(root, path), stat.S_IFSOCK | 0o666)
        for path, node in self.nodes.items():
            place = _parent(root, path)
            if nodes:
                os.mknod(place, stat.S_IFCHR, os.makedev(node.major, node.minor))
                os.chown(place, 0, node.gid)
                place.chmod(node.mode)
            else:
                place.write_bytes(b"")
        return root

    def host(self, root: Path) -> DescribedHost:
        return DescribedHost(LinuxHost(str(self.build(root))), self.nodes)


class DescribedHost:
    """Real files, and device nodes from a table."""

    def __init__(self, real: LinuxHost, nodes: Mapping[str, Node]) -> None:
        self._real = real
        self._nodes = nodes
        self.scanned: list[str] = []
        self.stat = real.stat
        self.resolve = real.resolve
        self.read_link = real.read_link
        self.open = real.open

    def lstat(self, path: str) -> FileInfo:
        node = self._nodes.get(path)
        if node is None:
            return self._real.lstat(path)
        return FileInfo(stat.S_IFCHR | node.mode, node.major, node.minor, node.gid)

    def scan(self, path: str) -> Mapping[str, Kind]:
        self.scanned.append(path)
        return self._real.scan(path)


def find_place(root: Path, path: str) -> Path:
    """Where `path` lies in the tree, with the links of the tree itself followed inside it."""
    host = LinuxHost(str(root))
    done = "/"
    for part in path.strip("/").split("/"):
        try:
            done = host.resolve(f"{done.rstrip('/')}/{part}")
        except FileNotFoundError:
            done = f"{done.rstrip('/')}/{part}"
    return root / done.lstrip("/")


def _parent(root: Path, path: str) -> Path:
    directory, _, name = path.rpartition("/")
    place = find_place(root, directory) if directory else root
    place.mkdir(parents=True, exist_ok=True)
    return place / name


def load(case: str) -> Machine:
    return parse((ROOTS / case / "machine.txt").read_text())


def parse(text: str) -> Machine:
    machine = Machine()
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if words:
            _add(machine, words[0], words[1:])
    return machine


def _add(machine: Machine, kind: str, words: list[str]) -> None:  # noqa: C901, PLR0912  (one case per line kind)
    match kind, words:
        case "run", _:
            machine.arguments += tuple(words)
        case "dir", [path]:
            machine.directories.append(path)
        case "file", [path, *rest]:
            machine.files[path] = (int(rest[0], 8) if rest else 0o644, " ".join(rest[1:]).replace("|", "\n").encode() + b"\n")
        case "link", [path, target]:
            machine.links[path] = target
        case "lib", [directory, name, soname]:
            add_library(machine, directory, name, soname)
        case "elf", [path, soname]:
            machine.files[path] = (0o644, shared_object(*(() if soname == "-" else (soname,))))
        case "char", [path, major, minor, *rest]:
            machine.nodes[path] = Node(major=int(major), minor=int(minor), mode=int(rest[0], 8) if rest else 0o666,
                                       gid=int(rest[1]) if len(rest) > 1 else 0)
        case "socket", [path]:
            machine.sockets.append(path)
        case "cache", [root, *paths]:
            machine.files[f"{root.rstrip('/')}/etc/ld.so.cache"] = (0o644, library_cache(paths))
        case "driver", [version]:
            machine.driver = version
        case "gpu", [index, minor, bus_id, uuid, *rest]:
            machine.gpus.append(Gpu(index=int(index), minor=int(minor), bus_id=bus_id, uuid=uuid, name="NVIDIA H100",
                                    mig_capable=True, mig_enabled=rest == ["mig"]))
        case "mig", [place, gi, ci, uuid, *rest]:
            _add_mig(machine, place, Mig(index=int(place.partition(":")[2]), gi=int(gi), ci=int(ci), uuid=uuid,
                                         gfx=rest == ["gfx"]))
        case _:
            raise ValueError(f"{kind} {' '.join(words)}")


def add_library(machine: Machine, directory: str, name: str, soname: str) -> None:
    machine.files[f"{directory}/{name}"] = (0o644, shared_object(soname))
    if soname != name:
        machine.links[f"{directory}/{soname}"] = name


def _add_mig(machine: Machine, place: str, mig: Mig) -> None:
    number = int(place.partition(":")[0])
    at = next(at for at, gpu in enumerate(machine.gpus) if gpu.index == number)
    machine.gpus[at] = replace(machine.gpus[at], migs=(*machine.gpus[at].migs, mig))


def without(machine: Machine, paths: Iterable[str]) -> Machine:
    """The same machine after someone removed files."""
    gone = set(paths)
    return replace(
        machine,
        files={path: value for path, value in machine.files.items() if path not in gone},
        links={path: value for path, value in machine.links.items() if path not in gone},
        nodes={path: value for path, value in machine.nodes.items() if path not in gone},
        sockets=[path for path in machine.sockets if path not in gone],
        gpus=list(machine.gpus),
    )


def document_of(case: str, folder: Path, *more: str) -> str:
    """The document for a described machine; its own arguments are those of its `run` lines."""
    machine = load(case)
    arguments = cli.build_parser().parse_args([*machine.arguments, *more], cli.Arguments())
    return render_yaml(generate(machine.host(folder), machine.nvml(), cli.read_options(arguments)).spec)


if __name__ == "__main__":
    # Prints what is now generated for a machine, for its golden document: python -m fakes.machine CASE [ARGUMENT...]
    with tempfile.TemporaryDirectory() as scratch:
        sys.stdout.write(document_of(sys.argv[1], Path(scratch), *sys.argv[2:]))
