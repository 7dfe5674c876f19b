# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E402  (a script: it sets its own import path)
"""How long the hooks of one container take, as processes, the way a runtime starts them.

    python tests/bench/bench_hooks.py [--initrd FILE | --program FILE] [--reference FILE] [--rounds N] [--json]

--initrd measures the frozen program of a guest image, in a chroot of the unpacked image, as a guest runs it; --program
another guest-cdi; without either the hooks run from these sources with the present interpreter (-I -S). --reference is
an nvidia-cdi-hook for a column of its own. Needs root, because update-ldcache makes namespaces. Works in temporary
directories and mount namespaces only. With --json: {"program", "rounds", "rows": [{"name", "median_ms", "best_ms",
"cpu_ms", "budget_ms", "reference_ms"}]}, null where there is no figure.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import resource  # noqa: F401  (os.wait4 would look for it in the image)
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import NamedTuple

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, TOP)

from guest_cdi.lean import libc, linux

FROM_SOURCES = (sys.executable, "-I", "-S", "-c",
                "import sys; sys.path.insert(0, sys.argv.pop(1)); sys.argv.pop(1); "
                "from guest_cdi.hooks.main import run_and_exit; run_and_exit(sys.argv[1:])", TOP, "hook")
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
ALL_HOOKS = "all five in one start (run)"
FIVE_STARTS = "all five, a start each"
START_ONLY = "the start alone (--help)"
# To reach, by the frozen program: each hook, and all hooks of one container.
BUDGETS_MS = {**{hook[0]: 60.0 for hook in HOOKS}, ALL_HOOKS: 120.0}
LDCONFIG = "sbin/ldconfig"


class Means(NamedTuple):
    """What is opened before the root changes: where output goes, and a real library to copy."""

    discard: int
    library: bytes


def open_means() -> Means:
    with open("/proc/self/maps", encoding="utf-8") as stream:
        path = next(line.split()[-1] for line in stream if "libc.so" in line or "libc-" in line)
    with open(path, "rb") as library:
        return Means(os.open(os.devnull, os.O_WRONLY), library.read())


def make_root(top: str, library: bytes) -> str:
    """A container with a driver's worth of libraries: copies of a real one under other names."""
    root = os.path.join(top, "c")
    with open(os.path.join(top, "config.json"), "w", encoding="utf-8") as stream:
        json.dump({"ociVersion": "1.0.2", "root": {"path": "c"}}, stream)
    for name in ("etc", "proc", "dev", LIBRARIES.lstrip("/")):
        os.makedirs(os.path.join(root, name))
    for number in range(LIBRARY_COUNT):
        with open(f"{root}{LIBRARIES}/libnv{number}.so.595.1", "wb") as stream:
            stream.write(library)
    return root


class Times(NamedTuple):
    """Milliseconds: wall clock, and processor time of the hook with all that it started."""

    wall: float
    cpu: float


class Program(NamedTuple):
    """What is measured: its words before a hook's name, and whether it knows several hooks in one start."""

    words: Sequence[str]
    is_ours: bool = True


class Row(NamedTuple):
    name: str
    median_ms: float
    best_ms: float
    cpu_ms: float
    budget_ms: float | None = None
    reference_ms: float | None = None


def run(command: Sequence[str], root: str, discard: int) -> Times:
    start = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=discard, env={"NVIDIA_CTK_DEBUG": "false"})
    assert process.stdin is not None
    process.stdin.write(json.dumps({"ociVersion": "1.0.2", "bundle": os.path.dirname(root)}).encode())
    process.stdin.close()
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Times(wall * 1000, (used.ru_utime + used.ru_stime) * 1000)


def _judging(program: Program) -> contextlib.AbstractContextManager[None]:
    """A hook of ours that fails is no figure; another maker's may want more than this container root offers."""
    return contextlib.nullcontext() if program.is_ours else contextlib.suppress(subprocess.CalledProcessError)


