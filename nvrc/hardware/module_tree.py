# SPDX-License-Identifier: Apache-2.0
"""What the files below lib/modules/<release> say: where each module is, what it needs, what the kernel has built in.

Reads modules.dep, modules.builtin and modules.softdep as depmod writes them (modules.dep(5)); the binary indexes are
copies of these and are not read, aliases are not needed because modules are loaded by name. Loads nothing.
"""

from __future__ import annotations

from guest_cdi.lean.light import Iterable, Mapping, NamedTuple
from nvrc.machine.system import Files
from nvrc.vocabulary.errors import NvrcError

MODULES = "/lib/modules"
# What a module file's name ends with, and the kernel's name for the compression (/sys/module/compression).
COMPRESSIONS = {".ko": "", ".ko.gz": "gzip", ".ko.xz": "xz", ".ko.zst": "zstd"}
_INDEX_LIMIT = 16 << 20


class Softdep(NamedTuple):
    """What is loaded before and after a module, if it can be."""

    pre: tuple[str, ...] = ()
    post: tuple[str, ...] = ()


class ModuleTree(NamedTuple):
    """Names in the kernel's spelling, with underscores. `needs` is nearest first: the last one is loaded first."""

    folder: str
    files: Mapping[str, str]
    needs: Mapping[str, tuple[str, ...]]
    builtin: frozenset[str]
    softdeps: Mapping[str, Softdep]


def canonical(name: str) -> str:
    """The kernel's own spelling: `nvidia-uvm` and `nvidia_uvm` are one module."""
    return name.replace("-", "_")


def read_tree(system: Files, root: str, release: str) -> ModuleTree:
    """The tree below `root`; without a folder for this kernel, or without modules.dep, there are no files in it."""
    folder = f"{root}{MODULES}/{release}"
    files: dict[str, str] = {}
    needs: dict[str, tuple[str, ...]] = {}
    index = f"{folder}/modules.dep"
    for line in _lines(system, index):
        path, colon, rest = line.partition(":")
        if not colon:
            raise NvrcError("E_MODULE_TREE", f"{index}: {line[:80]!a} is not 'file: files it needs'")
        name = module_name(path, index)
        files[name] = f"{root}{path}" if path.startswith("/") else f"{folder}/{path}"
        needs[name] = tuple(module_name(need, index) for need in rest.split())
    builtin = frozenset(module_name(line, folder) for line in _lines(system, f"{folder}/modules.builtin"))
    return ModuleTree(folder, files, needs, builtin, read_softdeps(_lines(system, f"{folder}/modules.softdep")))


def releases(system: Files, root: str) -> tuple[str, ...]:
    """The kernels that the tree below `root` has modules for."""
    try:
        return system.list_dir(f"{root}{MODULES}")
    except OSError:
        return ()


def read_softdeps(lines: Iterable[str]) -> Mapping[str, Softdep]:
    """Every `softdep NAME pre: A B post: C` among the lines; several for one module add up."""
    found: dict[str, dict[str, list[str]]] = {}
    for line in lines:
        match line.split():
            case ["softdep", name, *words]:
                _add_softdep(found.setdefault(canonical(name), {"pre:": [], "post:": []}), words)
    return {name: Softdep(tuple(parts["pre:"]), tuple(parts["post:"])) for name, parts in found.items()}


def _add_softdep(parts: Mapping[str, list[str]], words: list[str]) -> None:
    current: list[str] = []  # names before the first mark belong nowhere
    for word in words:
        if word in parts:
            current = parts[word]
        else:
            current.append(canonical(word))


def module_name(path: str, index: str) -> str:
    base = path.strip().rpartition("/")[2]
    stem, dot, ending = base.partition(".ko")
    if not stem or f"{dot}{ending}" not in COMPRESSIONS or ".." in path.split("/"):
        raise NvrcError("E_MODULE_TREE", f"{index}: {path[:80]!a} is not the path of a module")
    return canonical(stem)


def _lines(system: Files, path: str) -> list[str]:
    """The lines of an index with something to say; an index that is not there says nothing."""
    try:
        text = system.read(path, _INDEX_LIMIT).decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return []
    except OSError as err:
        raise NvrcError("E_MODULE_TREE", f"{path}: {err.strerror or err}") from err
    return [line for line in text.split("\n") if line.strip() and not line.startswith("#")]
