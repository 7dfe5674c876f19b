# SPDX-License-Identifier: Apache-2.0
"""Find QEMU and its version. Starts no machine."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass

from nvrc_lab.ground.errors import LabError

PROGRAM = "qemu-system-x86_64"
OLDEST = (7, 2)
_VERSION = re.compile(r"version (\d+)\.(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Qemu:
    program: str
    version: tuple[int, int]


def find_qemu(program: str = PROGRAM) -> Qemu:
    path = shutil.which(program)
    if path is None:
        raise LabError(f"{program} is not installed", "install the package qemu-system-x86")
    try:
        done = subprocess.run([path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as err:
        raise LabError(f"{path} --version does not answer ({err})", "reinstall the package qemu-system-x86") from err
    return Qemu(program=path, version=check_version(path, done.stdout))


def check_version(path: str, text: str) -> tuple[int, int]:
    found = _VERSION.search(text)
    if found is None:
        first = text.strip().splitlines()[:1]
        raise LabError(f"{path} --version prints no version but {first}", "reinstall the package qemu-system-x86")
    version = (int(found[1]), int(found[2]))
    if version < OLDEST:
        raise LabError(f"{path} is version {version[0]}.{version[1]}, older than {OLDEST[0]}.{OLDEST[1]}",
                       "install a newer qemu-system-x86 (Debian 12 and Ubuntu 24.04 carry one that is new enough)")
    return version
