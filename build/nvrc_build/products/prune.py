# SPDX-License-Identifier: Apache-2.0
"""What a program uses of one large flat module, as source: other functions, classes and constants are left out.

Made for nvidia-ml-py, which describes all of NVML in one file: 6,000 lines that every worker would load for the forty
calls it makes. Nothing is rewritten: definitions stay byte for byte, or go. Kept is what the program's own text names,
what those definitions name, every statement that is no definition, and names that begin with one of `whole`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

_WORD = re.compile(r"[A-Za-z_]\w*")
_IMPORTS = (ast.Import, ast.ImportFrom)


def prune(module: str, program: Iterable[str], whole: Sequence[str] = ()) -> str:
    nodes = ast.parse(module).body
    defined: dict[str, list[ast.stmt]] = {}
    for node in nodes:
        for name in _defines(node):
            defined.setdefault(name, []).append(node)
    words = {word for text in program for word in _WORD.findall(text)}
    asked = {name for name, found in defined.items() if (name in words or name.startswith(tuple(whole)))
             and not isinstance(found[0], _IMPORTS)}  # a name of the program may happen to be that of an import
    kept = _closure(asked, defined, [node for node in nodes if not tuple(_defines(node))])
    lines = module.splitlines(keepends=True)
    for node in reversed([node for node in nodes if node not in kept]):
        first = min([node.lineno, *(row.lineno for row in getattr(node, "decorator_list", ()))])
        del lines[first - 1:node.end_lineno]
    return "".join(lines)


def _defines(node: ast.stmt) -> Iterator[str]:
    """The names that a statement only binds. A call may do more, but one that makes a value to bind is a definition."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, _IMPORTS):
        yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names if alias.name != "*")
    elif isinstance(node, ast.Assign):
        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        yield from names if len(names) == len(node.targets) else ()


def _closure(asked: set[str], defined: Mapping[str, list[ast.stmt]], always: Sequence[ast.stmt]) -> set[ast.stmt]:
    kept = set(always)
    waiting = [*always, *(node for name in asked for node in defined.get(name, ()))]
    while waiting:
        node = waiting.pop()
        kept.add(node)
        names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        names |= {part.arg for part in ast.walk(node) if isinstance(part, ast.arg)}
        waiting += [more for name in names for more in defined.get(name, ()) if more not in kept]
    return kept
