# SPDX-License-Identifier: Apache-2.0
"""Does an extension fit the base that it will be mounted over? For extensions and bases of any maker.

Looks at what fails late in a guest: libraries that neither of the two has, symbol versions of a newer distribution,
modules of another kernel, a manifest of guest components that names what is not there. Runs nothing of either.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from enum import Enum

from nvrc.vocabulary.tomltext import parse_toml
from nvrc_build.ground.errors import BuildError, reason
from nvrc_build.tree import elf
from nvrc_build.tree.assemble import close_libraries, follow
from nvrc_build.tree.pool import Pool
from nvrc_build.tree.tree import Entry, Kind, Tree

MANIFEST = "/etc/kata-extensions/components.toml"
# Kata's extensions have libraries of their own here, which their manifest or the refreshed loader cache leads to.
FOLDERS = (*elf.LIBRARY_FOLDERS, "/usr/local/lib", "/lib/x86_64-linux-gnu", "/lib")
_MODULES = re.compile(r"(?:/usr)?/lib/modules/(?P<release>[^/]+)/.+\.ko")
_VERMAGIC = re.compile(rb"vermagic=(\S+) ")
_NVML = re.compile(r".*/libnvidia-ml\.so\.[0-9.]+")
# What the data hub starts from the base when it opens an encrypted volume; cryptsetup may be of either.
_STARTED = ("dd", "mkfs.ext4")
LDCONFIG = "/sbin/ldconfig"
# Read by the C library's RPC code from the root, which is the base's.
NETCONFIG = "/etc/netconfig"
# A packed program does not say what it is linked to; of this one it is known.
PACKED, PERSISTENCED, RPC_LIBRARY = b"UPX!", "nvidia-persistenced", "libtirpc.so.3"
_HEAD_BYTES = 4096
_MOST_BYTES = 1 << 20  # of a manifest
_PATH = ("/usr/bin", "/usr/sbin", "/bin", "/sbin")


class Extension(Enum):
    GPU = "gpu"
    COCO = "coco"
    OTHER = "other"


def kind_of(tree: Tree) -> Extension:
    """By what is in it: names are the command line's business."""
    if tree.get(MANIFEST) is not None:
        return Extension.COCO
    return Extension.GPU if any(_NVML.fullmatch(entry.path) for entry in tree) else Extension.OTHER


def check_extension(base: Tree, tree: Tree, release: str = "") -> tuple[str, ...]:
    """Everything that does not fit. `release`: the kernel's, where the base has no modules to tell it."""
    findings = [*_libraries(base, tree), *_modules(base, tree, release)]
    if kind_of(tree) is Extension.COCO:
        findings += [*_manifest(tree), *_programs(base, tree)]
    if kind_of(tree) is Extension.GPU:
        findings += _driver(base, tree)
    return tuple(findings)


def _driver(base: Tree, tree: Tree) -> Iterator[str]:
    if not any(_find(one, LDCONFIG) for one in (base, tree)):
        yield f"neither the extension nor the base has {LDCONFIG}, which the init starts for its libraries"
    program = next(filter(None, (_find(tree, posixpath.join(folder, PERSISTENCED)) for folder in _PATH)), None)
    if program is None:
        return
    if _find(base, NETCONFIG) is None:
        yield f"the base has no {NETCONFIG}, without which {program.path} cannot create its RPC service"
    if PACKED in program.read_head(_HEAD_BYTES) and not any(
            _find(one, posixpath.join(folder, RPC_LIBRARY)) for one in (base, tree) for folder in FOLDERS):
        yield f"{program.path} is packed and needs {RPC_LIBRARY}, which neither the extension nor the base has"


def _libraries(base: Tree, tree: Tree) -> Iterator[str]:
    before = {entry.path for entry in tree}
    for line in close_libraries(tree, Pool({}), base, folders=FOLDERS):
        text = re.sub(r"^slice '[^']*': ", "", line)
        yield text.replace("which no package of the image has", "which neither the extension nor the base has") \
            .replace("; take one that was built for the image's distribution", "; build it on the base's distribution")
    assert {entry.path for entry in tree} == before, "an empty pool has nothing to add"


