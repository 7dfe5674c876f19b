# SPDX-License-Identifier: Apache-2.0
"""`nvrc-lab`: dispatch only. A command is a module with SUMMARY, EXAMPLES, add_arguments and run."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from collections.abc import Mapping, Sequence
from types import FrameType

from nvrc import __version__
from nvrc.vocabulary.manners import USAGE, Parser, complain, serve, speak_json, wants_json
from nvrc_lab.ground.errors import LabError

COMMANDS: Mapping[str, str] = {
    "boot": "nvrc_lab.commands.boot",
    "list": "nvrc_lab.commands.listing",
    "matrix": "nvrc_lab.commands.matrix",
    "explain": "nvrc_lab.commands.explain",
    "bench": "nvrc_lab.commands.bench",
    "soak": "nvrc_lab.commands.soak",
    "life": "nvrc_lab.commands.life",
}


def make_parser(asked: str | None = None) -> argparse.ArgumentParser:
    """Of all commands; of one alone, whose module is the only one to load, where that is the one that was asked for."""
    parser = Parser(
        prog="nvrc-lab", description="The virtual lab: boots guest images under QEMU and judges what they say.",
        epilog="exit status: 0 good, 1 a finding, 2 wrong use or something missing on this machine")
    parser.add_argument("--version", action="version", version=f"nvrc-lab {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module_name in COMMANDS.items():
        if asked in COMMANDS and name != asked:
            continue
        module = importlib.import_module(module_name)
        command = commands.add_parser(name, help=module.SUMMARY, description=module.SUMMARY, epilog=module.EXAMPLES,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return serve("nvrc-lab", lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> int:
    # Ended from outside, the lab still has to end its machines: the same way out as Ctrl-C.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    words = sys.argv[1:] if argv is None else argv
    parser, is_json = make_parser(words[0] if words else None), wants_json(argv)
    if is_json:
        speak_json(parser)
    args = parser.parse_args(argv)
    try:
        status: int = args.run(args)
    except LabError as err:
        complain("nvrc-lab", err.what, err.hint, is_json=is_json, text=str(err))
        return USAGE
    except ModuleNotFoundError as missing:
        complain("nvrc-lab", f"the Python package {missing.name} is not installed",
                 "run: pip install 'nvrc[build,dev]'", is_json=is_json)
        return USAGE
    except KeyboardInterrupt:
        print("\nnvrc-lab: interrupted; the machine was ended", file=sys.stderr)
        return 130
    return status


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
