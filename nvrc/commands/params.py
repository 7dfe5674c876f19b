# SPDX-License-Identifier: Apache-2.0
"""`nvrc params`: look at the table of kernel parameters, and check a command line before a VM does.

Off the boot path. Decides nothing: `nvrc.params.parse` is what the boot runs, with the same policy.
"""

from __future__ import annotations

import argparse
import os
import sys
import typing

from nvrc.params.parse import Parsed, Source, parse
from nvrc.params.policy import NO_POLICY, Policy, load_policy
from nvrc.params.table import PARAMS, Param, find
from nvrc.params.values import UNSET, text
from nvrc.vocabulary import paths
from nvrc.vocabulary.jsonread import FormatError
from nvrc.vocabulary.nearmiss import closest
from nvrc.vocabulary.output import write_document
from nvrc.vocabulary.terminal import lay_table, width_of, write_text

NAME = "params"
HELP = "list and explain kernel parameters, check a command line"
EPILOG = """\
examples:
  nvrc params list                                 every parameter with its default
  nvrc params explain nvrc.smi.srs                 all there is to say about one
  nvrc params check                                this machine's command line under its policy
  nvrc params check nvrc.log=debug nvrc.smi.src=1  words of a command line to be
  nvrc params check --policy policy.toml - <line   a line from standard input under a policy

exit status of check: 0 nothing would be refused or ignored, 1 something would, 2 it could not be checked
"""
FINDING = 1

Json = dict[str, object]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="list|check|explain", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true", help="print one JSON document")
    actions.add_parser("list", parents=[shared], help="every parameter with its form and default")
    check = actions.add_parser(
        "check", parents=[shared], help="say what a boot would refuse or ignore in a line", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    check.add_argument("--policy", metavar="FILE",
                       help=f"check under this policy; for this machine's own line the default is {paths.POLICY}")
    check.add_argument("--file", metavar="FILE", default=paths.CMDLINE, help="read the line from FILE (%(default)s)")
    check.add_argument("cmdline", metavar="CMDLINE", nargs="*", help="words of the line, or - for standard input")
    explain = actions.add_parser("explain", parents=[shared], help="all there is to say about one parameter")
    explain.add_argument("name", metavar="NAME", help="its name; an old name works as well")


def run(args: argparse.Namespace, out: typing.TextIO) -> int:
    if args.action == "list":
        return _list(as_json=args.json, out=out)
    if args.action == "explain":
        return _explain(args.name, as_json=args.json, out=out)
    return _check(_line(args), _policy(args), as_json=args.json, out=out)


def _line(args: argparse.Namespace) -> bytes:
    words: list[str] = args.cmdline
    if words == ["-"]:
        return sys.stdin.buffer.read()
    if words:
        return os.fsencode(" ".join(words))
    with open(args.file, "rb") as file:
        return file.read()


def _policy(args: argparse.Namespace) -> Policy:
    own_line = not args.cmdline and args.file == paths.CMDLINE
    file: str | None = args.policy or (paths.POLICY if own_line and os.path.lexists(paths.POLICY) else None)
    if file is None:
        return NO_POLICY
    with open(file, "rb") as opened:
        return load_policy(opened.read(), file)


def _check(line: bytes, policy: Policy, *, as_json: bool, out: typing.TextIO) -> int:
    parsed = parse(line, policy)
    if as_json:
        write_document(out, check_document(parsed))
    else:
        show_check(parsed, out)
    return 0 if parsed.is_clean else FINDING


def show_check(parsed: Parsed, out: typing.TextIO) -> None:
    lines = [*(f"{problem.severity.value:<8} {problem}" for problem in parsed.problems), _summary(parsed)]
    write_text(out, "".join(f"{line}\n" for line in lines))


def _summary(parsed: Parsed) -> str:
    given = [f"{name}={value}" for name, value, source in parsed.described() if source is not Source.DEFAULT]
    if parsed.errors:
        return f"{len(parsed.errors)} of {len(parsed.problems)} findings would end the boot"
    return f"boots with {' '.join(given) if given else 'every default'}"


def check_document(parsed: Parsed) -> Json:
    return {
        "ok": parsed.is_clean,
        "boots": not parsed.errors,
        "problems": [{"severity": problem.severity.value, "parameter": problem.parameter, "what": problem.what,
                      "hint": problem.hint} for problem in parsed.problems],
        "parameters": [{"name": name, "value": _or_null(value), "source": source.value}
                       for name, value, source in parsed.described()],
    }


def _list(*, as_json: bool, out: typing.TextIO) -> int:
    if as_json:
        write_document(out, {"parameters": [row_document(row) for row in PARAMS]})
        return 0
    table = lay_table([(row.name, text(row.default).ljust(8), row.help) for row in PARAMS], width_of(out))
    out.writelines(f"{line}\n" for line in table)
    return 0


def _explain(name: str, *, as_json: bool, out: typing.TextIO) -> int:
    row = find(name)
    if row is None:
        near = closest(name, (param.name for param in PARAMS))
        raise FormatError((f"{name}: unknown" + (f", did you mean {near}?" if near else "; see nvrc params list"),))
    if as_json:
        write_document(out, row_document(row))
    else:
        write_text(out, _explanation(row))
    return 0


def row_document(row: Param) -> Json:
    return {
        "name": row.name, "old_names": list(row.aliases), "form": row.kind.form, "default": _or_null(text(row.default)),
        "step": row.step, "sensitivity": row.sensitivity.value, "since": row.since, "help": row.help, "more": row.more,
    }


def _or_null(value: str) -> str | None:
    return None if value == UNSET else value


def _explanation(row: Param) -> str:
    facts = [("form", row.kind.form), ("default", text(row.default)), ("read by", row.step),
             ("worst case", row.sensitivity.value), ("since", row.since), ("old names", ", ".join(row.aliases))]
    lines = [row.name, f"  {row.help}.", *(f"  {label + ':':<12}{value}" for label, value in facts if value)]
    return "\n".join(lines + ([f"  {row.more}"] if row.more else [])) + "\n"
