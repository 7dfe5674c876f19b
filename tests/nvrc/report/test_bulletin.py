# SPDX-License-Identifier: Apache-2.0
"""What PID 1 tells on its own: report and status as files, and the report on the console, one without the other."""

from __future__ import annotations

import errno
import gc
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes.system import FakeSystem, bare_guest
from nvrc.engine.executor import Executor
from nvrc.engine.table import Step
from nvrc.machine.journal import Journal
from nvrc.machine.loop import Loop
from nvrc.report.bulletin import TIDY_EVERY, Bulletin
from nvrc.report.report import Report, from_json
from nvrc.vocabulary import paths
from nvrc.vocabulary.transcript import parse_report_piece
from nvrc.vocabulary.verdict import Verdict


@dataclass
class FullSystem(FakeSystem):
    """One whose /run has no room left."""

    def publish(self, path: str, data: bytes, mode: int = 0o644) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def open_bulletin(system: FakeSystem, cmdline: str) -> Bulletin:
    system.put("/proc/cmdline", cmdline)
    system.make_dir(paths.RUN)
    loop = Loop(system.now)
    executor = Executor(system, loop, (Step("parameters"),), finished=lambda _r, _f: None,
                        alarm=lambda _s: None)
    executor.run()
    loop.close()
    return Bulletin(system, executor, 99.5)


def printed(system: FakeSystem) -> Report | None:
    text = "".join(piece for piece in map(parse_report_piece, system.said) if piece is not None)
    return from_json(text.encode()) if text else None


def full_guest(root: Path) -> FakeSystem:
    bare_guest(str(root))
    return FullSystem(str(root))


def test_the_console_has_the_report_also_where_run_is_full(tmp_path: Path) -> None:
    system = full_guest(tmp_path)
    open_bulletin(system, "nvrc.report=console").publish(Verdict.FAILED, Journal(system), None)
    report = printed(system)
    assert report is not None
    assert report.verdict is Verdict.FAILED
    assert [line for line in system.said if "no report below /run/nvrc: OSError: [Errno 28] No space left" in line]
    assert not system.exists(paths.REPORT)


def test_files_and_console_have_the_same_report(tmp_path: Path) -> None:
    system = bare_guest(str(tmp_path))
    bulletin = open_bulletin(system, "nvrc.report=console")
    bulletin.publish(Verdict.READY, Journal(system), None)
    assert printed(system) == from_json(system.read(paths.REPORT))
    assert json.loads(system.read(paths.STATUS))["verdict"] == bulletin.verdict.value == "ready"


def test_a_verdict_that_is_no_news_is_not_printed_again(tmp_path: Path) -> None:
    system = bare_guest(str(tmp_path))
    bulletin = open_bulletin(system, "nvrc.report=console")
    bulletin.publish(Verdict.READY, Journal(system), None)
    system.said.clear()
    bulletin.publish(Verdict.READY, Journal(system), None)
    assert printed(system) is None


@pytest.mark.parametrize("make", [bare_guest, lambda root: full_guest(Path(root))], ids=["room", "full"])
def test_nobody_asked_for_the_console(tmp_path: Path, make: type[FakeSystem]) -> None:
    system = make(str(tmp_path))
    open_bulletin(system, "quiet").publish(Verdict.READY, Journal(system), None)
    assert printed(system) is None


@pytest.mark.long
def test_telling_the_status_again_and_again_keeps_nothing(tmp_path: Path) -> None:
    """Blocks of the interpreter, which counts what it keeps for later as taken."""
    bulletin, journal = open_bulletin(system := bare_guest(str(tmp_path)), ""), Journal(system)

    def tell(times: int) -> int:
        for _ in range(times):
            assert bulletin.live(journal, None)
        return sys.getallocatedblocks()

    gc.collect()
    before = tell(TIDY_EVERY)
    assert tell(4 * TIDY_EVERY) - before < TIDY_EVERY


def test_a_host_that_cannot_be_answered_is_worth_a_word(tmp_path: Path) -> None:
    """A descriptor of a file stands for whatever the kernel refuses there."""
    system = bare_guest(str(tmp_path))
    bulletin, loop = open_bulletin(system, ""), Loop(system.now)
    with (tmp_path / "plain").open("w") as plain:
        bulletin.serve_host(loop, plain.fileno(), lambda: b"")
    loop.close()
    assert [line for line in system.said if "PID 1 does not answer the host: " in line]
