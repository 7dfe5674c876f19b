#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compile the stand-in libnvidia-ml.so.1 into a folder: `build.py DIR [CC...]` prints the library's path.

The tests build it once a session into a temporary folder, the lab into the tree of its guest image. An up-to-date
library in the folder is kept: its name carries the digest of the sources.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence

HERE = os.path.dirname(os.path.abspath(__file__))
SONAME = "libnvidia-ml.so.1"
FLAGS = (
    "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Wshadow", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden",
    f"-Wl,-soname,{SONAME}", "-Wl,-z,defs", "-pthread",
)


def sources() -> list[str]:
    return sorted(os.path.join(HERE, name) for name in os.listdir(HERE) if name.endswith((".c", ".h")))


def digest(compiler: Sequence[str]) -> str:
    total = hashlib.sha256("\0".join([*compiler, *FLAGS]).encode())
    for path in sources():
        with open(path, "rb") as stream:
            total.update(stream.read())
    return total.hexdigest()[:16]


def build(directory: str, compiler: Sequence[str] = ("gcc",)) -> str:
    """The path of DIRECTORY/libnvidia-ml.so.1, a link to the library built from the present sources."""
    os.makedirs(directory, exist_ok=True)
    name = f"libnvidia-ml.so.{digest(compiler)}"
    target, link = os.path.join(directory, name), os.path.join(directory, SONAME)
    if not os.path.exists(target):
        scratch = f"{target}.{os.getpid()}"
        units = [path for path in sources() if path.endswith(".c")]
        command = [*compiler, *FLAGS, "-o", scratch, *units, "-ldl"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
        os.replace(scratch, target)
    scratch = f"{link}.{os.getpid()}"
    os.symlink(name, scratch)
    os.replace(scratch, link)
    return link


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit("usage: build.py DIR [CC...]")
    print(build(sys.argv[1], tuple(sys.argv[2:]) or ("gcc",)))
