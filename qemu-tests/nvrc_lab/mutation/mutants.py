# SPDX-License-Identifier: Apache-2.0
"""Prints the mutants of one file as JSON. Run with cosmic-ray on the path, which the checkout's own environment lacks.

Left out, since no test can tell them from the original: a change of an annotation only (they are never evaluated), of
what is for the type checker, and in one of the tables that the row names. The words of @dataclass are left to
tests/test_architecture.py, which asks them of all.
"""

from __future__ import annotations

import functools
import json
import pickle
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from cosmic_ray.ast import get_ast
from cosmic_ray.mutating import MutationVisitor
from cosmic_ray.plugins import get_operator, operator_names

from nvrc_lab.mutation.shapes import Mutant, changed_line, dropped, shape

# The tool has an operator for every pair of signs. One change for each sign is asked: its opposite, or its boundary.
SIGNS = frozenset({
    *(f"ReplaceComparisonOperator_{pair}" for pair in (
        "Eq_NotEq", "NotEq_Eq", "Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt", "Is_IsNot", "IsNot_Is")),
    *(f"ReplaceBinaryOperator_{pair}" for pair in (
        "Add_Sub", "Sub_Add", "Mul_Add", "Div_Mul", "FloorDiv_Mul", "Mod_Mul", "BitOr_BitAnd", "BitAnd_BitOr",
        "BitXor_BitAnd", "LShift_RShift", "RShift_LShift"))})
PAIRED = ("ReplaceComparisonOperator_", "ReplaceBinaryOperator_")


class Node(Protocol):
    """A node of the tool's syntax tree."""


class Operator(Protocol):
    def mutation_positions(self, node: Node) -> Iterator[object]: ...


def main(argv: Sequence[str]) -> int:
    path, *tables = argv
    json.dump([mutant._asdict() for mutant in mutants(Path(path).read_text(encoding="utf-8"), frozenset(tables))],
              sys.stdout)
    return 0


def mutants(source: str, tables: frozenset[str]) -> Iterator[Mutant]:
    """Every program that one change makes, each once."""
    seen = {shape(source, tables)}
    for mutant in (*replaced(source), *dropped(source)):
        form = shape(mutant.source, tables)
        if form and form not in seen:
            seen.add(form)
            yield mutant


def replaced(source: str) -> Iterator[Mutant]:
    for name in sorted(operator_names()):
        short = name.rpartition("/")[2]
        operator = get_operator(name)
        # An operator with arguments asks for names of variables, which nobody can give for a whole module.
        if operator.arguments() or (short.startswith(PAIRED) and short not in SIGNS):
            continue
        for occurrence in range(len(places(source, operator()))):
            # The operators change the tree itself. To copy a parsed one takes a tenth of what parsing takes.
            visitor = MutationVisitor(occurrence, operator())
            changed = visitor.walk(pickle.loads(pickled(source))).get_code()
            yield Mutant(short, changed_line(source, changed), changed)


@functools.cache
def parsed(source: str) -> Node:
    node: Node = get_ast(source)
    return node


@functools.cache
def pickled(source: str) -> bytes:
    return pickle.dumps(parsed(source))


def places(source: str, operator: Operator) -> list[object]:
    """Where the operator applies, in the order in which the tool counts occurrences."""
    found: list[object] = []
    todo = [parsed(source)]
    while todo:
        node = todo.pop()
        found += operator.mutation_positions(node)
        todo += reversed(getattr(node, "children", ()))
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
