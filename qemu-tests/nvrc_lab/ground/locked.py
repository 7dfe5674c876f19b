# SPDX-License-Identifier: Apache-2.0
"""Python packages that one command needs and the checkout does without: in a folder of their own, by hash."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def install_locked(lock: Path, below: Path, *options: str) -> Path | None:
    """A folder for PYTHONPATH with what the lock names, made when lock or interpreter change; None: pip failed."""
    wanted = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()[:16]
    folder = below / f"site-{wanted}"
    whole = folder / "whole"
    if not whole.exists():
        folder.mkdir(parents=True, exist_ok=True)
        if subprocess.run(_argv(lock, folder, options), stdin=subprocess.DEVNULL, check=False).returncode:
            return None
        whole.touch()
    return folder


def _argv(lock: Path, folder: Path, options: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check", "install", "--quiet", "--upgrade",
            "--require-hashes", "--no-deps", *options, "--target", str(folder), "-r", str(lock)]
