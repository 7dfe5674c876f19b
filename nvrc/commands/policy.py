# SPDX-License-Identifier: Apache-2.0
"""`nvrc policy`: read, explain and draft the policy of an image, before it is in one.

Off the boot path. Decides nothing: nvrc.params.policy is what the boot and the factory read a policy with.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from typing import TextIO

from nvrc.commands.params import FINDING, check_document, show_check
from nvrc.params.cmdline import word
from nvrc.params.explanation import explain
from nvrc.params.parse import parse
from nvrc.params.policy import Policy, load_policy
from nvrc.params.suggestion import suggest
from nvrc.vocabulary.console import printable
from nvrc.vocabulary.document import read_input
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.jsonread import FormatError
from nvrc.vocabulary.output import write_document
from nvrc.vocabulary.terminal import write_text
from nvrc.vocabulary.tomltext import parse_toml

NAME = "policy"
HELP = "check, explain and draft the policy of an image"
EPILOG = """\
examples:
  nvrc policy check policy.toml                         every mistake in it, as a build or a boot would find it
  nvrc policy check policy.toml --cmdline 'nvrc.cc=on'  and what it makes of a line
  nvrc policy explain policy.toml                       what each row allows, in words
  nvrc policy suggest --class configuration-qemu-nvidia-gpu-snp.toml 'nvrc.log=info' 'nvrc.gpus=8 nvrc.log=info'
  nvrc policy suggest "$(cat /proc/cmdline)" >policy.toml

suggest: one LINE for each usual pod, what its annotation adds to the class's own parameters, or a whole line without
--class; - reads lines from standard input. Exit status: 0 good, 1 a finding, 2 it could not be read.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="check|explain|suggest", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true", help="print one JSON document")
    check = actions.add_parser("check", parents=[shared], help="say what is wrong with a policy and a line under it")
    check.add_argument("file", metavar="FILE", help="policy.toml")
    check.add_argument("--cmdline", metavar="TEXT", help="a kernel command line to judge, too")
    about = actions.add_parser("explain", parents=[shared], help="say what each row of a policy allows")
    about.add_argument("file", metavar="FILE", help="policy.toml")
    draft = actions.add_parser("suggest", parents=[shared], help="print a policy that allows these lines and no others")
    draft.add_argument("--class", metavar="TOML", dest="kata", help="configuration of a Kata runtime class")
    draft.add_argument("lines", metavar="LINE", nargs="*", help="kernel parameters of a pod, or - for standard input")


def run(args: argparse.Namespace, out: TextIO) -> int:
    if args.action == "suggest":
        return _suggest(list(_lines(args)), as_json=args.json, out=out)
    data = read_input(args.file)
    if args.action == "explain":
        return _explain(load_policy(data, args.file), as_json=args.json, out=out)
    try:
        policy = load_policy(data, args.file)
    except NvrcError as err:
        if args.json:
            write_document(out, {"ok": False, "mistakes": [err.what]})
        else:
            write_text(out, printable(f"{err.what}") + "\n")
        return FINDING
    return _check(policy, args, out)


def _check(policy: Policy, args: argparse.Namespace, out: TextIO) -> int:
    parsed = None if args.cmdline is None else parse(os.fsencode(args.cmdline), policy)
    if args.json:
        write_document(out, {"ok": parsed is None or parsed.is_clean, "mistakes": [], "sha256": policy.sha256,
                             "line": None if parsed is None else check_document(parsed)})
    else:
        write_text(out, f"{printable(args.file)}: good, sha256 {policy.sha256}\n")
        if parsed is not None:
            show_check(parsed, out)
    return 0 if parsed is None or parsed.is_clean else FINDING


def _explain(policy: Policy, *, as_json: bool, out: TextIO) -> int:
    told = explain(policy)
    if as_json:
        write_document(out, {"sha256": policy.sha256, "rows": [row._asdict() for row in told]})
        return 0
    section = ""
    for row in told:
        if row.section != section:
            out.write(f"{row.section}:\n")
            section = row.section
        write_text(out, printable(f"  {row.name}: {row.effect}" if row.name else f"  {row.effect}") + "\n")
    return 0


def _suggest(lines: list[bytes], *, as_json: bool, out: TextIO) -> int:
    if not lines:
        raise FormatError(("no line to make a policy for; give --class, lines, or both",))
    found = suggest(lines)
    if as_json:
        write_document(out, {"policy": found.text, "left_out": list(found.left_out)})
    else:
        out.write(found.text)
        out.writelines(printable(f"# left out: {sentence}") + "\n" for sentence in found.left_out)
    return FINDING if found.left_out else 0


def _lines(args: argparse.Namespace) -> Iterator[bytes]:
    """The class's own line, and with what each pod adds; without a class the lines as they are."""
    given = [os.fsencode(line) for line in args.lines]
    if args.lines == ["-"]:
        given = [line for line in sys.stdin.buffer.read().splitlines() if line.strip()]
    if args.kata is None:
        yield from given
        return
    own = class_line(args.kata).encode("utf-8", "surrogateescape")
    yield own
    yield from (own + b" " + line for line in given)


def class_line(path: str) -> str:
    """What the runtime makes of a class's configuration: its parameters and those of its extensions."""
    try:
        hypervisors = parse_toml(read_input(path).decode())["hypervisor"]
        if not isinstance(hypervisors, dict):
            raise TypeError("hypervisor is not a table")
        words = []
        for section in hypervisors.values():
            words += [_text(section.get("kernel_params", ""))]
            words += [word(f"kata.extension.{_text(row['name'])}.verity_params", _text(row["verity_params"]))
                      for row in section.get("guest_extension_images", [])]
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise FormatError((f"{path}: no configuration of a Kata runtime class ({type(err).__name__}: {err})",)) from err
    return " ".join(filter(None, words))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    return value
