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
from typing import Protocol, TextIO

from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.jsonread import FormatError

COMMANDS = ("plan", "params", "report", "status", "doctor", "version")
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
    try:
        if name not in COMMANDS:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                _overview().parse_args(argv)
        command = load_command(name)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            args = _parser(command).parse_args(rest)
        status = command.run(args, out)
        out.flush()
    except SystemExit as stop:  # argparse has said why
        return stop.code if isinstance(stop.code, int) else USAGE
    except (NvrcError, FormatError) as error:
        return _complain(err, name, str(error))
    except BrokenPipeError:
        return FINDING  # whoever read the output has seen enough
    except OSError as error:
        return _complain(err, name, f"{error.filename or 'output'}: {error.strerror or error}")
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
        case "report":
            from nvrc.commands import report
            return report
        case "status":
            from nvrc.commands import status
            return status
        case "doctor":
            from nvrc.commands import doctor
            return doctor
        case _:
            from nvrc.commands import version
            return version


def _parser(command: Command) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"nvrc {command.NAME}", description=command.HELP, epilog=command.EPILOG,
                                     formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    command.add_arguments(parser)
    return parser


def _overview() -> argparse.ArgumentParser:
    commands = [load_command(name) for name in COMMANDS]
    parser = argparse.ArgumentParser(
        prog="nvrc", description="Guest init for NVIDIA GPUs: PID 1 of the VM, and these commands anywhere.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="commands:\n" + "".join(f"  {command.NAME:9} {command.HELP}\n" for command in commands)
               + "\n'nvrc COMMAND --help' shows examples. Exit status: 0 fine, 1 a finding, 2 the call was wrong.")
    parser.add_argument("command", choices=COMMANDS, help="what to do; nothing: say which program this is")
    return parser


def _complain(err: TextIO, name: str, what: str) -> int:
    print(f"nvrc {name}: {what}", file=err)
    return USAGE
