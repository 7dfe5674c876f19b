# SPDX-License-Identifier: Apache-2.0
"""What makes a mutant another program, and the changes for which cosmic-ray has no operator. Standard library only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import NamedTuple


class Mutant(NamedTuple):
    operator: str
    line: int
    source: str


def dropped(source: str) -> Iterator[Mutant]:
    """A refusal or an effect that does not happen, for which the tool has no operator."""
    lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source)):
        effect = isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant)
        if effect or isinstance(node, ast.Raise | ast.AugAssign):
            assert isinstance(node, ast.stmt) and node.end_lineno is not None
            before, after = lines[:node.lineno - 1], lines[node.end_lineno:]
            inside = lines[node.lineno - 1][:node.col_offset] + "pass\n"
            yield Mutant(f"Drop{type(node).__name__}", node.lineno, "".join((*before, inside, *after)))


def shape(source: str, tables: frozenset[str]) -> str:
    """What the interpreter acts on: without annotations, code for the type checker, values of the tables. "": none."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return ""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
            for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
                argument.annotation = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
        elif isinstance(node, ast.ClassDef):
            node.decorator_list = [plain(decorator) for decorator in node.decorator_list]
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.test, node.body = ast.Constant(False), [ast.Pass()]
    for statement in tree.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign) and names_of(statement) & tables:
            statement.value = ast.Constant(None)
    return ast.dump(tree)


def plain(decorator: ast.expr) -> ast.expr:
    """Without frozen=True and its like: every dataclass has the same, and a test of them all."""
    if isinstance(decorator, ast.Call):
        decorator.keywords = [word for word in decorator.keywords if word.arg not in ("frozen", "slots", "kw_only")]
    return decorator


def names_of(statement: ast.Assign | ast.AnnAssign) -> set[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def changed_line(before: str, after: str) -> int:
    pairs = zip(before.splitlines(), after.splitlines(), strict=False)
    return next((number for number, (old, new) in enumerate(pairs, 1) if old != new), 1)
