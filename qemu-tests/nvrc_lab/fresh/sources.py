# SPDX-License-Identifier: Apache-2.0
"""Where a fresh root gets packages from: this machine's own apt sources, for the suite that is asked for.

Both forms of sources.list(5). What belongs to others (a vendor's repository) is left out. A suite of another
distribution than this machine's comes from where mmdebstrap looks by itself. Names no host, and neither does any
command line: the text goes to mmdebstrap as a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """Whose a suite is; what ./dev installs is in `components`, and `parts` are the suites beside the suite."""

    name: str
    parts: tuple[str, ...]
    components: tuple[str, ...]
    keyring: str

    @property
    def id(self) -> str:
        """As os-release(5) has it."""
        return self.name.lower()


DEBIAN = Distribution(name="Debian", parts=("", "-updates", "-security"), components=("main",),
                      keyring="debian-archive-keyring.gpg")
UBUNTU = Distribution(name="Ubuntu", parts=("", "-updates", "-security", "-backports"), components=("main", "universe"),
                      keyring="ubuntu-archive-keyring.gpg")
SUITES: Mapping[str, Distribution] = {"bookworm": DEBIAN, "trixie": DEBIAN, "noble": UBUNTU}
# Settings of apt that are about reaching the archive, not about this machine's taste.
_SETTINGS = re.compile(r'Acquire::(https?::|Check-|Retries|ForceIPv|Max-FutureTime)[^\s]* ".*";')
_CODENAME = re.compile(r"^VERSION_CODENAME=\"?([a-z]+)", re.MULTILINE)


def read_codename(os_release: str, whose: Distribution) -> str:
    """The suite that this machine runs, if it is one of `whose`; of another's archive nothing can be taken."""
    found = _CODENAME.search(os_release)
    return found[1] if found and re.search(rf"^ID=\"?{whose.id}\"?$", os_release, re.MULTILINE) else ""


def translate(text: str, codename: str, suite: str, *, deb822: bool) -> str:
    """One file of sources as it would be for `suite`; empty when nothing in it is the distribution's own."""
    whose = SUITES[suite]
    rows = _stanzas(text) if deb822 else (f"{line}\n" for line in text.splitlines())
    kept = [row for row in rows if (_is_own_stanza if deb822 else _is_own_line)(row, codename, whose)]
    suites = re.compile(rf"(?<![\w/.:-]){codename}((?:{'|'.join(whose.parts[1:])})?)(?![\w/.:-])")
    return ("\n" if deb822 else "").join(suites.sub(rf"{suite}\1", row) for row in kept)


def _stanzas(text: str) -> Iterator[str]:
    """Without comments, which may stand inside a stanza."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for stanza in re.split(r"\n\s*\n", "\n".join(lines)):
        if stanza.strip():
            yield f"{stanza.strip()}\n"


def _is_own_stanza(stanza: str, codename: str, whose: Distribution) -> bool:
    fields = {name.lower(): " ".join(value.split())
              for name, value in re.findall(r"^([\w-]+):((?:.*)(?:\n[ \t].*)*)", stanza, re.MULTILINE)}
    is_on = fields.get("enabled", "yes").lower() not in ("no", "false", "0")
    return (is_on and "deb" in fields.get("types", "").split()
            and _is_own(fields.get("suites", ""), fields.get("components", ""), fields.get("signed-by", ""),
                         codename, whose))


def _is_own_line(line: str, codename: str, whose: Distribution) -> bool:
    found = re.match(r"deb\s+(?:\[([^\]]*)\]\s+)?\S+\s+(\S+)\s+([^#]*)", line)
    if found is None:
        return False
    signed = re.search(r"signed-by=(\S+)", found[1] or "")
    return _is_own(found[2], found[3], signed[1] if signed else "", codename, whose)


def _is_own(suites: str, components: str, signed_by: str, codename: str, whose: Distribution) -> bool:
    own = {f"{codename}{part}" for part in whose.parts}
    known = {"main", *whose.components}
    return (bool(suites) and set(suites.split()) <= own and not known.isdisjoint(components.split())
            and (not signed_by or whose.keyring.removesuffix("-keyring.gpg") in signed_by))


def collect(machine: Path, suite: str) -> dict[str, str]:
    """Files of sources by name, for `suite`; none on another distribution, where mmdebstrap's default serves."""
    release = machine / "etc/os-release"
    codename = read_codename(release.read_text(encoding="utf-8") if release.is_file() else "", SUITES[suite])
    folder, found = machine / "etc/apt", {}
    paths = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    for path in paths if codename else ():
        if path.is_file() and path.suffix in (".list", ".sources"):
            text = path.read_text(encoding="utf-8", errors="replace")
            own = translate(text, codename, suite, deb822=path.suffix == ".sources")
            if own:
                found[path.name] = own
    return found


def pick_settings(dump: str) -> str:
    """Of what `apt-config dump` prints, the lines that a fresh root needs to reach the archive in the same way."""
    return "".join(f"{line}\n" for line in dump.splitlines() if _SETTINGS.fullmatch(line))
