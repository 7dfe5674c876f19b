# SPDX-License-Identifier: Apache-2.0
"""`./dev fuzz`: every parser of tests/fuzz/parsers.py under a coverage-guided fuzzer, several beside one another.

atheris is installed below out/fuzz when it is first needed, from a lock with hashes; where it cannot be, inputs are
mutated in Python with the lines they reach as feedback. tests/fuzz/drive.py runs one parser in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from nvrc_lab.ground.locked import install_locked
from nvrc_lab.ground.places import checkout

LOCK = "build/locks/fuzz.txt"
LEAST_S = 5
PAGE, HEAD = "docs/fuzzing.md", "| parser | executions | last |\n|---|---|---|\n"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="dev fuzz", description="Fuzz the parsers that eat foreign bytes.")
    parser.add_argument("parsers", metavar="PARSER", nargs="*", help="which (default: all; --list names them)")
    parser.add_argument("--minutes", type=float, default=10.0, help="for all of them together (%(default)s)")
    parser.add_argument("--list", action="store_true", help="what each parser reads, and who controls that")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at a time (%(default)s)")
    parser.add_argument("--count", action="store_true", help=f"add the executions to the table in {PAGE}")
    args = parser.parse_args(argv)
    root, out = checkout().root, checkout().out / "fuzz"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(root / "tests"), *install(root, out)))}
    rows = json.loads(_run([sys.executable, "-m", "fuzz.parsers"], root, env))
    if args.list:
        print("\n".join(f"{row['name']:<22} {row['reads']}; from: {row['who']}" for row in rows))
        return 0
    known = [str(row["name"]) for row in rows]
    names = args.parsers or known
    if unknown := [name for name in names if name not in known]:
        parser.error(f"unknown parser {unknown[0]}; --list names them")
    seconds = max(LEAST_S, round(args.minutes * 60 * args.jobs / len(names)))
    with ThreadPoolExecutor(args.jobs) as pool:
        done = list(pool.map(lambda name: fuzz(name, seconds, root, out, env), names))
    (out / "report.json").write_text(json.dumps(done, indent=1) + "\n", encoding="ascii")
    if args.count:
        page = root / PAGE
        today = datetime.now(tz=UTC).date().isoformat()
        page.write_text(add_executions(page.read_text(encoding="utf-8"), done, known, today), encoding="utf-8")
    return 1 if any(row["found"] for row in done) else 0


def install(root: Path, out: Path) -> list[str]:
    """The folder that atheris is in; none where it cannot be installed."""
    site = install_locked(root / LOCK, out, "--only-binary=:all:")
    if site is None:
        print("dev fuzz: atheris cannot be installed here; inputs are mutated without it", file=sys.stderr)
    return [] if site is None else [str(site)]


def fuzz(name: str, seconds: int, root: Path, out: Path, env: dict[str, str]) -> dict[str, object]:
    work = out / name
    argv = [sys.executable, "-m", "fuzz.drive", name, "--seconds", str(seconds), "--work", str(work)]
    row: dict[str, object] = json.loads(_run(argv, root, env))
    print(f"{name:<22} {row['executions']:>10} executions in {row['seconds']} s by {row['engine']}, "
          f"{row['kept']} inputs kept", flush=True)
    found = row["found"] if isinstance(row["found"], list) else []
    for path in found:
        print(f"  FOUND {path}\n  show it: PYTHONPATH=tests .venv/bin/python -m fuzz.drive {name} --input {path}",
              flush=True)
    return row


def add_executions(page: str, done: Sequence[Mapping[str, object]], known: Sequence[str], today: str) -> str:
    """The page with these executions added to those it tells already; parsers that are no more go."""
    before, _, after = page.partition(HEAD)
    lines = after.splitlines(keepends=True)
    rows = [line for line in lines if line.startswith("| `")]
    told = {name.strip(" `"): (int(count.replace(" ", "")), last.strip())
            for name, count, last in (line.strip("|\n ").split("|") for line in rows)}
    for row in done:
        name = str(row["parser"])
        told[name] = (told.get(name, (0, ""))[0] + int(str(row["executions"])), today)
    named = ((name, *told[name]) for name in known if name in told)
    table = [f"| `{name}` | {count:,} | {last} |\n".replace(",", " ") for name, count, last in named]
    return "".join((before, HEAD, *table, *lines[len(rows):]))


def _run(argv: Sequence[str], root: Path, env: dict[str, str]) -> str:
    return subprocess.run(argv, cwd=root, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                          check=False).stdout


if __name__ == "__main__":
    sys.exit(main())
