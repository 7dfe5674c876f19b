# SPDX-License-Identifier: Apache-2.0
"""A program's manual page, made from its parsers: what --help says is what the page says, whichever Python wrote it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple


class Command(NamedTuple):
    """Of a program: the words that choose it (none: the program itself), a line about it, its parser if it has one."""

    words: tuple[str, ...]
    summary: str
    parser: argparse.ArgumentParser | None


class Program(NamedTuple):
    name: str
    summary: str
    commands: tuple[Command, ...]
    statuses: str

    def below(self, words: tuple[str, ...]) -> list[Command]:
        return [row for row in self.commands if row.words and row.words[:-1] == words]


def describe(name: str, statuses: str, parser: argparse.ArgumentParser) -> Program:
    """A program that is one tree of parsers."""
    summary = (parser.description or "").rstrip(".")
    return Program(name, summary, tuple(walk((), summary, parser)), statuses)


def walk(words: tuple[str, ...], summary: str, parser: argparse.ArgumentParser) -> Iterator[Command]:
    """A parser and all below it, in the order of --help."""
    yield Command(words, summary, parser)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            lines = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, below in action.choices.items():
                yield from walk((*words, name), lines.get(name, ""), below)


def options_of(parser: argparse.ArgumentParser | None) -> list[argparse.Action]:
    """What a person may write, in the order of --help; positionals have no option strings."""
    return [action for action in (parser._actions if parser else ()) if action.help is not argparse.SUPPRESS
            and not isinstance(action, argparse._SubParsersAction)]


def explain(action: argparse.Action, parser: argparse.ArgumentParser | None) -> str:
    values = {name: value for name, value in vars(action).items() if value is not argparse.SUPPRESS}
    choices = {"choices": ", ".join(map(str, action.choices))} if action.choices else {}
    return " ".join(((action.help or "") % {**values, **choices, "prog": parser.prog if parser else ""}).split())


def value_of(action: argparse.Action) -> str:
    """How the value of an option, or a positional, is written."""
    if action.nargs == 0:
        return ""
    if isinstance(action.metavar, str):
        return action.metavar
    return "|".join(map(str, action.choices)) if action.choices else action.dest.upper()


def write_page(program: Program) -> str:
    name = _text(program.name)
    rows = [f'.TH "{program.name.upper()}" "1"', ".ad l", ".SH NAME", f"{name} \\- {_text(program.summary)}",
            ".SH SYNOPSIS", f".B {name}", _text("COMMAND [OPTION...]")]
    whole = program.commands[0]
    rows += [*_options(whole.parser), ".SH COMMANDS"]
    for command in program.commands[1:]:
        rows += [f'.SS "{_text(" ".join((program.name, *command.words)))}"', _text(command.summary)]
        rows += [*_options(command.parser), *_example(command.parser)]
    rows += _example(whole.parser, ".SH EXAMPLES")
    return "\n".join([*rows, ".SH EXIT STATUS", _text(program.statuses)]) + "\n"


def _options(parser: argparse.ArgumentParser | None) -> Iterator[str]:
    for action in options_of(parser):
        value = f" \\fI{_text(value_of(action))}\\fR" if action.option_strings and value_of(action) else ""
        names = ", ".join(f"\\fB{_text(name)}\\fR" for name in action.option_strings)
        names = names or f"\\fI{_text(value_of(action))}\\fR"
        yield from (".TP", names + value, _text(explain(action, parser)) or ".br")


def _example(parser: argparse.ArgumentParser | None, title: str = "") -> list[str]:
    if parser is None or not parser.epilog:
        return []
    return [title or ".PP", ".nf", *(_text(line) for line in parser.epilog.rstrip().splitlines()), ".fi"]


def _text(text: str) -> str:
    """As roff prints it: a backslash, a dash that can be copied, a line that begins like a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text


def keep(pages: Iterable[tuple[str, str]], argv: Sequence[str]) -> int:
    """Write each page, or with --check name those that are not as they would be written."""
    stale = 0
    for name, text in pages:
        path = Path(name)
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        if "--check" in argv:
            print(f"{name}: out of date, run ./dev docs", file=sys.stderr)
            continue
        os.makedirs(path.parent, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"{name}: written")
    return 1 if stale and "--check" in argv else 0