def measure(program: Program, rounds: int, means: Means) -> list[Row]:
    cases = {hook[0]: list(hook) for hook in HOOKS}
    if program.is_ours:
        cases[ALL_HOOKS] = ["run", *[word for hook in HOOKS for word in ("--", *hook)][1:]]
    cases[START_ONLY] = ["--help"]
    times: dict[str, list[Times]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, argv in cases.items():
            with tempfile.TemporaryDirectory(dir="/tmp") as top, _judging(program):
                times[name].append(run([*program.words, *argv], make_root(top, means.library), means.discard))
    rows = [Row(name, statistics.median(one.wall for one in values), min(one.wall for one in values),
                statistics.median(one.cpu for one in values), BUDGETS_MS.get(name)) for name, values in times.items() if values]
    each = [row for row in rows if row.name in {hook[0] for hook in HOOKS}]
    if len(each) < len(HOOKS):
        return rows
    return [*rows, Row(FIVE_STARTS, *(sum(column) for column in zip(*(row[1:4] for row in each), strict=True)))]


def measure_image(initrd: str, rounds: int) -> list[Row]:
    """In a child, because it changes root for good; what it mounts ends with its mount namespace."""
    with tempfile.TemporaryDirectory() as image:
        subprocess.run(f"zstd -dcq {shlex.quote(os.path.abspath(initrd))} | cpio -idm --quiet", shell=True, cwd=image, check=True)
        if not os.path.exists(os.path.join(image, LDCONFIG)):
            shutil.copy(f"/{LDCONFIG}", os.path.join(image, LDCONFIG))
        ours, theirs = multiprocessing.get_context("fork").Pipe(duplex=False)
        child = os.fork()
        if child == 0:
            try:
                theirs.send(_measure_inside(image, rounds))
                os._exit(0)
            except BaseException as err:
                theirs.send(err)
                os._exit(1)
        theirs.close()
        found = ours.recv()
        os.waitpid(child, 0)
    if isinstance(found, BaseException):
        raise found
    return [Row(*row) for row in found]


def _measure_inside(image: str, rounds: int) -> list[Row]:
    means = open_means()
    linux.unshare(libc.CLONE_NEWNS)
    linux.make_private("/")
    for words in (["--bind", image, image], ["-t", "proc", "proc", f"{image}/proc"], ["-t", "tmpfs", "dev", f"{image}/dev"],
                  ["-t", "tmpfs", "tmp", f"{image}/tmp"]):
        subprocess.run(["mount", *words], check=True)
    os.mknod(f"{image}/dev/null", 0o020666, os.makedev(1, 3))
    os.chdir(image)
    linux.pivot_root(".", ".")
    linux.detach_mount(".")
    os.chdir("/")
    return measure(Program(("/usr/bin/guest-cdi", "hook")), rounds, means)


def with_reference(rows: Sequence[Row], reference: Sequence[Row]) -> list[Row]:
    theirs = {row.name: row.median_ms for row in reference}
    return [row._replace(reference_ms=theirs.get(row.name)) for row in rows]


def show(rows: Sequence[Row], title: str) -> str:
    def cell(value: float | None) -> str:
        return f"{value:10.1f}" if value is not None else f"{'-':>10}"

    lines = [title, f"{'ms':36}    median      best       cpu    at most reference"]
    return "\n".join(lines + [f"{row.name:36}" + "".join(map(cell, row[1:])) for row in rows]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="times of the createContainer hooks")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--initrd", help="an image of ours, compressed with zstd, e.g. out/images/lab/initrd")
    what.add_argument("--program", help="another guest-cdi")
    parser.add_argument("--reference", help="an nvidia-cdi-hook to compare with")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    means = open_means()
    if options.initrd:
        rows = measure_image(options.initrd, options.rounds)
    else:
        rows = measure(Program((options.program, "hook") if options.program else FROM_SOURCES), options.rounds, means)
    if options.reference:
        rows = with_reference(rows, measure(Program((options.reference,), is_ours=False), options.rounds, means))
    program = options.initrd or options.program or "sources"
    if options.json:
        found = {"program": program, "rounds": options.rounds, "rows": [row._asdict() for row in rows]}
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
    else:
        sys.stdout.write(show(rows, f"hooks of {program}, {options.rounds} rounds"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
