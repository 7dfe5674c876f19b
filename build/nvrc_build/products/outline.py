# SPDX-License-Identifier: Apache-2.0
"""What PyInstaller looks at in a module, as source: its imports, wherever they stand, and what a package binds.

It is given nothing else of the init. So what it finds is the same while no import changes, and is not looked for again.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator


def outline(source: str, *, is_package: bool) -> str:
    """`is_package`: `from package import name` means a module of it, unless the package itself has such a name."""
    tree = ast.parse(source)
    imports = [ast.unparse(node) for node in _statements(tree.body) if isinstance(node, ast.Import | ast.ImportFrom)]
    bound = [f"{name} = None" for node in tree.body for name in _binds(node)] if is_package else []
    return "".join(f"{line}\n" for line in dict.fromkeys((*imports, *bound)))


def step_modules(boot: str) -> Iterator[str]:
    """What the rows of the boot table name: nothing imports these by a statement."""
    for node in ast.walk(ast.parse(boot)):
        match node:
            case ast.Call(func=ast.Name(id="Step"), args=[ast.Constant(value=str(name)), *_]):
                yield f"nvrc.steps.{name.replace('-', '_')}"


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Those inside of others, too; an import is never part of an expression."""
    for node in body:
        yield node
        for name in ("body", "orelse", "finalbody", "handlers", "cases"):
            yield from _statements(getattr(node, name, ()))


def _binds(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    else:
        found = (part for part in ast.walk(node) if isinstance(part, ast.Name))
        yield from (part.id for part in found if isinstance(part.ctx, ast.Store))
