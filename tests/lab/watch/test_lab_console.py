# SPDX-License-Identifier: Apache-2.0
"""From console bytes to a story: our lines, everybody else's, and bytes that are nothing."""

from __future__ import annotations

import functools
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.trouble import trouble
from nvrc.vocabulary.transcript import EndLine, ReadyLine
from nvrc_lab.watch.console import LINE_LIMIT, TAIL_LINES, LineSplitter, Story, clean, hear_bytes, hear_line

READY = "nvrc: READY in 1.234s mode=cpu gpus=0 cdi=0 agent=87"
FATAL = 'nvrc: FATAL code=E_MOUNT step=filesystems what="no \\"proc\\"" hint="a \\\\ b"'


def read(*lines: str) -> Story:
    return functools.reduce(lambda story, line: hear_line(story, line, 1.5), lines, Story())


def split(*pieces: bytes) -> list[str]:
    splitter = LineSplitter()
    return [line for piece in pieces for line in splitter.feed(piece)] + splitter.flush()


def test_a_good_boot_is_told_whole() -> None:
    story = read(
        "[    0.000000] Linux version 6.12",
        "[    2.842613] nvrc: step filesystems ok 0.018s",
        "[    2.889391] nvrc: step journal skip 0.000s not asked for",
        "[    2.9] nvrc: warn nvrc.smi.src: unknown",
        f"[    2.982354] {READY}",
        "agent: acts poweroff",
        '[    3.136818] nvrc: END code=OK what="the agent powered off"',
    )
    assert [(step.line.name, step.line.outcome, step.line.seconds, step.line.detail) for step in story.steps] == [
        ("filesystems", "ok", 0.018, ""), ("journal", "skip", 0.0, "not asked for")]
    assert story.warnings == ("nvrc.smi.src: unknown",)
    assert story.ready == ReadyLine(1.234, "cpu", 0, 0, 87)
    assert story.failure is None
    assert story.end == EndLine("OK", "the agent powered off")
    assert (story.kernel_s, story.ready_heard_s) == (2.842613, 1.5)
    assert story.tail == ("[    0.000000] Linux version 6.12", "agent: acts poweroff")


def test_a_failed_boot_gives_its_reason_unescaped() -> None:
    story = read(FATAL)
    assert story.failure == trouble("E_MOUNT", "filesystems", 'no "proc"', "a \\ b")
    assert story.ready is None


def test_ready_first_and_fatal_later_is_both() -> None:
    story = read(READY, 'nvrc: FATAL code=E_AGENT_EXIT step=supervise what="x" hint="y"')
    assert story.ready is not None
    assert story.failure is not None
    assert story.failure.code == "E_AGENT_EXIT"


def test_fatal_first_is_never_ready() -> None:
    assert read(FATAL, READY).ready is None


@pytest.mark.parametrize("line", [
    "agent: nvrc: READY in 1.234s mode=cpu gpus=0 cdi=0 agent=87",
    "nvrc: READY", READY + " x", READY.replace("1.234s", "soon"), "nvrc: step x great 0.1s",
], ids=["quoted by somebody else", "cut", "with more", "no time", "unknown outcome"])
def test_what_is_nearly_a_verdict_is_none(line: str) -> None:
    story = read(line)
    assert (story.verdicts, story.steps, story.tail) == ((), (), (line,))


def test_a_record_inside_somebody_elses_line_is_heard() -> None:
    story = read(f"agent: half a li[    3.159370] {READY}", "ne of the agent")
    assert story.ready is not None
    assert (story.kernel_s, story.tail, story.lines) == (3.15937, ("agent: half a li", "ne of the agent"), 2)


def test_the_console_of_programs_says_nothing_for_the_init_that_logs() -> None:
    story = hear_line(Story(), f"[    3.1] {READY}", 0.0)
    story = hear_line(story, FATAL, 0.0, is_log=False)
    assert (story.failure, story.tail) == (None, (FATAL,))


def test_an_init_without_a_log_speaks_on_the_console_of_programs() -> None:
    story = Story()
    for line in (FATAL, FATAL):
        story = hear_line(story, line, 0.0, is_log=False)
    assert len(story.verdicts) == 2


def test_the_first_panic_counts() -> None:
    story = read("[    1.0] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100",
                 "[    1.1] ---[ end Kernel panic - not syncing: Attempted to kill init! ]---")
    assert story.panic == "Attempted to kill init! exitcode=0x00000100"


STAMPED = "[    9.123456] " + READY


