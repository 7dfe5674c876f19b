# SPDX-License-Identifier: Apache-2.0
"""Machines without a GPU: the stand-in libnvidia-ml.so.1 with a description of one's own, and its call log.

`MockNvml(tmp_path, text)` is a folder with the library (a copy, so that the loader keeps machines apart), the
description and the log. `FakeNvml` answers from given values where no library is wanted at all.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from guest_cdi.gpu import Gpu

STANDIN = Path(__file__).resolve().parents[2] / "qemu-tests" / "standins" / "nvml"
NSCQ = "libnvidia-nscq.so.2"


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeNvml:
    version: str = "580.95.05"
    found: tuple[Gpu, ...] = ()

    def driver_version(self) -> str:
        return self.version

    def gpus(self) -> Sequence[Gpu]:
        return self.found


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One line of the log."""

    seconds: float
    pid: int
    name: str
    arguments: str
    outcome: str


def build_module() -> ModuleType:
    """The stand-in's build command as a module; it lies beside its sources, outside any package."""
    spec = importlib.util.spec_from_file_location("nvml_standin_build", STANDIN / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(directory: Path) -> Path:
    return Path(build_module().build(str(directory)))


def build_nscq(directory: Path) -> Path:
    """The library for NVSwitches, with the warnings of a compiler as errors."""
    made = directory / NSCQ
    subprocess.run(["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Wshadow", "-Werror", "-shared", "-fPIC",
                    "-fvisibility=hidden", f"-Wl,-soname,{NSCQ}", "-o", str(made),
                    str(STANDIN.parent / "nscq" / "nscq.c"), "-ldl"], check=True, timeout=120)
    return made


class MockNvml:
    """A described machine in a folder. `library` is what to open."""

    def __init__(self, built: Path, folder: Path, text: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.library = str(folder / "libnvidia-ml.so.1")
        shutil.copyfile(built, self.library)
        self.describe(text)

    def describe(self, text: str) -> None:
        """Change the machine, also under a process that has it open."""
        scratch = self.folder / "nvml-mock.conf.new"
        scratch.write_text(f"driver 580.95.05\nlog calls.log\nstate state.conf\n{text}\n")
        scratch.replace(self.folder / "nvml-mock.conf")

    def calls(self) -> list[Call]:
        log = self.folder / "calls.log"
        return [_call(line) for line in log.read_text().splitlines()] if log.exists() else []

    def names(self) -> list[str]:
        return [call.name for call in self.calls()]


def _call(line: str) -> Call:
    head, _, outcome = line.rpartition(" -> ")
    seconds, pid, name, *arguments = head.split(" ", 3)
    return Call(seconds=float(seconds), pid=int(pid), name=name, arguments="".join(arguments), outcome=outcome)


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))  # noqa: T201
