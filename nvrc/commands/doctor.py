# SPDX-License-Identifier: Apache-2.0
"""`nvrc doctor`: what a report or a console log says, what it means, and who has to act."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import TextIO

from nvrc.commands.status import find_status
from nvrc.report import report, status
from nvrc.report.diagnosis import Diagnosis, State, diagnose_console, diagnose_report, diagnose_status
from nvrc.vocabulary import paths
from nvrc.vocabulary.console import printable
from nvrc.vocabulary.document import read_as, read_input
from nvrc.vocabulary.jsontext import encode

NAME = "doctor"
HELP = "explain a boot report or a console log: what failed, why, who must act"
EPILOG = """\
examples:
  nvrc doctor                      this VM: its boot, and what has happened since
  nvrc doctor console.log          what the host kept of the serial console
  kubectl logs ... | nvrc doctor - any text with the console's lines in it
  nvrc doctor boot.json --json     for machines

Exit status 1 if something failed, degraded or never finished."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", nargs="?", help="report, status or console log, - for stdin "
                        f"(default: {paths.REPORT} and the live status)")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace, out: TextIO) -> int:
    diagnosis = diagnose(args.file, read_input(args.file)) if args.file else diagnose_vm()
    if args.json:
        out.write(encode(diagnosis).decode())
    else:
        out.writelines(f"{line}\n" for line in show(diagnosis))
    return 0 if diagnosis.state in (State.READY, State.ENDED) else 1


def diagnose(path: str, data: bytes) -> Diagnosis:
    """A document if it begins like one, else text of a console."""
    if not data.lstrip().startswith(b"{"):
        # Not splitlines: a form feed in somebody's line must not make another line of its rest.
        return diagnose_console(data.decode(errors="replace").split("\n"))
    if b'"services"' in data:
        return diagnose_status(read_as(status.from_json, path, data))
    return diagnose_report(read_as(report.from_json, path, data))


def diagnose_vm(report_path: str = paths.REPORT, socket: str = paths.CONTROL,
                status_path: str = paths.STATUS) -> Diagnosis:
    """The boot of the VM that this runs in, unless something has happened to it since."""
    booted = diagnose(report_path, read_input(report_path))
    try:
        path, data = find_status(socket, status_path)
    except OSError:
        return booted
    lives = diagnose_status(read_as(status.from_json, path, data))
    return booted if lives.state is State.READY else replace(lives, finished_steps=booted.finished_steps)


def show(diagnosis: Diagnosis) -> Iterator[str]:
    yield printable(f"{diagnosis.state.value}: {diagnosis.summary}")
    failure = diagnosis.failure
    rows = (("what", failure.what if failure else ""), ("hint", failure.hint if failure else ""),
            ("meaning", diagnosis.meaning), ("remedy", diagnosis.remedy), ("who", diagnosis.who))
    told: set[str] = set()
    for name, text in rows:
        if text and text not in told:
            yield f"  {name:8} {printable(text)}"
            told.add(text)
    for trouble in diagnosis.also:
        yield printable(f"  {'also':8} {trouble.code} {trouble.what}: {trouble.hint}")
    if diagnosis.finished_steps:
        yield f"  {'steps':8} {printable(', '.join(diagnosis.finished_steps))}"
    for text in diagnosis.warnings:
        yield f"  {'warning':8} {printable(text)}"
