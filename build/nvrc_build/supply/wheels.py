# SPDX-License-Identifier: Apache-2.0
"""Python packages of the frozen program: fetched by this machine's pip for the guest's Python, pinned by hash.

They are unpacked into a folder and never run here; the freezer sees that folder read-only, without network.
pip builds what it is pointed to by an address, whatever it is told of wheels, so a lock has names, versions and hashes,
and nothing else.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.run import clean_env, run

PYTHON = "3.13"
_ROW = re.compile(r"#.*|[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.!+_-]* --hash=sha256:[0-9a-f]{64}")
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def lock_path(checkout: Path) -> Path:
    return checkout / "build/locks/wheels.txt"


def install(lock: Path, target: Path) -> None:
    """pip's own cache and temporary files stay out of the caller's home and /tmp."""
    rows = lock.read_text(encoding="utf-8").splitlines()
    if odd := tuple(row for row in rows if row.strip() and not _ROW.fullmatch(row)):
        raise BuildError(f"lock {lock} has rows that are not NAME==VERSION --hash=sha256:HEX",
                         "write one wheel a line, as pip hash names it", findings=odd[:20])
    platforms = [word for platform in _PLATFORMS for word in ("--platform", platform)]
    argv: list[str | Path] = [
        sys.executable, "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir",
        "--no-deps", "--no-compile", "--require-hashes", "--only-binary=:all:", "--python-version", PYTHON,
        "--implementation", "cp", "--abi", f"cp{PYTHON.replace('.', '')}", "--abi", "abi3", "--abi", "none",
        *platforms, "--target", target, "--requirement", lock,
    ]
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unfinished-pip-") as scratch:
        env = clean_env({"HOME": str(Path.home()), "TMPDIR": scratch}, network=True)
        run(argv, env=env, timeout_s=600, what="fetching Python packages")
