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
    """All of a module. It is kept to the end, where no search for garbage has to pass it."""
    found = walk(tree_of(path))
    gc.freeze()
    return tuple(found)


def walk(node: ast.AST) -> list[ast.AST]:
    """In the order of ast.walk, which takes three times as long."""
    found = [node]
    for one in found:
        for name in one._fields:
            value = getattr(one, name, None)
            if isinstance(value, list):
                found += [each for each in value if isinstance(each, ast.AST)]
            elif isinstance(value, ast.AST):
                found.append(value)
    return found
