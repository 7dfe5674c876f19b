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

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FROM_SOURCES = (sys.executable, "-I", "-S", "-c",
                "import sys; sys.path.insert(0, sys.argv.pop(1)); sys.argv.pop(1); from guest_cdi.hooks import main; "
                "sys.exit(main(sys.argv[1:], sys.stdin.buffer))", TOP)
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


def run_ms(command: Sequence[str], root: str) -> float:
    start = time.perf_counter()
    subprocess.run(command, input=json.dumps({"root": root}).encode(), check=True, stdout=subprocess.DEVNULL,
                   env={"NVIDIA_CTK_DEBUG": "false"})
    return (time.perf_counter() - start) * 1000


def measure(program: Sequence[str], rounds: int) -> dict[str, float]:
    cases = {hook[0]: list(hook) for hook in HOOKS}
    cases["run: all five in one start"] = ["run", *[word for hook in HOOKS for word in ("--", *hook)][1:]]
    cases["(start only: --help)"] = ["--help"]
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, argv in cases.items():
            with tempfile.TemporaryDirectory() as top:
                times[name].append(run_ms([*program, "hook", *argv], make_root(top)))
    medians = {name: statistics.median(values) for name, values in times.items()}
    medians["five starts, one after the other"] = sum(medians[hook[0]] for hook in HOOKS)
    return medians


def main() -> int:
    parser = argparse.ArgumentParser(description="times of the createContainer hooks")
    parser.add_argument("--program", help="a frozen guest-cdi")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    medians = measure((options.program,) if options.program else FROM_SOURCES, options.rounds)
    if options.json:
        sys.stdout.write(json.dumps(medians, indent=1) + "\n")
        return 0
    print(f"median of {options.rounds}, ms; budget {HOOK_BUDGET_MS} a hook, {SET_BUDGET_MS} the set")  # noqa: T201
    for name, value in medians.items():
        print(f"  {name:36} {value:7.1f}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
