# SPDX-License-Identifier: Apache-2.0
"""`./dev mutate [MODULE ...]`: would a test notice if a module that decides decided otherwise?

cosmic-ray makes the mutants (mutants.py, in a folder of its own below out/, from a hashed lock), trial.py runs the
tests on each, table.py names modules and tests. Every survivor is printed as the change that no test noticed.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import json
import os
import queue
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from nvrc_lab.ground.errors import LabError
from nvrc_lab.ground.locked import install_locked
from nvrc_lab.ground.places import Places, checkout
from nvrc_lab.mutation.shapes import Mutant
from nvrc_lab.mutation.table import BAR_PERCENT, ROWS, Row
from nvrc_lab.mutation.trial import Copy

LOCK = "build/locks/mutate.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    row: Row
    mutants: int
    survivors: tuple[Mutant, ...]

    @property
    def percent(self) -> float:
        return 100.0 * (self.mutants - len(self.survivors)) / self.mutants if self.mutants else 100.0

    def __str__(self) -> str:
        killed = self.mutants - len(self.survivors)
        return f"{self.row.name:<36} {killed:>4} of {self.mutants:>4} noticed, {self.percent:5.1f} %"


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dev mutate",
        description="Change a module that decides, one sign at a time, and see whether a test notices.",
        epilog=f"example: ./dev mutate nvrc.nvml.count. Exit status 1: a module is below {BAR_PERCENT:.0f} %.")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="a module of the table (default: all of them)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at once (default: processors)")
    parser.add_argument("--list", action="store_true", help="print the table of modules and their tests")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    try:
        rows = chosen(args.modules)
        if args.list:
            print("\n".join(f"{row.name:<36} {' '.join(row.tests)}" for row in rows))
            return 0
        return run(checkout(), rows, max(args.jobs, 1))
    except LabError as failed:
        print(f"dev mutate: {failed}", file=sys.stderr)
        return 2


def chosen(names: Sequence[str]) -> tuple[Row, ...]:
    known = {row.name: row for row in ROWS}
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            raise LabError(f"no module {name!r} in the table" + (f"; did you mean {close[0]!r}?" if close else ""),
                           "see ./dev mutate --list")
    return tuple(known[name] for name in names) or ROWS


def run(places: Places, rows: Sequence[Row], jobs: int) -> int:
    site = install(places)
    free: queue.SimpleQueue[Copy] = queue.SimpleQueue()
    low = 0
    with contextlib.ExitStack() as ending:
        for number in range(jobs):
            # By process: two runs side by side are of two modules.
            free.put(copy := Copy.of(places.root, places.out / "mutate" / f"copy-{os.getpid()}-{number}"))
            ending.callback(copy.close)
        for row in rows:
            figures = measure(places, site, row, free, jobs)
            print(figures, flush=True)
            original = (places.root / row.module).read_text(encoding="utf-8")
            for survivor in figures.survivors:
                print(changed(row, original, survivor), flush=True)
            low += figures.percent < BAR_PERCENT
    return int(low > 0)


def measure(places: Places, site: Path, row: Row, free: queue.SimpleQueue[Copy], jobs: int) -> Figures:
    mutants = mutants_of(places, site, row)
    copies = [free.get() for _ in range(jobs)]

    def notices(mutant: Mutant) -> bool:
        copy = free.get()
        try:
            return copy.notices(row.module, mutant.source, row.tests)
        finally:
            free.put(copy)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda copy: copy.begin(row.module, row.tests, apart=row.apart), copies))
        for copy in copies:
            free.put(copy)
        noticed = list(pool.map(notices, mutants))
    for copy in copies:
        copy.end_session()
    survivors = tuple(mutant for mutant, seen in zip(mutants, noticed, strict=True) if not seen)
    return Figures(row=row, mutants=len(mutants), survivors=survivors)


def mutants_of(places: Places, site: Path, row: Row) -> list[Mutant]:
    argv = [sys.executable, "-m", "nvrc_lab.mutation.mutants", str(places.root / row.module), *row.tables]
    path = os.pathsep.join((str(places.root / "qemu-tests"), str(site)))
    done = subprocess.run(argv, env={**os.environ, "PYTHONPATH": path}, check=False,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise LabError(f"no mutants of {row.module}: {done.stderr.strip()[-500:]}",
                       "remove out/mutate and repeat the command")
    return [Mutant(**mutant) for mutant in json.loads(done.stdout)]


def changed(row: Row, original: str, mutant: Mutant) -> str:
    lines = difflib.unified_diff(original.splitlines(), mutant.source.splitlines(), lineterm="", n=0)
    shown = [line for line in lines if line[:3] not in ("---", "+++") and line[:2] != "@@"]
    return "\n".join((f"  {row.module}:{mutant.line} {mutant.operator}", *(f"    {line}" for line in shown)))


def install(places: Places) -> Path:
    """The folder that cosmic-ray is in."""
    site = install_locked(places.root / LOCK, places.out / "mutate")
    if site is None:
        raise LabError("cosmic-ray cannot be installed", "check that the package index can be reached")
    return site


if __name__ == "__main__":
    sys.exit(main())
