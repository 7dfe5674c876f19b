# SPDX-License-Identifier: Apache-2.0
"""A guest with a module tree: files with a vermagic, and a kernel whose /sys/module follows what is loaded."""

from __future__ import annotations

from fakes.system import FakeSystem, bare_guest

RELEASE = "6.12.1-nvidia-gpu"
TREE = f"/lib/modules/{RELEASE}"


def module_guest(root: str) -> FakeSystem:
    system = bare_guest(root)
    system.put("/proc/sys/kernel/osrelease", f"{RELEASE}\n")
    return system


def add_module(system: FakeSystem, path: str, *needs: str, release: str = RELEASE, tree: str = TREE,
               content: bytes | None = None) -> str:
    """A module file and its line in modules.dep; loading it makes it live. Returns where it lies."""
    index = system.text(f"{tree}/modules.dep") if system.exists(f"{tree}/modules.dep") else ""
    system.put(f"{tree}/modules.dep", f"{index}{path}: {' '.join(needs)}\n")
    where = f"{tree}/{path}"
    system.put(where, content if content is not None else image(release))
    name = path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")
    system.on_load[where] = lambda: system.put(f"/sys/module/{name}/initstate", "live\n")
    return where


def image(release: str = RELEASE) -> bytes:
    return b"\x7fELF" + bytes(60) + b"\0license=GPL\0vermagic=%s SMP mod_unload \0name=x\0" % release.encode()


def loads(system: FakeSystem) -> list[str]:
    """The modules that were loaded, in order, with their options."""
    return [effect.removeprefix("load ").rpartition("/")[2] for effect in system.effects if effect.startswith("load ")]
