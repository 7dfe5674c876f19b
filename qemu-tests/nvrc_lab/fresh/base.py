# SPDX-License-Identifier: Apache-2.0
"""The root as mmdebstrap leaves it, packed and kept below out/ for a week, so that a second run starts in seconds.

Keyed by everything it was made from. A base is there whole or not at all.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from nvrc_lab.fresh import sources
from nvrc_lab.fresh.carried import PATH
from nvrc_lab.fresh.cell import cell_argv
from nvrc_lab.ground.errors import LabError

DEFAULT_SUITE = "bookworm"
KEYRINGS = "usr/share/keyrings"
_CARRIES_KEYRINGS = "trixie"  # a Debian whose package has the other distribution's keys, signed by Debian
INCLUDED = ("apt", "python3", "git", "ca-certificates")
MOST_AGE_S = 7 * 86400.0
_ROUND = "1"  # another number makes every base anew


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All that decides what a base is: suite, files of apt sources by name, apt's settings, packages to begin with."""

    suite: str
    sources: Mapping[str, str]
    settings: str
    included: tuple[str, ...] = INCLUDED

    @property
    def key(self) -> str:
        files = (word for pair in sorted(self.sources.items()) for word in pair)
        words = "\0".join((_ROUND, self.suite, *self.included, self.settings, *files))
        return hashlib.sha256(words.encode()).hexdigest()[:16]


def read_recipe(suite: str, machine: Path = Path("/")) -> Recipe:
    return Recipe(suite=suite, sources=sources.collect(machine, suite),
                  settings=sources.pick_settings(_read_apt_settings()))


def find_base(recipe: Recipe, folder: Path, *, work: Path, environment: Mapping[str, str]) -> Path:
    """The packed root, made now if there is none or it is old. Call it under a lock."""
    made = folder / f"{recipe.suite}-{recipe.key}.tar"
    if is_young(made, time.time()):
        return made
    partial = work / made.name
    _bootstrap(recipe, partial, environment)
    for old in folder.glob(f"{recipe.suite}-*.tar"):
        old.unlink()
    return partial.rename(made)


def is_young(path: Path, now_s: float) -> bool:
    return path.is_file() and now_s - path.stat().st_mtime < MOST_AGE_S


def unpack_base(base: Path, root: Path) -> None:
    root.mkdir()
    argv = ["tar", "--extract", "--preserve-permissions", "--numeric-owner", f"--file={base}", f"--directory={root}"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"{base} cannot be unpacked ({_last_line(done.stderr)})",
                       "remove it, free space, and repeat the command")


def _read_apt_settings() -> str:
    if shutil.which("apt-config") is None:
        return ""
    return subprocess.run(["apt-config", "dump"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=False).stdout


def bootstrap_argv(program: str, recipe: Recipe, target: Path, *words: str) -> list[str]:
    """Sources and settings go by file, beside the target: a command line is for everybody to read."""
    for name, text in {**recipe.sources, "apt.conf": recipe.settings}.items():
        (target.parent / name).write_text(text, encoding="utf-8")
    components = ",".join(sources.SUITES[recipe.suite].components)
    return [program, *words, f"--components={components}", f"--include={','.join(recipe.included)}",
            f"--aptopt={target.parent / 'apt.conf'}", recipe.suite, str(target),
            *(str(target.parent / name) for name in recipe.sources)]


def _bootstrap(recipe: Recipe, target: Path, environment: Mapping[str, str]) -> None:
    whose, work = sources.SUITES[recipe.suite], target.parent
    words = ["--variant=minbase"]
    if not Path("/", KEYRINGS, whose.keyring).is_file():
        words.append(f"--keyring={_find_keyring(whose, work, environment)}")
    print(f"fresh: making a minimal {whose.name} {recipe.suite}, once a week: a minute or two", flush=True)
    started = time.monotonic()
    _mmdebstrap(recipe, target, words, environment)
    print(f"fresh: {whose.name} {recipe.suite} made in {time.monotonic() - started:.0f} s", flush=True)


def _find_keyring(whose: sources.Distribution, work: Path, environment: Mapping[str, str]) -> Path:
    """Of a package that is unpacked alone, so nothing of it is installed on this machine."""
    folder = work / "keyring"
    folder.mkdir()
    recipe = dataclasses.replace(read_recipe(_CARRIES_KEYRINGS), included=(f"{whose.id}-keyring",))
    _mmdebstrap(recipe, folder / "keyring.tar", ["--variant=extract"], environment)
    unpack_base(folder / "keyring.tar", folder / "root")
    return folder / "root" / KEYRINGS / whose.keyring


def _mmdebstrap(recipe: Recipe, target: Path, words: Sequence[str], environment: Mapping[str, str]) -> None:
    """In a cell: killed half-way it leaves no apt running and nothing mounted."""
    program = shutil.which("mmdebstrap")
    if program is None:
        raise LabError("mmdebstrap is not installed", "install the package mmdebstrap")
    suite, work = recipe.suite, target.parent
    argv = bootstrap_argv(program, recipe, target, *words)
    with (work.parent / f"{suite}.log").open("w+", encoding="utf-8", errors="replace") as log:
        status = subprocess.run(cell_argv("", argv, cwd="/"), env={**environment, "PATH": PATH, "TMPDIR": str(work)},
                                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, check=False)
        log.seek(0)
        said = log.read()
    if status.returncode != 0:
        print("".join(f"  | {line}\n" for line in said.splitlines()[-12:]), end="", file=sys.stderr)
        raise LabError(f"mmdebstrap could not make a {suite} (status {status.returncode}; log: {log.name})",
                       "check that the archive of this machine's apt, or mmdebstrap's own for another distribution, "
                       "can be reached and has this suite")


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]