def _modules(base: Tree, tree: Tree, release: str) -> Iterator[str]:
    found = {hit["release"]: entry for entry in tree if (hit := _MODULES.fullmatch(entry.path))}
    if not found:
        return
    kernels = {hit["release"] for entry in base if (hit := _MODULES.fullmatch(entry.path))} | ({release} - {""})
    if not kernels:
        yield "it has kernel modules, and the base has none to compare with; name the kernel with --kernel"
    for name in sorted(found):
        if kernels and name not in kernels:
            yield f"its modules are of kernel {name}, the base's kernel is {', '.join(sorted(kernels))}"
    for entry in tree:
        hit = _MODULES.fullmatch(entry.path)
        magic = _VERMAGIC.search(entry.read()) if hit and entry.kind is Kind.FILE else None
        if hit and magic and magic[1].decode(errors="replace") != hit["release"]:
            yield f"{entry.path} was built for kernel {magic[1].decode(errors='replace')}"


def _manifest(tree: Tree) -> Iterator[str]:
    entry = tree.get(MANIFEST)
    if entry is not None and entry.size > _MOST_BYTES:
        yield f"{MANIFEST} has {entry.size} bytes"
        return
    try:
        document = parse_toml(entry.read().decode()) if entry is not None and entry.kind is Kind.FILE else {}
    except ValueError as wrong:
        yield f"{MANIFEST} cannot be read: {reason(wrong)}"
        return
    yield from (f"{MANIFEST}: {wrong}" for wrong in _misshapen(document))
    if document.get("schema_version") != 1:
        yield f"{MANIFEST}: schema_version is {document.get('schema_version')!r}, agents know 1"
    for place, path in _paths(document):
        if path.startswith("/") or ".." in path.split("/"):
            yield f"{MANIFEST} {place}: {path!r} leads out of the extension"
        elif _find(tree, f"/{path}") is None:
            yield f"{MANIFEST} {place}: /{path} is missing"


def _misshapen(document: Mapping[str, object]) -> Iterator[str]:
    if not isinstance(document.get("paths", {}), dict):
        yield "paths is not a table"
    processes = document.get("process", [])
    if not isinstance(processes, list) or len(_tables(processes)) != len(processes):
        yield "process is not a list of tables"
    for row in _tables(processes):
        variants = row.get("variants", {})
        if not isinstance(variants, dict) or len(_tables([*variants.values()])) != len(variants):
            yield f"process {row.get('id', '?')}: variants is not a table of tables"


def _tables(value: object) -> list[dict[str, object]]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _paths(document: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    paths = document.get("paths", {})
    for name, path in paths.items() if isinstance(paths, dict) else ():
        yield f"paths.{name}", str(path)
    for row in _tables(document.get("process", [])):
        variants = row.get("variants", {})
        rows = [row, *_tables([*variants.values()] if isinstance(variants, dict) else [])]
        yield from ((f"process {row.get('id', '?')}", str(one["path"])) for one in rows if "path" in one)


def _programs(base: Tree, tree: Tree) -> Iterator[str]:
    for name in _STARTED:
        if not any(_find(base, posixpath.join(folder, name)) for folder in _PATH):
            yield f"the base has no {name}, which the data hub starts for encrypted volumes"
    if not any(_find(one, posixpath.join(folder, "cryptsetup")) for one in (base, tree) for folder in _PATH):
        yield "neither the extension nor the base has cryptsetup, which the data hub starts for encrypted volumes"


def _find(tree: Tree, path: str) -> Entry | None:
    return tree.get(follow(tree, path))


def require(findings: tuple[str, ...], base: str, extension: str) -> None:
    if findings:
        raise BuildError(f"extension {extension} does not fit base {base}, {len(findings)} findings",
                         "build it for this base, or use the base that it was built for", findings=findings)
