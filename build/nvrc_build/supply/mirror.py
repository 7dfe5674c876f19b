# SPDX-License-Identifier: Apache-2.0
"""Which mirror to use: the one that this machine's own apt uses for its distribution, else mmdebstrap's default.

Reads both forms of apt sources (deb822 `.sources`, one-line `.list`); sources.list(5). Names no host. Changes nothing.
"""

from __future__ import annotations

import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path

from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.run import clean_env, find, run


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    uri: str
    suite: str
    components: tuple[str, ...]


def parse_deb822(text: str) -> tuple[Source, ...]:
    found: list[Source] = []
    for stanza in _stanzas(text):
        if "deb" not in stanza.get("types", "").split() or stanza.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        components = tuple(stanza.get("components", "").split())
        found += [Source(uri=uri.rstrip("/"), suite=suite, components=components)
                  for uri in stanza.get("uris", "").split() for suite in stanza.get("suites", "").split()]
    return tuple(found)


def _stanzas(text: str) -> list[dict[str, str]]:
    stanzas: list[dict[str, str]] = [{}]
    field = ""
    for line in text.splitlines():
        if not line.strip():
            stanzas.append({})
            field = ""
        elif line.startswith("#"):
            continue
        elif line[0] in " \t" and field:
            stanzas[-1][field] += " " + line.strip()
        elif ":" in line:
            name, value = line.split(":", 1)
            field = name.strip().lower()
            stanzas[-1][field] = value.strip()
    return [stanza for stanza in stanzas if stanza]


def parse_one_line(text: str) -> tuple[Source, ...]:
    found: list[Source] = []
    for line in text.splitlines():
        words = line.split("#", 1)[0].split()
        if not words or words[0] != "deb":
            continue
        rest = words[1:]
        if rest and rest[0].startswith("["):
            while rest and not rest[0].endswith("]"):
                rest = rest[1:]
            rest = rest[1:]
        if len(rest) >= 2:
            found.append(Source(uri=rest[0].rstrip("/"), suite=rest[1], components=tuple(rest[2:])))
    return tuple(found)


def read_sources(etc_apt: Path) -> tuple[Source, ...]:
    found: list[Source] = []
    one_line = [etc_apt / "sources.list", *sorted((etc_apt / "sources.list.d").glob("*.list"))]
    for path in one_line:
        if path.is_file():
            found += parse_one_line(path.read_text(encoding="utf-8", errors="replace"))
    for path in sorted((etc_apt / "sources.list.d").glob("*.sources")):
        found += parse_deb822(path.read_text(encoding="utf-8", errors="replace"))
    return tuple(found)


def read_os_release(path: Path) -> dict[str, str]:
    pairs = (line.split("=", 1) for line in path.read_text(encoding="utf-8").splitlines() if "=" in line)
    return {name: (shlex.split(value) or [""])[0] for name, value in pairs}


def host_mirror(distribution: str, root: Path = Path("/")) -> str | None:
    """The URI this machine uses for `distribution`'s main archive, or None when it runs another distribution."""
    os_release = root / "etc/os-release"
    release = read_os_release(os_release) if os_release.is_file() else {}
    if release.get("ID") != distribution:
        return None
    codename = release.get("VERSION_CODENAME", "")
    for source in read_sources(root / "etc/apt"):
        if source.suite == codename and "main" in source.components:
            return source.uri
    return None


def default_mirror(suite: str) -> str:
    """What mmdebstrap would use: it is asked for the sources.list it writes, and stopped before it fetches anything."""
    program = find("mmdebstrap", "mmdebstrap")
    with tempfile.TemporaryDirectory() as scratch:
        answer = Path(scratch) / "sources.list"
        hook = f'cat "$1"/etc/apt/sources.list >{shlex.quote(str(answer))}; exit 1'
        argv = [program, "--variant=custom", f"--setup-hook={hook}", suite, f"{scratch}/root"]
        try:
            run(argv, env=clean_env(network=True), timeout_s=60, what="mmdebstrap")
        except BuildError as stopped:
            if not answer.is_file():
                raise BuildError("mmdebstrap names no default mirror", "pass --mirror URI") from stopped
        for source in parse_one_line(answer.read_text(encoding="utf-8")):
            if source.suite == suite:
                return source.uri
    raise BuildError(f"mmdebstrap knows no mirror for {suite}", "pass --mirror URI")


def choose_mirror(distribution: str, suite: str, given: str | None = None) -> str:
    return given or host_mirror(distribution) or default_mirror(suite)
