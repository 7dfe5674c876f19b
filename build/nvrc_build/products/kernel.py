# SPDX-License-Identifier: Apache-2.0
"""The guest kernel from its distribution package: image, chosen modules, and what is needed to build further ones.

Modules are stored uncompressed (the initrd is compressed as a whole and finit_module(2) then needs no decompressor)
and byte for byte otherwise, so that their signatures stay good, at the end of the file or in one of its own.
modules.dep is computed from each module's own list of what it depends on; nothing is run to make it.
"""

from __future__ import annotations

import io
import lzma
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from elftools.elf.elffile import ELFFile

from nvrc.vocabulary.console import printable
from nvrc.vocabulary.needs import SERVES, SIGNATURE, SIGNED_BYTES
from nvrc_build.ground.errors import BuildError
from nvrc_build.products.untraced import untrace

SIGNED = b"~Module signature appended~\n"
_MOST_BYTES, _MOST_MEMORY = 1 << 28, 128 << 20  # of a module, and of what unpacks it
_TRAILER = struct.Struct(">8xI")  # struct module_signature: for PKCS#7 only the length counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One module file of a kernel: where it lies below lib/modules/<release>/, its content and its needs.

    `softdeps` are lines as modprobe.d(5) has them, less the word and the module's name. `signature`: what was taken off
    the end of the file, to lie beside it. `signed_bytes`: what was changed in it since it was signed.
    """

    name: str
    path: str
    data: bytes
    depends: tuple[str, ...]
    softdeps: tuple[str, ...] = ()
    signature: bytes = b""
    signed_bytes: bytes = b""


def find_release(root: Path) -> str:
    found = sorted(path.name for path in (root / "usr/lib/modules").glob("*") if (path / "modules.builtin").is_file())
    if len(found) != 1:
        raise BuildError(f"{len(found)} kernels in {root}", "give the image exactly one kernel package")
    return found[0]


def image_path(root: Path) -> Path:
    return root / "boot" / f"vmlinuz-{find_release(root)}"


def module_name(file_name: str) -> str:
    return canonical(file_name.split(".ko", 1)[0])


def read_module(path: Path, relative: str) -> Module:
    try:
        data = _read(path)
        modinfo = read_modinfo(data)
    except Exception as wrong:  # elftools raises what its parts raise: the file may be anything
        raise _damaged(path.name, wrong) from wrong
    depends = next((value for key, value in modinfo if key == "depends"), "")
    return Module(name=module_name(path.name), path=relative.removesuffix(".xz"), data=data,
                  depends=tuple(name.replace("-", "_") for name in depends.split(",") if name),
                  softdeps=tuple(value for key, value in modinfo if key == "softdep"))


def _damaged(name: str, wrong: Exception) -> BuildError:
    return BuildError(f"{name} is not a kernel module: {type(wrong).__name__} {printable(str(wrong))}".rstrip(),
                      "replace it: the file is cut, damaged or of another kind")


def _read(path: Path, most_bytes: int = _MOST_BYTES) -> bytes:
    if not path.is_file() or path.stat().st_size > most_bytes:
        raise ValueError(f"it is not a file of at most {most_bytes} bytes")
    data = path.read_bytes()
    if path.suffix != ".xz":
        return data
    decoder = lzma.LZMADecompressor(memlimit=_MOST_MEMORY)
    unpacked = decoder.decompress(data, most_bytes)
    if not decoder.eof:
        raise ValueError(f"it is cut, or unpacks to more than {most_bytes} bytes")
    return unpacked


def read_modinfo(data: bytes) -> list[tuple[str, str]]:
    section = ELFFile(io.BytesIO(data)).get_section_by_name(".modinfo")
    words = section.data().split(b"\0") if section is not None else []
    texts = (word.decode("utf-8", "replace") for word in words if b"=" in word)
    return [(key, value) for key, _, value in (text.partition("=") for text in texts)]


def select_modules(root: Path, names: Sequence[str], where_there: Sequence[str] = ()) -> tuple[Module, ...]:
    """The named modules and all they depend on, softly as well, sorted by path. A name built into the kernel is there
    already; of `where_there`, and of soft dependencies, those count that the kernel has a file of.
    """
    folder = root / "usr/lib/modules" / find_release(root)
    files = {module_name(path.name): path for path in sorted((folder / "kernel").rglob("*.ko*"))}
    builtin = {module_name(Path(line).name) for line in
               (folder / "modules.builtin").read_text(encoding="utf-8", errors="replace").splitlines()}
    chosen: dict[str, Module] = {}
    wanted = list(map(canonical, names))
    wanted += [name for name in map(canonical, where_there) if name in files]
    unknown = []
    while wanted:
        name = wanted.pop()
        if name in chosen or name in builtin:
            continue
        if name not in files:
            unknown.append(name)
            continue
        chosen[name] = read_module(files[name], str(files[name].relative_to(folder)))
        wanted += (*chosen[name].depends, *(soft for soft in soft_names(chosen[name]) if soft in files))
    if unknown:
        raise BuildError(f"kernel {folder.name} has no module {', '.join(sorted(unknown))}",
                         "correct the image's list of modules")
    return tuple(sorted(chosen.values(), key=lambda module: module.path))


def split_signature(module: Module) -> Module:
    """The module as it was before it was signed, less its tracing, and what makes it again what was signed."""
    body = module.data.removesuffix(SIGNED)
    if body == module.data:
        return module
    length = _TRAILER.unpack(body[-_TRAILER.size:])[0] if len(body) >= _TRAILER.size else len(body)
    if length + _TRAILER.size > len(body):
        raise BuildError(f"module {module.name} has a signature of {length} bytes, more than the file",
                         "remove the kernel package from the cache and build again: it is damaged")
    size = len(body) - _TRAILER.size - length
    try:
        data, signed_bytes = untrace(module.data[:size])
    except Exception as wrong:  # as in read_module
        raise _damaged(module.name, wrong) from wrong
    return replace(module, data=data, signature=module.data[size:], signed_bytes=signed_bytes)


def canonical(name: str) -> str:
    return name.replace("-", "_")


def soft_names(module: Module) -> tuple[str, ...]:
    """What a module would like to have loaded before or after it. Names of algorithms are among them, and no files."""
    return tuple(canonical(word) for line in module.softdeps for word in line.split() if not word.endswith(":"))


def modules_softdep(modules: Sequence[Module]) -> bytes:
    """modules.softdep, as depmod makes it of the modules."""
    return "".join(f"softdep {module.name} {line}\n" for module in modules for line in module.softdeps).encode()


def read_extra_modules(folder: Path) -> tuple[Module, ...]:
    """Modules built outside the kernel's tree; they lie where the kernel's loader looks first."""
    return tuple(read_module(path, f"updates/{path.name}") for path in sorted(folder.glob("*.ko")))


def modules_dep(modules: Sequence[Module]) -> bytes:
    """modules.dep(5): every module with all it needs, in depmod's order."""
    by_name = {module.name: module for module in modules}
    lines = [f"{module.path}: {' '.join(by_name[name].path for name in _closure(module, by_name))}".rstrip()
             for module in modules]
    return "".join(line + "\n" for line in lines).encode()


