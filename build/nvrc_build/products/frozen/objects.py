# SPDX-License-Identifier: Apache-2.0
"""Code and its constants as static objects in C (objects.h), which a start would otherwise make of a marshalled form.

The interpreter that runs this is of the version that the program is linked with, and has the same seed for hashes: what
an object looks like in memory is asked of it, and laid out by the compiler with the interpreter's own headers.

An object is named by its content, and a module's code by its module: a file stays as it is while other modules change.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from opcode import opmap
from types import CodeType, EllipsisType

Constant = str | bytes | int | float | CodeType | EllipsisType | tuple["Constant", ...] | frozenset["Constant"] | None
OPTIMIZED = 0x1
HIDDEN, LOCAL, CELL, FREE = 0x10, 0x20, 0x40, 0x80
DIGIT_BITS = 30
SMALL = range(-5, 257)
# How a set is searched: that many neighbours, then on by the rest of the hash.
NEIGHBOURS, SHIFT = 9, 5
SMALLEST_SET = 8
MASK = (1 << 64) - 1
# Of a literal in C; three digits always, as a digit may follow.
ESCAPES = {byte: f"\\{byte:03o}" for byte in range(256) if not 32 <= byte < 127 or byte in b'"?\\'}
NO_ROW = "{ NULL, 0 }"
OWN_TEXT = re.compile(r"STRUCT_FOR_ID\((?!NAME\))(\w+)\)")


class Objects:
    """The objects of some modules, each once, in an order in which the compiler knows what one refers to."""

    def __init__(self, header: str) -> None:
        """`header`: pycore_global_strings.h, the texts that the interpreter has as static objects itself."""
        if sys.flags.hash_randomization:
            raise SystemExit("hashes would not be those of the program: set PYTHONHASHSEED=0")
        self.lines: list[str] = []
        self._known: set[str] = set()  # in this file
        self._written: dict[str, str] = {}  # in any
        self._own = frozenset(OWN_TEXT.findall(header))

    def begin(self) -> None:
        """A further file."""
        self.lines, self._known = [], set()

    def code(self, code: CodeType, name: str = "") -> str:
        """The name of this code's object, as it is before it runs for the first time. `name`: what to call it."""
        kinds = dict.fromkeys(code.co_varnames, LOCAL if code.co_flags & OPTIMIZED else LOCAL | HIDDEN)
        kinds |= {name: kinds.get(name, 0) | CELL for name in code.co_cellvars}
        kinds |= dict.fromkeys(code.co_freevars, FREE)
        steps: bytes = getattr(code, "_co_code_adaptive")  # noqa: B009 - typeshed does not know it
        fields = {name: str(getattr(code, name)) for name in (
            "co_flags", "co_argcount", "co_posonlyargcount", "co_kwonlyargcount", "co_stacksize", "co_firstlineno",
            "co_nlocals")}
        fields |= {name: self._refer(getattr(code, name)) for name in (
            "co_consts", "co_names", "co_exceptiontable", "co_filename", "co_name", "co_qualname", "co_linetable")}
        fields |= {
            "co_localsplusnames": self._refer(tuple(kinds)), "co_localspluskinds": self._refer(bytes(kinds.values())),
            "co_nlocalsplus": str(len(kinds)), "co_ncellvars": str(len(code.co_cellvars)),
            "co_nfreevars": str(len(code.co_freevars)),
            "co_framesize": f"{len(kinds) + code.co_stacksize} + FRAME_SPECIALS_SIZE",
            "_co_firsttraceable": str(steps[::2].find(opmap["RESUME"])), "co_code_adaptive": quoted(steps),
        }
        rest = ", ".join((str(len(steps)), *(f".{name} = {value}" for name, value in fields.items())))
        return self._once("CODE", rest, name)

    def _refer(self, value: Constant) -> str:
        """The pointer to this object, which is written first if it has not been."""
        if isinstance(value, CodeType):
            return f"OBJECT({self.code(value)})"
        if isinstance(value, tuple | frozenset) and value:
            return self._several(value)
        own = self._interpreters_own(value)
        return own or f"OBJECT({self._once(*single(value))})"

    def _interpreters_own(self, value: Constant) -> str:
        match value:
            case None | bool() | EllipsisType():
                return f"Py_{value if value is not ... else 'Ellipsis'}"
            case "" | ():
                return "OBJECT(_Py_STR(empty))" if value == "" else "OBJECT(_Py_SINGLETON(tuple_empty))"
            case str() if value in self._own:
                return f"OBJECT(_Py_ID({value}))"
            case str() if len(value) == 1 and value <= "\xff":
                return f"_Py_LATIN1_CHR({ord(value)})"
            case int() if value in SMALL:
                return f"OBJECT(_Py_SINGLETON(small_ints)[{value - SMALL.start}])"
        return ""

    def _several(self, value: tuple[Constant, ...] | frozenset[Constant]) -> str:
        if isinstance(value, tuple):
            form, rows = "TUPLE", [self._refer(item) for item in value]
        else:
            form, rows = "FROZENSET", table([(hash(item), self._refer(item)) for item in sorted(value, key=repr)])
        rest = f"{len(rows)}, {', '.join(rows)}"
        rest = rest if form == "TUPLE" else f"{len(value)}, {rest}"
        return f"OBJECT({self._once(form, rest)}.object)"

    def _once(self, form: str, rest: str, name: str = "") -> str:
        """The name of the object, which is written, or declared in a further file, where it is referred to first."""
        name = name or f"object_{hash((form, rest)) & MASK:x}"
        if name not in self._known:
            self._known.add(name)
            is_new = name not in self._written
            self.lines.append(f"{form}({name}, {rest})\n" if is_new else f"{form}_ELSEWHERE({name})\n")
        if self._written.setdefault(name, rest) != rest:
            raise SystemExit(f"two objects have the name {name}: give MASK of objects.py more bits")
        return name


