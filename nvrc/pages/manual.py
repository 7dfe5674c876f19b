# SPDX-License-Identifier: Apache-2.0
"""Manual pages and shell completion of `nvrc` and `guest-cdi`, written, or with --check compared."""

from __future__ import annotations

import sys

from guest_cdi import cli as generate
from guest_cdi import inject, validate
from guest_cdi.parser import Parser
from nvrc import cli
from nvrc.vocabulary.completion import pages_of
from nvrc.vocabulary.manual import Command, Program, keep, walk

NVRC = "Guest init for NVIDIA GPUs: PID 1 of the VM, and commands anywhere"
CDI = "CDI documents for NVIDIA GPUs, and the hooks that they name"
STATUSES = "0 fine, 1 a finding or failure, 2 the call was wrong."


def describe_nvrc() -> Program:
    commands = [row for name in cli.COMMANDS for command in (cli.load_command(name),)
                for row in walk((name,), command.HELP, cli.make_parser(command, as_json=False))]
    return Program("nvrc", NVRC, (Command((), NVRC, None), *commands), STATUSES)


def describe_cdi() -> Program:
    parser = generate.build_parser()
    commands = [Command(("generate",), parser.description or "", parser)]
    for module in (validate, inject):
        parser = Parser(module.NAME, module.HELP, module.EPILOG, ())
        module.add_arguments(parser)
        commands.append(Command((module.NAME,), module.HELP, parser))
    hook = Command(("hook",), "run a createContainer hook; guest-cdi hook --help names them", None)
    return Program("guest-cdi", CDI, (Command((), CDI, None), *commands, hook), STATUSES)


if __name__ == "__main__":
    sys.exit(keep([*pages_of(describe_nvrc()), *pages_of(describe_cdi())], sys.argv[1:]))
