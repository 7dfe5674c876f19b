# SPDX-License-Identifier: Apache-2.0
"""The command line: picks one command, parses its arguments, turns what went wrong into a line and an exit status.

0: done, nothing found. 1: a finding, such as a boot that failed. 2: the call itself cannot be served. Each command is
a module with NAME, HELP, EPILOG, add_arguments and run; only the one that is called gets imported. Without a command
the program says what it is, so that `nvrc` on any machine is harmless.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from typing import NoReturn, Protocol, TextIO

from guest_cdi.lean import coded
from nvrc.vocabulary.console import printable
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.jsonread import FormatError
from nvrc.vocabulary.manners import Speaker, give_up, name_choice
from nvrc.vocabulary.nearmiss import closest

COMMANDS = ("plan", "params", "policy", "initdata", "explain", "report", "topology", "status", "doctor", "version")
FINDING, USAGE, INTERRUPTED = 1, 2, 130


class Command(Protocol):
    """What a module below nvrc.commands offers."""

    NAME: str
    HELP: str
    EPILOG: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...
    def run(self, args: argparse.Namespace, out: TextIO) -> int: ...


def main(argv: Sequence[str], out: TextIO = sys.stdout, err: TextIO = sys.stderr) -> int:
    name, rest = (argv[0], argv[1:]) if argv else ("version", ())
    if name in ("--version", "-V"):
        name = "version"
    as_json = "--json" in rest
    try:
        try:
            if name not in COMMANDS:
                with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                    _refuse(name, argv, as_json=as_json)
            command = load_command(name)
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                args = make_parser(command, as_json=as_json).parse_args(rest)
            status = command.run(args, out)
        except SystemExit as stop:  # argparse has said why
            status = stop.code if isinstance(stop.code, int) else USAGE
        out.flush()
    except (NvrcError, FormatError) as error:
        return _complain(err, name, error, as_json=as_json)
    except BrokenPipeError:
        give_up(out)
        return FINDING  # whoever read the output has seen enough
    except OSError as error:
        give_up(out)
        return _complain(err, name, f"{error.filename or 'output'}: {error.strerror or error}", as_json=as_json)
    except KeyboardInterrupt:
        return INTERRUPTED
    return status


def load_command(name: str) -> Command:
    """The command's module. Imports are spelled out, because freezing finds only what it can read."""
    match name:
        case "plan":
            from nvrc.commands import plan
            return plan
        case "params":
            from nvrc.commands import params
            return params
        case "policy":
            from nvrc.commands import policy
            return policy
        case "initdata":
            from nvrc.commands import initdata
            return initdata
        case "explain":
            from nvrc.commands import explain
            return explain
        case "report":
            from nvrc.commands import report
            return report
        case "topology":
            from nvrc.commands import topology
            return topology
        case "status":
            from nvrc.commands import status
            return status
        case "doctor":
            from nvrc.commands import doctor
            return doctor
        case _:
            from nvrc.commands import version
            return version


class Parser(Speaker):
    """With --json on the line, what is wrong with the line is a document, too."""

    def error(self, message: str) -> NoReturn:
        message = name_choice(message)
        if not self.as_json:
            super().error(message)
        _complain(sys.stderr, self.prog.removeprefix("nvrc").strip(), message, as_json=True)
        raise SystemExit(USAGE)


def make_parser(command: Command, *, as_json: bool) -> argparse.ArgumentParser:
    parser = Parser(prog=f"nvrc {command.NAME}", description=command.HELP, epilog=command.EPILOG,
                    formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    command.add_arguments(parser)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                below.as_json = as_json
    parser.as_json = as_json
    return parser


def _refuse(name: str, argv: Sequence[str], *, as_json: bool) -> None:
    """Help if that was asked for, else what is wrong, and which command was probably meant."""
    near = closest(name, COMMANDS)
    parser = _overview()
    parser.as_json = as_json
    if near:
        parser.error(f"no command {printable(name, 40)!r}, did you mean {near}?")
    parser.parse_args(argv)


def _overview() -> Parser:
    commands = [load_command(name) for name in COMMANDS]
    parser = Parser(
        prog="nvrc", description="Guest init for NVIDIA GPUs: PID 1 of the VM, and these commands anywhere.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="commands:\n" + "".join(f"  {command.NAME:9} {command.HELP}\n" for command in commands)
               + "\n'nvrc COMMAND --help' shows examples. Exit status: 0 fine, 1 a finding, 2 the call was wrong.")
    parser.add_argument("--version", action="store_true", help="say which program this is")
    parser.add_argument("command", choices=COMMANDS, help="what to do; nothing: say which program this is")
    return parser


def _complain(err: TextIO, name: str, what: str | Exception, *, as_json: bool) -> int:
    if not as_json:
        print(coded.printable(f"nvrc {name}: {what}"), file=err)
        return USAGE
    from nvrc.vocabulary.output import write_document

    known = what if isinstance(what, NvrcError) else None
    write_document(err, {"command": name, "code": known.code if known else None,
                         "what": known.what if known else str(what), "hint": known.hint if known else None})
    return USAGE
