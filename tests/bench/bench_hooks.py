# SPDX-License-Identifier: Apache-2.0
"""How long the hooks of one container take, as processes, the way a runtime starts them.

    python tests/bench/bench_hooks.py [--program FILE] [--rounds N] [--json]

Without --program the hooks run from these sources with the present interpreter (-I -S). Needs root,
because update-ldcache makes namespaces. Works on a container root in a temporary directory only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import NamedTuple

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FROM_SOURCES = (sys.executable, "-I", "-S", "-c",
                "import sys; sys.path.insert(0, sys.argv.pop(1)); sys.argv.pop(1); "
                "from guest_cdi.hooks import run_and_exit; run_and_exit(sys.argv[1:])", TOP)
LIBRARIES = "/opt/nvidia/lib"
LIBRARY_COUNT = 16
HOOKS = (
    ("create-symlinks", *(word for number in range(LIBRARY_COUNT)
                          for word in ("--link", f"libnv{number}.so.595.1::{LIBRARIES}/libnv{number}.so.1"))),
    ("enable-cuda-compat", "--host-driver-version=595.58.03"),
    ("update-ldcache", "--folder", LIBRARIES),
    ("disable-device-node-modification",),
    ("update-application-profile",),
)
HOOK_BUDGET_MS, SET_BUDGET_MS = 60, 120


def make_root(top: str) -> str:
    """A container with a driver's worth of libraries: copies of a real one under other names."""
    root = os.path.join(top, "c")
    for name in ("etc", "proc", "dev", LIBRARIES.lstrip("/")):
        os.makedirs(os.path.join(root, name))
    with open("/proc/self/maps", encoding="utf-8") as stream:
        libc = next(line.split()[-1] for line in stream if "libc.so" in line or "libc-" in line)
    for number in range(LIBRARY_COUNT):
        shutil.copy(libc, f"{root}{LIBRARIES}/libnv{number}.so.595.1")
    return root


class Times(NamedTuple):
    """Milliseconds: wall clock, and processor time of the hook with all that it started."""

    wall: float
    cpu: float


def run(command: Sequence[str], root: str) -> Times:
    start = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env={"NVIDIA_CTK_DEBUG": "false"})
    assert process.stdin is not None
    process.stdin.write(json.dumps({"root": root}).encode())
    process.stdin.close()
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Times(wall * 1000, (used.ru_utime + used.ru_stime) * 1000)


def measure(program: Sequence[str], rounds: int) -> dict[str, dict[str, float]]:
    cases = {hook[0]: list(hook) for hook in HOOKS}
    cases["run: all five in one start"] = ["run", *[word for hook in HOOKS for word in ("--", *hook)][1:]]
    cases["(start only: --help)"] = ["--help"]
    times: dict[str, list[Times]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, argv in cases.items():
            with tempfile.TemporaryDirectory() as top:
                times[name].append(run([*program, "hook", *argv], make_root(top)))
    figures = {name: {"median": statistics.median(one.wall for one in values), "best": min(one.wall for one in values),
                      "cpu": statistics.median(one.cpu for one in values)} for name, values in times.items()}
    figures["five starts, one after the other"] = {
        column: sum(figures[hook[0]][column] for hook in HOOKS) for column in ("median", "best", "cpu")}
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description="times of the createContainer hooks")
    parser.add_argument("--program", help="a frozen guest-cdi")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = measure((options.program,) if options.program else FROM_SOURCES, options.rounds)
    if options.json:
        sys.stdout.write(json.dumps(figures, indent=1) + "\n")
        return 0
    lines = [f"{options.rounds} rounds, ms; budget {HOOK_BUDGET_MS} a hook, {SET_BUDGET_MS} the set",
             f"{'':36}  median    best     cpu"]
    lines += [f"{name:36} {row['median']:7.1f} {row['best']:7.1f} {row['cpu']:7.1f}" for name, row in figures.items()]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