def single(value: Constant) -> tuple[str, str]:
    """The macro for this object, and what it is given beside the name."""
    match value:
        case str() if value.isascii():
            return "ASCII", f"{len(value)}, {hash(value)}, {quoted(value.encode())}"
        case str():
            size = 1 if max(value) <= "\xff" else 2 if max(value) <= "\uffff" else 4
            return "WIDE", f"Py_UCS{size}, {len(value)}, {hash(value)}, {listed(map(ord, value))}"
        case bytes():
            return "BYTES", f"{len(value)}, {quoted(value)}"
        case int():
            digits = [abs(value) >> shift & (1 << DIGIT_BITS) - 1 for shift in range(0, value.bit_length(), DIGIT_BITS)]
            return "INTEGER", f"{1 if value > 0 else -1}, {len(digits)}, {listed(digits)}"
        case float():
            return "FLOAT", value.hex()
    raise SystemExit(f"no static form of {type(value).__name__} {value!r}: add it to objects.py and objects.h")


def quoted(data: bytes) -> str:
    return f'"{data.decode("latin-1").translate(ESCAPES)}"'


def listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


def table(entries: list[tuple[int, str]]) -> list[str]:
    """The rows of a set's table, in which each entry is where the interpreter looks for it."""
    size = SMALLEST_SET
    while len(entries) * 5 >= (size - 1) * 3:
        size *= 2
    rows = [NO_ROW] * size
    for digest, pointer in entries:
        rows[place(rows, digest & MASK)] = f"{{ {pointer}, {digest} }}"
    return rows


def place(rows: list[str], digest: int) -> int:
    mask = len(rows) - 1
    start, rest = digest & mask, digest
    while True:
        for index in range(start, start + 1 + (NEIGHBOURS if start + NEIGHBOURS <= mask else 0)):
            if rows[index] == NO_ROW:
                return index
        rest >>= SHIFT
        start = (start * 5 + 1 + rest) & mask
