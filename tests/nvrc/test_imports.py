# SPDX-License-Identifier: Apache-2.0
"""What PID 1 and its worker load on the way to the agent, and PID 1 for the life of the VM: every boot pays for each module.

tests/qemu/boot_imports.txt holds what a boot without GPUs loads in a real guest; here is what must never come along, on
any machine. A module that is only for a kind of machine or for mistakes may bring more: it is not listed here.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import nvrc
from fakes.sources import tracked
from tests.test_architecture import imports_of

HEAVY = frozenset({"argparse", "collections", "copy", "ctypes.util", "dataclasses", "enum", "functools", "inspect", "json", "logging",
                   "pathlib", "random", "re", "selectors", "shutil", "signal", "socket", "subprocess", "tempfile", "threading",
                   "typing", "weakref", "yaml"})
BEFORE_THE_AGENT = ("pid1.main", "nvml.worker", "nvml.client", "hardware.device_nodes", "hardware.modules", "hardware.needs", "services.persistence",
                    "services.ledger", "services.launch", "services.signatures", "services.table", "machine.uevents", "nvml.count",
                    "nvml.answers", "steps.fabric", "services.fabric_config", "extensions.verity", "extensions.dm",
                    "extensions.disks", "vocabulary.jsontext", "nvml.judge", "hardware.topology")
AFTER_THE_AGENT = ("pid1.life", "pid1.health", "pid1.pressure", "pid1.daemons", "pid1.fabric_watch", "pid1.lease", "pid1.beside",
                   "report.publish", "machine.control", "machine.window")
IN_THE_WORKER = ("nvml.requests", "nvml.session", "nvml.cdi")
IN_HOOKS = ("guest_cdi.hooks.main", "guest_cdi.hooks.state", "guest_cdi.hooks.symlinks", "guest_cdi.hooks.ldcache", "guest_cdi.generate",
            "guest_cdi.render", "guest_cdi.discover.libraries")


@pytest.mark.parametrize("names", [
    pytest.param(tuple(f"nvrc.{name}" for name in BEFORE_THE_AGENT), id="pid1"),
    pytest.param(tuple(f"nvrc.{name}" for name in AFTER_THE_AGENT), id="life"),
    pytest.param(tuple(f"nvrc.{name}" for name in IN_THE_WORKER), id="worker"),
    pytest.param(IN_HOOKS, id="hooks-and-cdi"),
])
@pytest.mark.long
def test_nothing_heavy_is_loaded(names: tuple[str, ...]) -> None:
    root = Path(nvrc.__file__).parents[1]
    code = f"import sys; sys.path.insert(0, {str(root)!r}); import {', '.join(names)}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert HEAVY & set(loaded.stdout.split()) == set()


AT_THE_END = frozenset({"nvrc.pid1.ending", "nvrc.pid1.farewell", "nvrc.pid1.termination", "nvrc.pid1.closing"})


def test_what_the_end_needs_is_loaded_at_the_end() -> None:
    root = Path(nvrc.__file__).parents[1]
    code = f"import sys; sys.path.insert(0, {str(root)!r}); import nvrc.pid1.main, nvrc.pid1.life; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert AT_THE_END & set(loaded.stdout.split()) == set()
# What runs in the worker, which makes the CDI document, the dispatch of commands, and the page about them.
MAY_GENERATE = ("nvrc/nvml/", "nvrc/beside/", "nvrc/__main__.py", "nvrc/pages/manual.py")


@pytest.mark.long
def test_pid1_takes_nothing_of_guest_cdi_but_its_ground_floor() -> None:
    root = Path(nvrc.__file__).parents[1]
    modules = (root / "tests/qemu/boot_imports.txt").read_text().split()
    assert {name for name in modules if name.startswith("guest_cdi") and not name.startswith("guest_cdi.lean")} == {"guest_cdi"}
    arrows = [arrow for file in tracked("nvrc/*.py") if not file.startswith(MAY_GENERATE)
              for arrow in imports_of(file) if arrow.name.startswith("guest_cdi")]
    assert arrows
    assert [str(arrow) for arrow in arrows if not arrow.name.startswith("guest_cdi.lean.")] == []