@pytest.mark.parametrize("line", [
    pytest.param(f'[    9.5] nvrc: FATAL code=E_MOUNT step=filesystems what="said {STAMPED}" hint="x"', id="in a failed boot's cause"),
    pytest.param(f"[    9.500000] nvrc: log agent: {STAMPED}", id="forwarded"),
    pytest.param(f"<12>[    9.500000] nvrc: warn {STAMPED}", id="a warning"),
    pytest.param(f"nvrc: warn {STAMPED}", id="without a time"),
    pytest.param(f"[    9.500000] overlay: unknown option {STAMPED}", id="in the kernel's own words"),
    pytest.param(f"[    9.500000][  T12] audit: {STAMPED}", id="with its caller"),
    pytest.param(f'agent: {{"msg": "{STAMPED}', id="in an open quote of a program"),
])
def test_a_record_is_whole_whatever_it_quotes(line: str) -> None:
    story = Story()
    for text in split(line.encode() + b"\n"):
        story = hear_line(story, text, 0.0)
    assert [told for told in story.verdicts if isinstance(told, ReadyLine)] == []


def test_only_the_last_words_are_kept() -> None:
    story = read(*(f"line {number}" for number in range(100)), "", "   ")
    assert story.lines == 102
    assert story.tail == tuple(f"line {number}" for number in range(100 - TAIL_LINES, 100))


SPLITS = {
    "serial line ends": ((b"a\r\nb\r\n",), ["a", "b"]),
    "in pieces": ((b"a", b"b\n", b"c"), ["ab", "c"]),
    "nothing": ((b"", b""), []),
    "empty lines": ((b"\n\n",), ["", ""]),
    "an unfinished line": ((b"panic",), ["panic"]),
    "a character in two pieces": ((b"\xe2\x9c", b"\x93\n"), ["✓"]),
}


@pytest.mark.parametrize(("pieces", "expected"), SPLITS.values(), ids=SPLITS)
def test_lines_from_pieces(pieces: tuple[bytes, ...], expected: list[str]) -> None:
    assert split(*pieces) == expected


CLEANED = {
    "colours go": (b"\x1b[32mok\x1b[0m", "ok"),
    "the firmware's screen set-up goes": (b"\x1bc\x1b[?7l\x1b[2JSeaBIOS", "SeaBIOS"),
    "no UTF-8": (b"a\xff\xfeb", "a\\xff\\xfeb"),
    "control characters": (b"a\x00\x07b", "a\\x00\\x07b"),
    "an escape that never ends": (b"\x1b[12", "\\x1b[12"),
    "tabs are blanks": (b"a\tb", "a b"),
}


@pytest.mark.parametrize(("raw", "expected"), CLEANED.values(), ids=CLEANED)
def test_what_is_shown_can_be_shown(raw: bytes, expected: str) -> None:
    assert clean(raw) == expected


def test_garbage_is_noticed_and_text_is_not_garbage() -> None:
    assert hear_bytes(Story(), b"\x80\x81\x00\x01ab").is_garbage
    assert not hear_bytes(Story(), "[ 1.0] Linux\r\n\x1b[0m naïve".encode()).is_garbage
    assert not Story().is_garbage


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_any_bytes_become_printable_lines(pieces: list[bytes]) -> None:
    lines = split(*pieces)
    story = Story()
    for line in lines:
        assert line == "" or line.isprintable()
        story = hear_line(story, line, 0.0)
    assert story.lines == len(lines)
    assert len(story.tail) <= TAIL_LINES


@given(st.binary(max_size=400), st.lists(st.integers(min_value=0, max_value=400), max_size=6))
def test_how_the_bytes_are_cut_changes_nothing(data: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(edges)]
    assert split(*pieces) == split(data)


@given(st.integers(min_value=1, max_value=5 * LINE_LIMIT))
def test_an_endless_line_is_cut(length: int) -> None:
    lines = split(b"x" * length)
    assert "".join(lines) == "x" * length
    assert max(map(len, lines)) <= LINE_LIMIT


@given(st.binary(max_size=200))
def test_garbage_around_a_verdict_hides_nothing(noise: bytes) -> None:
    data = noise.replace(b"\n", b"") + b"\n" + READY.encode() + b"\r\n" + noise
    story = Story()
    for line in split(data):
        story = hear_line(story, line, 0.0)
    assert story.ready is not None


def test_a_line_of_ours_in_the_middle_of_a_programs_is_one_of_its_own() -> None:
    lines = LineSplitter().feed(b"agent: half of it[    3.933769] nvrc: warn x\r\n[    3.94] nvrc: warn y\n<6>[    4.000000] nvrc: warn z\n")
    assert lines == ["agent: half of it", "[    3.933769] nvrc: warn x", "[    3.94] nvrc: warn y", "<6>[    4.000000] nvrc: warn z"]
