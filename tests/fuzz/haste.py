# SPDX-License-Identifier: Apache-2.0
"""What a fuzzer goes without, to try more inputs a second: work that is the same for each input, and is tested elsewhere.

The unit tier replays the corpus with all of it. Nothing here decides what a parser takes or refuses.
"""

from __future__ import annotations

import shutil
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import elftools.elf.elffile
from elftools.elf.structs import ELFStructs

from fuzz import runs
from fuzz.one_file import GoodHost
from guest_cdi.lean import light
from nvrc.machine import patience
from nvrc.params import cmdline, module_options, parse, suggestion, table, words
from nvrc.preflight.row import Row
from nvrc.vocabulary import nearmiss

T = TypeVar("T")
POLICIES = 256  # whose names are kept as they were read
# What a line's words are and mean, which is asked for up to twenty times; and how many answers are kept.
OF_A_LINE = ((cmdline, "tokenise"), (words, "fold"), (table, "find"), (module_options, "driver_option"))
ANSWERS = 4096
FORMS = 256  # of ELF files, by what their headers say; each has a hundred structures


def make_haste(folder: Path) -> None:
    """Before the first input, and for the life of the process. What parsers write goes to the folder."""
    nearmiss.distance = _about
    words.split_entries = suggestion.split_entries = _split_once  # type: ignore[attr-defined]
    for made in tuple.__subclasses__():
        if made.__new__ is vars(light)["_create"]:
            _make_quick(made)
    for home, name in OF_A_LINE:
        _keep_answers(getattr(home, name), name)
    patience.run_within = _run_here
    elftools.elf.elffile.ELFStructs = _Structs
    runs.a_folder = lambda: _once_more(folder)
    GoodHost.ask = _ask_one  # type: ignore[method-assign]


def _make_quick(made: type) -> None:
    """As the standard library makes such a tuple: its class takes long to make, and its tuples do not."""
    fields, known = vars(made)["_fields"], vars(made)["_field_defaults"]
    standard = namedtuple(made.__name__, fields, defaults=[known[name] for name in fields if name in known])
    made.__new__ = standard.__new__  # type: ignore[method-assign]


def _about(one: str, other: str, enough: int = 0) -> int:
    """In place of counting typing mistakes: a name of that length is found, or none."""
    return abs(len(one) - len(other)) if one[:1] == other[:1] else enough + 1


def _split_once(entries: Iterable[str]) -> list[words.Entry]:
    """The names of a policy, of which all lines are read by a few."""
    return _split(tuple(entries))


@lru_cache(maxsize=POLICIES)
def _split(entries: tuple[str, ...], split: Callable[[Iterable[str]], list[words.Entry]] = words.split_entries) -> list[words.Entry]:
    return split(entries)


def _keep_answers(answer: Callable[..., T], name: str) -> None:
    """In each module that has the function."""
    kept = lru_cache(maxsize=ANSWERS)(answer)
    for module in (cmdline, module_options, parse, suggestion, table, words):
        if getattr(module, name, None) is answer:
            setattr(module, name, kept)


def _run_here(_limit_s: float, work: Callable[[], T]) -> T:
    """In place of a thread that may be given up: whatever the work raises is seen all the same."""
    return work()


def _ask_one(host: GoodHost, path: str, data: bytes) -> tuple[Row, ...]:
    """Of up to fifteen rows that read a file alike the one that its length stands for."""
    rows = host.readers[path]
    return (rows[len(data) % len(rows)],)


@contextmanager
def _once_more(folder: Path) -> Iterator[Path]:
    """The same folder for each input, emptied of what the last one brought."""
    try:
        yield folder
    finally:
        for place in folder.iterdir():
            shutil.rmtree(place)


class _Structs(ELFStructs):
    """pyelftools describes all structures of the format anew for each file, which took nine tenths of the time."""

    def create_basic_structs(self) -> None:
        self.__dict__.update(_basic(self.little_endian, self.elfclass).__dict__)

    def create_advanced_structs(self, e_type: str | None = None, e_machine: str | None = None,
                                e_ident_osabi: str | None = None) -> None:
        self.__dict__.update(_advanced(self.little_endian, self.elfclass, e_type, e_machine, e_ident_osabi).__dict__)


@lru_cache(maxsize=4)
def _basic(little_endian: bool, elfclass: int) -> ELFStructs:
    made = ELFStructs(little_endian, elfclass)
    made.create_basic_structs()
    return made


@lru_cache(maxsize=FORMS)
def _advanced(little_endian: bool, elfclass: int, *told: str | None) -> ELFStructs:
    made = ELFStructs(little_endian, elfclass)
    made.create_basic_structs()
    made.create_advanced_structs(*told)
    return made
