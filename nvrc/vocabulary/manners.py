# SPDX-License-Identifier: Apache-2.0
"""How a command of this project says that it was called wrongly, or could not be served: one line, or with --json one
document on standard error. A word that is nearly a command is answered with that command. And how it prints: to a
reader that goes away, to a disk that is full, in a locale that lacks letters.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import select
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn, TextIO

from guest_cdi.lean.coded import printable

FINDING, USAGE = 1, 2


class Speaker(argparse.ArgumentParser):
    """What argparse does otherwise: help that nobody took is no success."""

    as_json = False

    def _print_message(self, message: str, file: object = None) -> None:
        if message and file is sys.stdout:
            print(message, end="")
        else:
            super()._print_message(message, sys.stderr)


class Parser(Speaker):
    """Sub-parsers are of the same class, so that each of them knows how to speak."""

    def error(self, message: str) -> NoReturn:
        message = name_choice(message)
        if not self.as_json:
            super().error(message)
        complain(self.prog, message, is_json=True)
        raise SystemExit(USAGE)


def name_choice(message: str) -> str:
    """argparse's own words, with the command or value that was probably meant; loaded after a mistake only."""
    import re

    from nvrc.vocabulary.nearmiss import closest

    found = re.match(r"argument (.+): invalid choice: '([^']*)' \(choose from (.*)\)", message)
    if found is None:
        return message
    near = closest(found[2], re.findall(r"[\w.-]+", found[3]))
    if found[1] == "COMMAND":
        return f"no command {found[2]!r}" + (f", did you mean {near}?" if near else f"; one of {found[3]}")
    return message + (f", did you mean {near}?" if near else "")


def wants_json(argv: Sequence[str] | None) -> bool:
    """Asked before the line is read, because it may be the line that is wrong."""
    return "--json" in (sys.argv[1:] if argv is None else argv)


def speak_json(parser: argparse.ArgumentParser) -> None:
    """Of a parser and all below it."""
    if isinstance(parser, Parser):
        parser.as_json = True
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                speak_json(below)


def complain(name: str, what: str, hint: str = "", *, findings: Sequence[str] = (), is_json: bool,
             text: str = "") -> None:
    """`text`: the line for people, where it is put together otherwise than from what and hint."""
    if is_json:
        import json

        document = {"schema": 1, "command": name, "code": None, "what": what, "hint": hint or None,
                    "findings": list(findings)}
        print(json.dumps(document), file=sys.stderr)
    else:
        print(f"{name}: {text or what + (f'; {hint}' if hint else '')}", file=sys.stderr)


def prepare_streams() -> None:
    """A stream that the caller closed takes all and says nothing; a letter that the locale lacks is spelled out."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def serve(name: str, run: Callable[[], int]) -> int:
    """`run` as a process: what it printed is taken before it ends, or it is said that it was not. A reader that has
    gone away has seen enough: status 1 without a word.
    """
    prepare_streams()
    try:
        try:
            return run()
        finally:  # help ends the process, too
            sys.stdout.flush()
    except OSError as error:
        gone = isinstance(error, BrokenPipeError) and not has_reader(sys.stdout)
        if not gone:
            print(printable(f"{name}: {error.filename or 'output'}: {error.strerror or error}"), file=sys.stderr)
        give_up(sys.stdout)
        return FINDING if gone else USAGE


def has_reader(stream: TextIO) -> bool:
    """Of a pipe; another pipe may be the one that broke."""
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def give_up(stream: TextIO) -> None:
    """What it did not take must not be tried again by the interpreter on its way out."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), stream.fileno())
