# SPDX-License-Identifier: Apache-2.0
"""What a run means, row by row: good or not, which code, and the words that a reader gets."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest

from nvrc_lab.ground.hosttime import Clocks, Host
from nvrc_lab.watch.console import Story, hear_bytes, hear_line
from nvrc_lab.watch.verdict import Judgement, judge
from nvrc_lab.watch.view import Live, Plain, Silent, choose_view, conclusion, cut, table
from nvrc_lab.watch.watch import Ending, Run

STEP = "[    2.842613] nvrc: step filesystems ok 0.018s"
SLOW = "nvrc: step journal warn 1.800s slow disk"
READY = "nvrc: READY in 1.234s mode=cpu gpus=0 cdi=0 agent=87"
END = 'nvrc: END code=OK what="the agent powered off"'
BAD_END = 'nvrc: END code=E_AGENT_EXIT what="the agent exited with status 3"'
FATAL = 'nvrc: FATAL code=E_MOUNT step=filesystems what="no proc" hint="check the kernel"'
LATE = 'nvrc: FATAL code=E_AGENT_EXIT step=supervise what="the agent exited with status 3" hint="read its lines"'
PANIC = "[    1.6] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100"


def run_of(*lines: str, ending: Ending = Ending.GUEST, status: int = 0, complaint: str = "") -> Run:
    story = Story()
    for line in lines:
        story = hear_line(hear_bytes(story, line.encode() + b"\n"), line, 2.0)
    return Run(story=story, ending=ending, status=status, complaint=complaint, seconds=4.2, console=Path("/c"))


def noise(ending: Ending) -> Run:
    return Run(story=hear_bytes(Story(), b"\xff\x00" * 50), ending=ending, status=0, complaint="", seconds=9,
               console=Path("/c"))


ROWS = {
    "ready and an orderly end": (run_of(STEP, READY, END), True, "OK", "the agent powered off"),
    "ready and stopped by us": (run_of(READY, ending=Ending.STOPPED, status=-15), True, "OK", "stopped the machine"),
    "ready and never an end": (run_of(READY, ending=Ending.DEADLINE), False, "-", "still ran after 4 s"),
    "ready and gone without a word": (run_of(READY), False, "-", "without saying why"),
    "ready and a bad end": (run_of(READY, BAD_END), False, "E_AGENT_EXIT", "exited with status 3"),
    "ready and a failure later": (run_of(READY, LATE), False, "E_AGENT_EXIT", "supervise: the agent exited"),
    "ready, then stopped, with a failure": (
        run_of(READY, LATE, ending=Ending.STOPPED), False, "E_AGENT_EXIT", "supervise"),
    "a failed step": (run_of(FATAL), False, "E_MOUNT", "filesystems: no proc"),
    "a failed step on a machine that stays": (run_of(FATAL, ending=Ending.DEADLINE), False, "E_MOUNT", "no proc"),
    "ready twice": (run_of(READY, READY, END), False, "-", "gave 3 verdicts"),
    "an end of a container's making hides none": (run_of(READY, END, BAD_END), False, "-", "gave 3 verdicts"),
    "the same, the other way round": (run_of(READY, BAD_END, END), False, "-", "one of them is forged"),
    "an end, then a failure": (run_of(READY, END, LATE), False, "-", "one of them is forged"),
    "an end, then ready": (run_of(END, READY, END), False, "-", "one of them is forged"),
    "failed twice": (run_of(FATAL, FATAL), False, "-", "gave 2 verdicts"),
    "failed, then ready": (run_of(FATAL, READY), False, "-", "gave 2 verdicts"),
    "ready, then a failed step": (run_of(READY, FATAL), False, "-", "one of them is forged"),
    "a panic": (run_of(STEP, PANIC), False, "-", "panicked: Attempted to kill init!"),
    "a panic after ready": (run_of(READY, PANIC), False, "-", "panicked"),
    "QEMU refuses": (run_of(status=1, complaint="qemu: a\nqemu: no such device"), False, "-", "status 1 before the "
                     "guest said anything: qemu: no such device"),
    "QEMU crashes": (run_of(status=-11, complaint="a\nb"), False, "-", "ended by SIGSEGV after 4.2 s, not by the guest: b"),
    "QEMU is killed before a word": (run_of(status=-9), False, "-", "ended by SIGKILL after 4.2 s, not by the guest"),
    "QEMU is killed after ready": (run_of(READY, status=-9), False, "-", "ended by SIGKILL"),
    "QEMU is killed after all was said": (run_of(READY, END, status=-9), False, "-", "ended by SIGKILL"),
    "QEMU ends with a signal without a name": (run_of(status=-40), False, "-", "ended by signal 40"),
    "silence": (run_of(ending=Ending.SILENCE), False, "-", "stayed empty for 4 s"),
    "silence to the deadline": (run_of(ending=Ending.DEADLINE), False, "-", "stayed empty"),
    "garbage": (noise(Ending.DEADLINE), False, "-", "garbage: 100 of 100 bytes"),
    "garbage and an end": (noise(Ending.GUEST), False, "-", "garbage"),
    "an end without a verdict": (run_of("Linux", STEP), False, "-", "ended after 4.2 s without a verdict"),
    "no verdict in time": (run_of("Linux", STEP, ending=Ending.DEADLINE), False, "-", "last finished step: filesystems"),
    "stuck in the kernel": (run_of("Linux", ending=Ending.SILENCE), False, "-", "last finished step: none"),
}


@pytest.mark.parametrize(("run", "is_good", "code", "words"), ROWS.values(), ids=ROWS)
def test_what_a_run_means(run: Run, is_good: bool, code: str, words: str) -> None:
    judgement = judge(run)
    assert (judgement.is_good, judgement.code) == (is_good, code)
    assert words in judgement.what
    assert bool(judgement.hint) is not is_good


def plain(text: str) -> list[str]:
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()]


def test_the_table_has_a_row_for_each_step_and_bars_by_time() -> None:
    assert plain("\n".join(table(run_of(STEP, SLOW, "nvrc: warn careful").story))) == [
        "· kernel            2.843 s  until PID 1's first line",
        "✓ filesystems       0.018 s  ▇",
        "! journal           1.800 s  ▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇ slow disk",
        "! careful",
    ]


def test_a_log_gets_each_step_once_and_a_conclusion() -> None:
    out, run = io.StringIO(), run_of(STEP, SLOW, READY, END)
    view, story = Plain(out), Story()
    for line in (STEP, SLOW, SLOW.replace("journal", "topology"), "nvrc: warn careful"):
        story = hear_line(story, line, 3.0)
        view.update(story, (line,), 3.1)
        view.update(story, (), 3.2)
    view.finish(run, judge(run))
    assert out.getvalue().splitlines() == [
        "   3.00  ✓ filesystems       0.018 s",
        "   3.00  ! journal           1.800 s  slow disk",
        "   3.00  ! topology          1.800 s  slow disk",
        "   3.10  ! careful",
        "✓ READY in 1.234 s mode=cpu gpus=0 cdi=0 agent=87",
        "✓ the agent powered off, 4.2 s in all",
        "  console: /c",
    ]


def test_everything_means_every_console_line() -> None:
    out = io.StringIO()
    Plain(out, everything=True).update(Story(), ("Linux", STEP), 0.5)
    assert out.getvalue().splitlines() == ["   0.50  Linux", f"   0.50  {STEP}"]


def test_a_failure_says_what_to_do_and_where_the_console_is() -> None:
    run = run_of("agent: last words", PANIC)
    lines = conclusion(run, judge(run))
    assert lines[0].startswith("✗ the guest kernel panicked")
    assert lines[1].startswith("  what to do: read the kernel's last lines")
    assert lines[2:] == ["  | agent: last words", f"  | {PANIC}", "  console: /c"]


def test_the_code_of_a_failed_step_is_shown() -> None:
    assert conclusion(run_of(FATAL), judge(run_of(FATAL)))[0] == "✗ filesystems: no proc [E_MOUNT], 4.2 s in all"


class Screen:
    """A terminal that knows what our view uses: text, line ends, cursor up, clear below."""

    def __init__(self) -> None:
        self.lines: list[str] = [""]
        self.row = 0

    def show(self, text: str) -> None:
        for piece in re.findall(r"\x1b\[\d+A|\x1b\[J|\x1b\[[0-9;]*m|\r|\n|[^\x1b\r\n]+", text):
            if piece == "\n":
                self.row += 1
                self.lines += [""] * (self.row + 1 - len(self.lines))
            elif piece == "\x1b[J":
                self.lines[self.row:] = [""]
            elif piece.endswith("A") and piece.startswith("\x1b["):
                self.row -= int(piece[2:-1])
                assert self.row >= 0, "above the top of the screen"
            elif not piece.startswith(("\x1b", "\r")):
                self.lines[self.row] += piece


def test_the_terminal_is_redrawn_in_place() -> None:
    out, screen = io.StringIO(), Screen()
    view, story = Live(out, (80, 24)), Story()
    for number, line in enumerate(("Linux version", STEP, SLOW, READY)):
        story = hear_line(story, line, 2.0)
        view.update(story, (line,), float(number))
    run = run_of("agent: words", STEP, SLOW, READY, END)
    view.finish(run, judge(run))
    screen.show(out.getvalue())
    assert [line.rstrip() for line in screen.lines] == [
        "· kernel            2.843 s  until PID 1's first line",
        "✓ filesystems       0.018 s  ▇",
        "! journal           1.800 s  ▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇ slow disk",
        "", "  | agent: words", "",
        "✓ READY in 1.234 s mode=cpu gpus=0 cdi=0 agent=87",
        "✓ the agent powered off, 4.2 s in all", "  console: /c", "",
    ]


def test_a_small_terminal_shows_the_last_lines() -> None:
    out, story = io.StringIO(), Story()
    for number in range(30):
        story = hear_line(story, f"nvrc: step s{number} ok 0.010s", 1.0)
    Live(out, (40, 10)).update(story, (), 1.0)
    lines = plain(out.getvalue().replace("\r\x1b[J", ""))
    assert len(lines) == 9
    assert lines[-2].startswith("✓ s29")


WAITS = {
    "before the first word": ((), "waiting for the guest's first word"),
    "in the kernel": (("Linux",), "kernel is running"),
    "between steps": ((STEP,), "next step is running"),
    "after READY": ((READY,), "waiting for the agent to end"),
}


@pytest.mark.parametrize(("lines", "words"), WAITS.values(), ids=WAITS)
def test_what_is_waited_for_is_said(lines: tuple[str, ...], words: str) -> None:
    out = io.StringIO()
    Live(out, (120, 24)).update(run_of(*lines).story, (), 7.3)
    assert words in out.getvalue()
    assert "7.3 s" in out.getvalue()


def test_nothing_is_drawn_twice() -> None:
    out = io.StringIO()
    view, story = Live(out, (80, 24)), run_of(STEP).story
    view.update(story, (), 1.01)
    once = out.getvalue()
    view.update(story, (), 1.02)
    assert out.getvalue() == once


def test_long_lines_are_cut_to_the_terminal() -> None:
    assert cut("x" * 100, 20) == "x" * 18 + "…"
    assert cut("short", 20) == "short"


def test_a_run_whose_clock_went_away_is_no_good() -> None:
    away = replace(run_of(READY, END), clocks=Clocks(first=(3.0, 4.0), last=(348.0, 30.7)))
    assert judge(away).is_good
    found = judge(away, has_host_clock=True)
    assert (found.is_good, "345.0 s in the guest were 26.7 s on the host" in found.what) == (False, True)
    assert judge(replace(away, story=run_of(FATAL).story), has_host_clock=True).code == "E_MOUNT"


@pytest.mark.parametrize("run", [run_of(ending=Ending.SILENCE), run_of(STEP, ending=Ending.DEADLINE),
                                 run_of(READY, ending=Ending.DEADLINE)], ids=["silent", "no verdict", "endless"])
def test_a_time_out_on_a_busy_host_says_so(run: Run) -> None:
    busy = replace(run, host=Host(starved_s=3.0, load=21.0))
    assert "the host was busy: of 4 s the machine waited 3 s for a processor, load 21.0" in judge(busy).what
    assert "busy" not in judge(run).what


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_view_fits_the_place() -> None:
    kinds = [type(choose_view(stream, is_json=is_json, everything=everything)) for stream, is_json, everything in (
        (io.StringIO(), False, False), (Terminal(), False, False), (Terminal(), False, True), (Terminal(), True, False))]
    assert kinds == [Plain, Live, Plain, Silent]


@pytest.mark.parametrize(("environment", "kind", "colours"), [
    pytest.param({}, Live, True, id="terminal"), pytest.param({"NO_COLOR": ""}, Live, True, id="NO_COLOR empty"),
    pytest.param({"NO_COLOR": "1"}, Live, False, id="NO_COLOR"), pytest.param({"TERM": "dumb"}, Plain, False, id="dumb"),
])
def test_the_view_does_without_colours_where_they_are_not_wanted(environment: dict[str, str], kind: type, *, colours: bool) -> None:
    terminal = Terminal()
    view = choose_view(terminal, is_json=False, everything=False, environment=environment)
    run = run_of(STEP)
    view.update(run.story, (STEP,), 1.0)
    assert type(view) is kind
    assert ("\x1b[32m" in terminal.getvalue()) is colours


def test_the_silent_view_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(STEP)
    Silent().update(run.story, (STEP,), 1.0)
    Silent().finish(run, Judgement(is_good=True, code="OK", what="x"))
    assert capsys.readouterr().out == ""