def _closure(module: Module, by_name: Mapping[str, Module]) -> list[str]:
    """Dependents before what they depend on: a loader that walks the line backwards always has the next one's needs.

    Modules that need each other are there once each, and the kernel refuses them.
    """
    ordered, seen = list[str](), {module.name}
    way = [(module.name, iter(module.depends))]
    while way:
        name, depends = way[-1]
        deeper = next((one for one in depends if one in by_name and one not in seen), None)
        if deeper is None:
            ordered.append(name)
            way.pop()
        else:
            seen.add(deeper)
            way.append((deeper, iter(by_name[deeper].depends)))
    return ordered[-2::-1]


def read_config(root: Path) -> dict[str, str]:
    text = (root / "boot" / f"config-{find_release(root)}").read_text(encoding="utf-8", errors="replace")
    pairs = (line.split("=", 1) for line in text.splitlines() if line.startswith("CONFIG_") and "=" in line)
    return {pair[0]: pair[1].strip('"') for pair in pairs}


def write_modules(modules: Sequence[Module], root: Path, folder: Path, serves: Sequence[str] | None = None) -> None:
    """The module tree of an image: the files, modules.dep and modules.softdep, the kernel's own lists of what is built
    in, and the needs that the init shall load them for.
    """
    for module in modules:
        path = folder / module.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(module.data)
        for ending, beside in ((SIGNATURE, module.signature), (SIGNED_BYTES, module.signed_bytes)):
            if beside:
                path.with_name(path.name + ending).write_bytes(beside)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "modules.dep").write_bytes(modules_dep(modules))
    if soft := modules_softdep(modules):
        (folder / "modules.softdep").write_bytes(soft)
    if serves is not None:
        (folder / SERVES).write_text("".join(f"{name}\n" for name in serves), encoding="utf-8")
    source = root / "usr/lib/modules" / find_release(root)
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        (folder / name).write_bytes((source / name).read_bytes())
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
