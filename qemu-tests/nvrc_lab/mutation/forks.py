# SPDX-License-Identifier: Apache-2.0
"""Asks the same tests about one mutant after another: `python -P forks.py ROOT MODULE here|apart TEST ...`, in ROOT.

pytest collects once. Each line of JSON on stdin gets a fork of the collected session in which the functions of the
module have the code of its "source", and one line of JSON on stdout: true, noticed (or not ended within "limit_s");
false, not noticed; null, the source differs outside of functions, so nothing was asked. What noticed last is asked
first. Not noticed is no proof here: values that were computed while collecting are those of the original. A fork may
take "bytes" of memory, and of the processor five times what the first one took and "spare_s": more would never end.
`apart`: a fork has a mount namespace of its own, so that one which takes the root away takes it from nobody else.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import gc
import json
import math
import os
import resource
import select
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import CodeType, FunctionType
from typing import BinaryIO

import pytest

CLONE_NEWNS = 0x20000


def main(root: Path, module: str, where: str, words: Sequence[str]) -> int:
    with open(os.dup(0), "rb") as questions, open(os.dup(1), "wb") as answers:
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(nothing, number)
        session = Session(root / module, where == "apart", questions, answers)
        return int(pytest.main(["-s", *words], plugins=[session]))


class Session:
    """A pytest plugin. State: the file that the name of a test that noticed goes to, and how much of the processor the
    first fork took, whose module is unharmed."""

    def __init__(self, module: Path, apart: bool, questions: BinaryIO, answers: BinaryIO) -> None:
        self._module, self._apart, self._questions, self._answers = module, apart, questions, answers
        self._told = -1
        self._used_s: float | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """None in a fork: then pytest runs the tests, and main() ends as it would."""
        original = self._module.read_text(encoding="utf-8")
        gc.collect()
        gc.freeze()
        for line in self._questions:
            question = json.loads(line)
            answer: bool | None = None
            if only_functions_differ(original, question["source"]):
                if (child := self._fork()) == 0:
                    self._bound(question)
                    replace_code(str(self._module), original, question["source"])
                    return None
                answer = ended(child, question["limit_s"], self._questions)
                if self._used_s is None:
                    self._used_s = processor_s()
                self._ask_first(session)
            self._answers.write(json.dumps(answer).encode() + b"\n")
            self._answers.flush()
        os._exit(0)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            os.write(self._told, report.nodeid.encode())

    def _fork(self) -> int:
        with contextlib.suppress(OSError):
            os.close(self._told)
        self._told = os.memfd_create("noticed")
        if (child := os.fork()) == 0:
            os.setsid()
            if self._apart and ctypes.CDLL(None).unshare(CLONE_NEWNS):
                os._exit(1)
        return child

    def _bound(self, question: Mapping[str, int]) -> None:
        resource.setrlimit(resource.RLIMIT_AS, (question["bytes"], question["bytes"]))
        if self._used_s is not None:
            limit_s = math.ceil(5 * self._used_s + question["spare_s"])
            resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s))

    def _ask_first(self, session: pytest.Session) -> None:
        name = os.pread(self._told, 4096, 0).decode()
        session.items.sort(key=lambda item: item.nodeid != name)


def processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def only_functions_differ(before: str, after: str) -> bool:
    return skeleton(before) == skeleton(after)


def skeleton(source: str) -> str:
    """The program without what is in its functions."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = []
    return ast.dump(tree)


def replace_code(path: str, before: str, after: str) -> None:
    """Functions stay the objects that others have imported; only what they do is another's."""
    pairs = zip(codes(compile(before, path, "exec")), codes(compile(after, path, "exec")), strict=True)
    changed = {(old.co_qualname, old.co_firstlineno): new for old, new in pairs}
    gc.unfreeze()
    for function in [found for found in gc.get_objects() if isinstance(found, FunctionType)]:
        code = function.__code__
        new = changed.get((code.co_qualname, code.co_firstlineno)) if code.co_filename == path else None
        if new is not None and len(new.co_freevars) == len(code.co_freevars):
            function.__code__ = new


def codes(code: CodeType) -> Iterator[CodeType]:
    """Of functions that exist when the module is loaded. Those inside of functions come with these."""
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            if inner.co_flags & 0x2:  # CO_NEWLOCALS: a function, where a class body has none
                yield inner
            else:
                yield from codes(inner)


def ended(child: int, limit_s: float, questions: BinaryIO) -> bool:
    """Whether it noticed. Killed at its limit, or as the one who asks is gone; what it left running goes too."""
    watched = os.pidfd_open(child)
    try:
        ready, _, _ = select.select([watched, questions.fileno()], [], [], limit_s)
    finally:
        os.close(watched)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return watched not in ready or status != 0


if __name__ == "__main__":
    os._exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]))
