# SPDX-License-Identifier: Apache-2.0
"""Confidential guest components as Kata's build leaves them, laid out as the monolithic image has them, and checked.

Kata's archive has two attesters: `attestation-agent-nv`, linked against NVIDIA's libnvat, takes the other's name, as in
Kata's own image. Libraries lie in /usr/local/lib, where a loader without a cache does not look; they go where it does.
What they are linked to is the assembler's business. Pause bundle and key providers are first read when a pod starts,
which is late to find them broken. OCI runtime specification, config.md; ocicrypt-rs, config.
"""

from __future__ import annotations

import json
from pathlib import Path

from nvrc_build.ground.errors import BuildError

PROGRAMS, LIBRARIES, LOADED_FROM = "usr/local/bin", "usr/local/lib", "usr/lib/x86_64-linux-gnu"
BUNDLE, KEY_PROVIDERS = "pause_bundle", "etc/ocicrypt_config.json"
_WAYS = ("cmd", "grpc", "ttrpc", "native")


def arrange(folder: Path) -> None:
    """Kata's names and places become those of the image."""
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
            found = (folder / BUNDLE / root / program.lstrip("/")).is_file()
            findings = () if found else (f"{name} starts {program}, which /{BUNDLE}/{root} does not have",)
            return findings if cwd.startswith("/") else (*findings, f"{name}: process.cwd {cwd!r} is not absolute")
        case None:
            return (f"{name} is missing or no JSON",)
    return (f"{name} is not an OCI configuration: it needs ociVersion, process.args, process.cwd and root.path",)


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
        found: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found
