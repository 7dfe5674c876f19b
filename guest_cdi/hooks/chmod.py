# SPDX-License-Identifier: Apache-2.0
"""chmod: give files and directories of the container a mode, as a workaround for runtimes that make them too narrow.

Permission bits only: a hook is no way to make a file setuid. What is missing or refuses with EPERM is passed over.
"""

from __future__ import annotations

import os
import stat

from guest_cdi.hooks.action import Action, Values
from guest_cdi.hooks.root import Root
from guest_cdi.lean.errors import CdiError
from guest_cdi.lean.light import Sequence, partial

LARGEST_MODE = 0o777


def prepare(values: Values) -> Action:
    paths = values.get("path", ())
    if not all(path.strip() for path in paths):
        raise CdiError("E_CDI_USAGE", "chmod: --path is empty")
    return partial(set_modes, paths, parse_mode("".join(values.get("mode", ()))))


def parse_mode(text: str) -> int:
    if not text or text.strip("01234567") or int(text, 8) > LARGEST_MODE:
        raise CdiError("E_CDI_USAGE", f"chmod: --mode {text!r} is not an octal number up to {LARGEST_MODE:o}")
    return int(text, 8)


def set_modes(paths: Sequence[str], mode: int, root: Root) -> list[str]:
    return [f"{path} mode {mode:o}" for path in dict.fromkeys(paths) if _set_mode(root, path, mode)]


def _set_mode(root: Root, path: str, mode: int) -> bool:
    try:
        with root.open(path) as found:
            if stat.S_IMODE(os.fstat(found.fd).st_mode) == mode:
                return False
            os.chmod(f"/proc/self/fd/{found.fd}", mode)
    except (FileNotFoundError, PermissionError):
        return False
    return True
