# SPDX-License-Identifier: Apache-2.0
"""Confidential guest components as Kata's build leaves them, laid out as the monolithic image has them, and checked.

Kata's archive has two attesters: `attestation-agent-nv`, linked against NVIDIA's libnvat, takes the other's name, as in
Kata's own image. Libraries lie in /usr/local/lib, where a loader without a cache does not look; they go where it does.
What they are linked to is the assembler's business. Pause bundle and key providers are first read when a pod starts,
which is late to find them broken. OCI runtime specification, config.md; ocicrypt-rs, config.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

from nvrc_build.ground.errors import BuildError

PROGRAMS, LIBRARIES, LOADED_FROM = "usr/local/bin", "usr/local/lib", "usr/lib/x86_64-linux-gnu"
BUNDLE, KEY_PROVIDERS = "pause_bundle", "etc/ocicrypt_config.json"
_WAYS = ("cmd", "grpc", "ttrpc", "native")
_MOST_BYTES = 1 << 20  # of a configuration


def arrange(folder: Path) -> None:
    """Kata's names and places become those of the image. A link in such a place would lead into this machine."""
    linked = tuple(f"/{place} is a link" for name in (PROGRAMS, LIBRARIES, LOADED_FROM, BUNDLE, KEY_PROVIDERS)
                   for place in (PurePosixPath(name), *PurePosixPath(name).parents) if (folder / place).is_symlink())
    if linked:
        raise BuildError("the confidential guest components have links where files and folders belong",
                         "give --components as Kata builds them", findings=tuple(dict.fromkeys(linked)))
    special = folder / PROGRAMS / "attestation-agent-nv"
    if special.is_file():
        special.replace(folder / PROGRAMS / "attestation-agent")
    for library in sorted((folder / LIBRARIES).glob("*.so*")):
        (folder / LOADED_FROM).mkdir(parents=True, exist_ok=True)
        library.rename(folder / LOADED_FROM / library.name)


def check(folder: Path) -> None:
    findings = (*_check_bundle(folder), *_check_key_providers(folder))
    if findings:
        raise BuildError("the confidential guest components are not as the agent needs them",
                         "give --components as Kata builds them; docs/images.md says from which archives",
                         findings=findings)


def _check_bundle(folder: Path) -> tuple[str, ...]:
    """The agent starts the first word of process.args from the bundle's root folder."""
    name = f"/{BUNDLE}/config.json"
    config = _read(folder / BUNDLE / "config.json")
    match config:
        case {"ociVersion": str(), "process": {"args": [str(program), *_], "cwd": str(cwd)},
              "root": {"path": str(root)}}:
            found = _is_inside(folder / BUNDLE, PurePosixPath(root, program.lstrip("/")))
            findings = () if found else (f"{name} starts {program}, which /{BUNDLE}/{root} does not have",)
            return findings if cwd.startswith("/") else (*findings, f"{name}: process.cwd {cwd!r} is not absolute")
        case None:
            return (f"{name} is missing or no JSON",)
    return (f"{name} is not an OCI configuration: it needs ociVersion, process.args, process.cwd and root.path",)


def _is_inside(folder: Path, name: PurePosixPath) -> bool:
    """A file of the bundle itself, through no link."""
    linked = any((folder / step).is_symlink() for step in (name, *name.parents))
    return ".." not in name.parts and (folder / name).is_file() and not linked


def _check_key_providers(folder: Path) -> tuple[str, ...]:
    name = f"/{KEY_PROVIDERS}"
    config = _read(folder / KEY_PROVIDERS)
    providers = config.get("key-providers") if isinstance(config, dict) else None
    if not isinstance(providers, dict) or not providers:
        return (f"{name} names no key-providers",)
    return tuple(f"{name}: key provider {provider!r} has none of {', '.join(_WAYS)}"
                 for provider, ways in providers.items()
                 if not isinstance(ways, dict) or not any(ways.get(way) for way in _WAYS))


def _read(path: Path) -> object:
    try:
        if path.is_symlink() or path.stat().st_size > _MOST_BYTES:
            return None
        found: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found
