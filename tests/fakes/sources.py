# SPDX-License-Identifier: Apache-2.0
"""Files of the checkout as git lists them and as Python reads them.

Many tests look at every module there is. Each is parsed once in a process, and walked once: that is what they take.
"""

from __future__ import annotations

import ast
import gc
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@cache
def tracked(*patterns: str) -> tuple[str, ...]:
    """Files that are, or are about to be, in git, as far as they are in the work tree."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *patterns], cwd=ROOT,
                            capture_output=True, text=True, check=True).stdout.split("\0")
    return tuple(sorted({name for name in listed if name and (ROOT / name).is_file()}))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """All of a module in the order of ast.walk, which takes three times as long. It is kept to the end, where no search
    for garbage has to pass it."""
    found: list[ast.AST] = [tree_of(path)]
    for node in found:
        for name in node._fields:
            value = getattr(node, name, None)
            if isinstance(value, list):
                found += [one for one in value if isinstance(one, ast.AST)]
            elif isinstance(value, ast.AST):
                found.append(value)
    gc.freeze()
    return tuple(found)
