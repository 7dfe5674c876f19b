# SPDX-License-Identifier: Apache-2.0
"""`nvrc doctor`: what a host's log, a pod's events, a console or a report say, what it means, and who acts."""

from __future__ import annotations

import argparse
import gzip
import io
import os
import sys
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO, TextIO

from nvrc.commands.status import find_status
from nvrc.hostlogs import documents
from nvrc.hostlogs.collect import Collector, collect
from nvrc.hostlogs.lines import CHUNK, mark, rejoin, split_lines, unfold, unpack
from nvrc.hostlogs.unwrap import FORMATS
from nvrc.report import report, status
from nvrc.report.diagnosis import Diagnosis, State, diagnose_report, diagnose_status
from nvrc.vocabulary import paths
from nvrc.vocabulary.console import printable, sentence
from nvrc.vocabulary.document import LIMIT, STDIN, read_as, read_input
from nvrc.vocabulary.jsonread import FormatError
from nvrc.vocabulary.output import write_document
from nvrc.vocabulary.terminal import UNLIMITED, fold, width_of, wrap

NAME = "doctor"
HELP = "explain why a VM failed, from what a host has: what happened, why, who must act"
EPILOG = """\
examples:
  nvrc doctor                             this VM: its boot, and what has happened since
  kubectl describe pod p | nvrc doctor -  the pod's events
  journalctl -t kata | nvrc doctor -      every VM in the log
  nvrc doctor kata.log --sandbox 4f2a     only the one whose id begins so
  nvrc doctor console.log                 what the host kept of the serial console
  nvrc doctor boot.json --json            for machines
  nvrc doctor --host                      this host: is what pods with GPUs need there? Read-only
  kubectl get node n -o json | nvrc doctor --host --node -     and do the node's labels say the same
  nvrc doctor --host --root DIR           a copy of another host's /sys, /proc, /etc, /opt and /var

Exit status 1 if something failed, degraded, never finished or is missing, 2 if nothing in the input is known."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", nargs="?", help="log, events, console, report or status, - for stdin "
                        f"(default: {paths.REPORT} and the live status)")
    parser.add_argument("--sandbox", metavar="ID", default="", help="only the VM whose id begins with ID")
    parser.add_argument("--host", action="store_true", help="judge a Kata host instead, before a pod fails on it")
    parser.add_argument("--root", metavar="DIR", default="/", help="with --host: where its files are (%(default)s)")
    parser.add_argument("--node", metavar="FILE", help="with --host: its Node as JSON, - for stdin")
    parser.add_argument("--export", metavar="DIR", help="with --host: leave metrics and a node condition there")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace, out: TextIO) -> int:
    if args.host:
        return _judge_host(args, out)
    if args.node or args.export or args.root != "/":
        raise FormatError(("--root, --node and --export are for --host",))
    found = diagnose(args.file, only=args.sandbox) if args.file else (diagnose_vm(),)
    if args.json:
        write_document(out, {"diagnoses": found})
    else:
        width = width_of(out)
        for index, diagnosis in enumerate(found):
            out.writelines(["\n"] if index else [])
            out.writelines(f"{line}\n" for line in show(diagnosis, width))
    return 0 if all(one.state in (State.READY, State.ENDED) for one in found) else 1


def _judge_host(args: argparse.Namespace, out: TextIO) -> int:
    if args.file or args.sandbox:
        raise FormatError(("--host judges this machine or --root DIR, and reads no log",))
    if not os.path.isdir(args.root):
        raise FormatError((f"--root: {printable(args.root)} is not a folder",))
    try:
        from nvrc.commands import doctor_host
    except ModuleNotFoundError as err:  # the frozen init is for guests, and goes without
        raise FormatError(("this build of nvrc judges no hosts; install the wheel on the host",)) from err
    return doctor_host.run(args.root, args.node, out, as_json=args.json, folder=args.export)


def diagnose(path: str, only: str = "") -> tuple[Diagnosis, ...]:
    if path == STDIN:
        return _diagnose_packed("standard input", sys.stdin.buffer, only)
    with open(path, "rb") as stream:
        return _diagnose_packed(path, stream, only)


def _diagnose_packed(path: str, stream: BinaryIO, only: str) -> tuple[Diagnosis, ...]:
    try:
        return diagnose_stream(path, unpack(stream) if isinstance(stream, io.BufferedReader) else stream, only)
    except (EOFError, gzip.BadGzipFile, zlib.error) as err:
        raise FormatError((f"{path}: its gzip stream is damaged or cut off: {err}",)) from err


def diagnose_stream(path: str, stream: BinaryIO, only: str = "") -> tuple[Diagnosis, ...]:
    """A document of ours, or lines: as they are, or the texts of a document of others."""
    head = stream.read(CHUNK)
    lines = split_lines(stream, head)
    if documents.may_be_one(head):
        data = head + stream.read(LIMIT)
        value = documents.parse(data)
        if documents.is_ours(value, data):
            return (_diagnose_document(path, data),)
        lines = split_lines(io.BytesIO(data)) if value is None else documents.texts(value)
    collector = collect(rejoin(mark(unfold(lines))), only)
    return collector.diagnose() or _refuse(path, collector, only)


def _refuse(path: str, collector: Collector, only: str) -> tuple[Diagnosis, ...]:
    if only:
        names = ", ".join(printable(name, 70) for name in collector.names[:10])
        there = f"; there are {names}" if names else ""
        raise FormatError((f"{path}: no line of a sandbox whose id begins with {only!a}{there}",))
    raise FormatError((f"{path}: nothing in it is known; doctor reads " + "; ".join(FORMATS),))


def _diagnose_document(path: str, data: bytes) -> Diagnosis:
    if b'"services"' in data:
        return diagnose_status(read_as(status.from_json, path, data))
    return diagnose_report(read_as(report.from_json, path, data))


def diagnose_vm(report_path: str = paths.REPORT, socket: str = paths.CONTROL,
                status_path: str = paths.STATUS) -> Diagnosis:
    """The boot of the VM that this runs in, unless something has happened to it since."""
    booted = _diagnose_document(report_path, read_input(report_path))
    try:
        path, data = find_status(socket, status_path)
    except OSError:
        return booted
    lives = diagnose_status(read_as(status.from_json, path, data))
    return booted if lives.state is State.READY else replace(lives, finished_steps=booted.finished_steps)


def show(diagnosis: Diagnosis, width: int = UNLIMITED) -> Iterator[str]:
    """The headline, then a row for each thing to know. No sentence is told twice."""
    if diagnosis.sandbox:
        yield from wrap(printable(f"sandbox {diagnosis.sandbox}"), width)
    yield from wrap(printable(f"{diagnosis.state.value}: {diagnosis.summary}"), width)
    told = Told(diagnosis.summary)
    for label, text in _rows(diagnosis):
        if news := told.news(text):
            yield from fold(label, printable(news), width)


def _rows(diagnosis: Diagnosis) -> Iterator[tuple[str, str]]:
    failure = diagnosis.failure
    if failure:
        yield "what", failure.what
    yield "cause", diagnosis.cause
    yield from (("evidence", line) for line in diagnosis.evidence)
    if failure:
        yield "do", failure.hint
    yield "do", diagnosis.remedy
    yield "who", diagnosis.who
    yield from (("also", f"{sentence(trouble)}: {trouble.hint}".strip()) for trouble in diagnosis.also)
    yield "steps", ", ".join(diagnosis.finished_steps)
    yield from (("warning", text) for text in diagnosis.warnings)
    if diagnosis.alike:
        yield "alike", " ".join(diagnosis.alike)
    if diagnosis.more_warnings:
        yield "warning", f"and {diagnosis.more_warnings} more"


class Told:
    """Sentences that were said: a hint often is a cause and a remedy that stand elsewhere, too."""

    def __init__(self, text: str) -> None:
        self._all = [text]

    def news(self, text: str) -> str:
        """What is new in a text of one or more parts; empty if nothing is."""
        parts = [part for part in text.split(": ") if not any(part in said for said in self._all)] if text else []
        if not parts:
            return ""
        self._all.append(text)
        kept = text
        for known in [said for said in self._all[:-1] if len(said) > 20]:
            kept = kept.removeprefix(f"{known}: ").removesuffix(f": {known}")
        return kept
