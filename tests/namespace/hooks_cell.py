# SPDX-License-Identifier: Apache-2.0
"""A process in namespaces of its own for one piece of a test, and small container roots to use in it.

What goes wrong in the cell is raised here with its traceback; mounts end with the cell. When the tests are measured,
the cell measures itself in memory and hands the figures over, because after a change of root it has no file to write.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from guest_cdi.hooks import main as hooks
from guest_cdi.lean import libc, linux

CELL_NAMESPACES = libc.CLONE_NEWNS | linux.CLONE_NEWUTS | linux.CLONE_NEWIPC
TOP = str(Path(hooks.__file__).parents[2])
SOURCES = Path(__file__).parent / "programs"
RUN_MAIN = "import sys; sys.path.insert(0, sys.argv.pop(1)); " \
           "from guest_cdi.hooks.main import run_and_exit; run_and_exit(sys.argv[1:])"
HOOK_COMMAND = (sys.executable, "-I", "-S", "-c", RUN_MAIN, TOP)


def in_cell(body: Callable[[], object], *, keep_network: bool = False) -> None:
    """Run body in a child with its own mount, UTS and IPC namespaces, and network namespace unless that is kept."""
    measured = _is_measured()
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        _cell(body, writer, CELL_NAMESPACES | (0 if keep_network else linux.CLONE_NEWNET), measured=measured)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        kind, _, rest = stream.read().partition(b"\n")
        os.waitpid(child, 0)
    if measured:
        size = int(kind.split()[1])
        _keep_figures(rest[len(rest) - size:])
        rest = rest[:len(rest) - size]
    if not kind.startswith(b"done"):
        pytest.fail(f"in the cell: {rest.decode(errors='replace')}", pytrace=False)


def _cell(body: Callable[[], object], writer: int, namespaces: int, *, measured: bool) -> None:
    measure = _Measure() if measured else None
    outcome, text = b"done", b""
    try:
        linux.unshare(namespaces)
        linux.make_private("/")
        body()
    except BaseException:
        outcome, text = b"failed", traceback.format_exc().encode(errors="replace")
    figures = measure.figures() if measure else b""
    with os.fdopen(writer, "wb") as stream:
        stream.write(outcome + b" %d\n" % len(figures) + text + figures)
    os._exit(0)


def _is_measured() -> bool:
    coverage = sys.modules.get("coverage")
    return coverage is not None and coverage.Coverage.current() is not None


class _Measure:
    def __init__(self) -> None:
        import sqlite3.dump  # noqa: F401
        import zlib  # noqa: F401

        import coverage

        current = coverage.Coverage.current()
        if current is not None:
            current.stop()
        self._coverage = coverage.Coverage(data_file=None, branch=True, source=["guest_cdi"], config_file=False)
        self._coverage.start()

    def figures(self) -> bytes:
        self._coverage.stop()
        return self._coverage.get_data().dumps()


def _keep_figures(figures: bytes) -> None:
    import coverage

    data = coverage.CoverageData(basename=os.path.join(TOP, ".coverage"), suffix=f"cell.{os.urandom(8).hex()}")
    data.loads(figures)
    data.write()


def build(source: str, target: Path, *flags: str) -> Path:
    """Compile one of our small C programs; without a compiler the test is passed over."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    subprocess.run([compiler, "-O1", "-o", str(target), str(SOURCES / source), *flags], check=True, capture_output=True)
    return target


def make_tree(top: Path, entries: Mapping[str, str | None]) -> Path:
    """None makes a directory, text a file."""
    tree = top / "c"
    tree.mkdir()
    for name, content in entries.items():
        place = tree / name
        if content is None:
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(content)
    return tree


def run_program(tree: Path, *argv: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Start the hooks as a runtime does: state on standard input, and the environment that the document gives."""
    return subprocess.run([*HOOK_COMMAND, *argv], input=json.dumps({"root": str(tree)}), text=True, timeout=60,
                          capture_output=True, check=False, env=dict(environment or {"NVIDIA_CTK_DEBUG": "false"}))


def mount_points() -> Sequence[str]:
    with open("/proc/self/mountinfo", encoding="utf-8") as stream:
        return [line.split()[4] for line in stream]
