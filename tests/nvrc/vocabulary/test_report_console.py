# SPDX-License-Identifier: Apache-2.0
"""The console grammar: what is written is one bounded line, and reads back as what was meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.trouble import fatal_line, trouble
from nvrc.vocabulary.console import (
    LINE_LIMIT,
    TOKEN_LIMIT,
    WORDS,
    end_line,
    report_lines,
    step_line,
    verdict_ready,
    warning_line,
)
from nvrc.vocabulary.transcript import EndLine, Line, ReadyLine, StepLine, WarningLine, parse_line, parse_report_piece
from nvrc.vocabulary.trouble import Trouble

# Text that fits whatever becomes of it: the longest escape has ten characters.
SHORT = st.text(max_size=20)
TOKEN = st.text(max_size=6)
SECONDS = st.floats(0, 999_999).map(lambda value: round(value, 3))
COUNT = st.integers(0, 999_999)


@pytest.mark.parametrize(("line", "text"), [
    pytest.param(step_line("topology", "ok", 0.0124), "nvrc: step topology ok 0.012s", id="step"),
    pytest.param(step_line("agent", "fail", 1.5, " no such file\n"), "nvrc: step agent fail 1.500s no such file",
                 id="step-detail"),
    pytest.param(step_line("a b", "ok", 0), "nvrc: step a\\x20b ok 0.000s", id="step-name-with-blank"),
    pytest.param(warning_line('nvrc.smi.src: unknown, did you mean "nvrc.smi.srs"?'),
                 'nvrc: warn nvrc.smi.src: unknown, did you mean "nvrc.smi.srs"?', id="warning"),
    pytest.param(verdict_ready(1.234, "gpu", 8, 9, 87), "nvrc: READY in 1.234s mode=gpu gpus=8 cdi=9 agent=87",
                 id="ready"),
    pytest.param(fatal_line("E_X", "y", 'disk "a"', "use C:\\b"),
                 'nvrc: FATAL code=E_X step=y what="disk \\"a\\"" hint="use C:\\\\b"', id="fatal"),
    pytest.param(fatal_line("", "-", "", ""), 'nvrc: FATAL code=- step=\\x2d what="" hint=""', id="fatal-empty"),
    pytest.param(end_line("E_AGENT_EXIT", "signal 9\r\n\x1b[2J"),
                 'nvrc: END code=E_AGENT_EXIT what="signal 9\\x0d\\x0a\\x1b[2J"', id="end"),
    pytest.param(warning_line("é€\U0001f600\udcff"), "nvrc: warn \\xe9\\u20ac\\U0001f600\\udcff", id="non-ascii"),
])
def test_exact_lines(line: str, text: str) -> None:
    assert line == text


@pytest.mark.parametrize(("seconds", "text"), [
    (float("nan"), "0.000s"), (-1.0, "0.000s"), (float("inf"), "999999.999s"), (1e300, "999999.999s"),
])
def test_impossible_times_stay_in_the_grammar(seconds: float, text: str) -> None:
    line = step_line("a", "ok", seconds)
    assert line == f"nvrc: step a ok {text}"
    assert parse_line(line) is not None


def test_unfinished_outcomes_have_no_line() -> None:
    with pytest.raises(ValueError, match="step cdi: 'running' is not an outcome of a finished step; one of ok, skip"):
        step_line("cdi", "running", 1.0)


def assert_one_line(line: str) -> None:
    assert line.isascii()
    assert line.isprintable()
    assert len(line.encode()) <= LINE_LIMIT
    assert parse_line(line) is not None


@given(st.text(), st.sampled_from(WORDS), st.floats(), st.text())
def test_any_input_is_one_line(name: str, outcome: str, seconds: float, text: str) -> None:
    for line in (step_line(name, outcome, seconds, text), warning_line(text), fatal_line(name, name, text, text),
                 end_line(name, text), verdict_ready(seconds, name, 8, 9, 87)):
        assert_one_line(line)


@pytest.mark.parametrize("char", ["a", '"', "\\", "\n", "\U0001f600"], ids=ascii)
@pytest.mark.parametrize("length", [200, 280, 600, 740, 830, 880, 900, 5000])
def test_long_text_is_cut_between_characters(char: str, length: int) -> None:
    text = char * length
    for line in (step_line("s", "fail", 1, text + "x"), warning_line("x" + text + "x"), end_line("E", text),
                 fatal_line("E", "s", text, "short"), fatal_line("E", "s", text, text),
                 fatal_line("E", "s", "short", text)):
        assert_one_line(line)
        found = parse_line(line)
        assert found is not None
        values = [getattr(found, name) for name in ("text", "detail", "what", "hint") if hasattr(found, name)]
        for value in values:
            if value.endswith("..."):
                assert set(value.removesuffix("...")) <= {char, "x"}


def test_a_long_cause_leaves_a_third_of_the_line_to_the_hint() -> None:
    found = parse_line(fatal_line("E_X", "s", "c" * 5000, "h" * 5000))
    assert isinstance(found, Trouble)
    assert len(found.what) > 500
    assert len(found.hint) > 250
    short = parse_line(fatal_line("E_X", "s", "c" * 5000, "do this"))
    assert isinstance(short, Trouble)
    assert short.hint == "do this"
    assert len(short.what) > 800


def test_long_tokens_are_cut() -> None:
    found = parse_line(verdict_ready(1, "m" * 100, 0, 0, 1))
    assert isinstance(found, ReadyLine)
    assert found.mode == "m" * (TOKEN_LIMIT - 3) + "..."


@given(TOKEN, st.sampled_from(WORDS), SECONDS, SHORT)
def test_step_reads_back(name: str, outcome: str, seconds: float, detail: str) -> None:
    assert parse_line(step_line(name, outcome, seconds, detail)) == StepLine(name, outcome, seconds, detail.strip())


@given(SHORT)
def test_warning_reads_back(text: str) -> None:
    assert parse_line(warning_line(text)) == WarningLine(text.strip())


@given(SECONDS, TOKEN, COUNT, COUNT, COUNT)
def test_ready_reads_back(seconds: float, mode: str, gpus: int, cdi: int, agent: int) -> None:
    assert parse_line(verdict_ready(seconds, mode, gpus, cdi, agent)) == ReadyLine(seconds, mode, gpus, cdi, agent)


@given(TOKEN, TOKEN, SHORT, SHORT)
def test_fatal_reads_back(code: str, step: str, what: str, hint: str) -> None:
    assert parse_line(fatal_line(code, step, what, hint)) == trouble(code, step, what, hint)


@pytest.mark.parametrize("length", [0, 1, 886, 887, 888, 5000])
def test_report_reads_back_in_pieces(length: int) -> None:
    document = ('{\n  "log": "' + "x " * length + '"\n}\n').encode()
    lines = list(report_lines(document))
    assert all(line.isprintable() and len(line) <= LINE_LIMIT and parse_line(line) is None for line in lines)
    pieces = [piece for line in lines if (piece := parse_report_piece(f"[    1.5] {line}\r\n")) is not None]
    assert (pieces[0], pieces[-1]) == ("{", "}")
    assert "".join(pieces) == document.decode().replace("\n", "")


@pytest.mark.parametrize("text", ["nvrc: warn report {", "nvrc: report", "report {", "x nvrc: report {", ""])
def test_other_lines_carry_no_report(text: str) -> None:
    assert parse_report_piece(text) is None


@given(TOKEN, SHORT)
def test_end_reads_back(code: str, what: str) -> None:
    assert parse_line(end_line(code, what)) == EndLine(code, what)


READY = ReadyLine(1.0, "cpu", 0, 0, 2)


@pytest.mark.parametrize(("text", "line"), [
    pytest.param("nvrc: READY in 1.000s mode=cpu gpus=0 cdi=0 agent=2\r\n", READY, id="serial-line-end"),
    pytest.param("[    1.234567] nvrc: READY in 1.000s mode=cpu gpus=0 cdi=0 agent=2", READY, id="kernel-time"),
    pytest.param("[12345.123456][    T1] nvrc: READY in 1.000s mode=cpu gpus=0 cdi=0 agent=2", READY, id="caller"),
    pytest.param("<8>nvrc: READY in 1.000s mode=cpu gpus=0 cdi=0 agent=2", READY, id="raw-level"),
    pytest.param("nvrc: warn ", WarningLine(""), id="empty-warning"),
    pytest.param("nvrc: warn \\q \\x4 \\Uffffffff", WarningLine("\\q \\x4 \\Uffffffff"), id="unknown-escapes-stay"),
    pytest.param("container: nvrc: READY in 1.000s mode=cpu gpus=0 cdi=0 agent=2", None, id="somebody-elses-line"),
    pytest.param(" nvrc: READY in 1.000s mode=cpu gpus=0 cdi=0 agent=2", None, id="indented"),
    pytest.param("nvrc: READY in 1s mode=cpu gpus=0 cdi=0 agent=2", None, id="seconds-without-fraction"),
    pytest.param("nvrc: READY in 1.000s mode=cpu gpus=0 cdi=0 agent=2 x", None, id="tail"),
    pytest.param("nvrc: READY in 1.000s mode=cpu gpus=٣ cdi=0 agent=2", None, id="other-digits"),
    pytest.param("nvrc: READY in 1.000s mode=cpu gpus=" + "9" * 5000 + " cdi=0 agent=2", None, id="huge-number"),
    pytest.param('nvrc: FATAL code=E_X step=y what="a"b" hint=""', None, id="quote-in-string"),
    pytest.param('nvrc: FATAL code=E_X step=y what="a\\" hint=""', None, id="open-string"),
    pytest.param("nvrc: step a running 1.000s", None, id="unfinished"),
    pytest.param("nvrc: something else", None, id="unknown-form"),
    pytest.param("", None, id="empty"),
])
def test_reading_console_text(text: str, line: Line | None) -> None:
    assert parse_line(text) == line


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    parse_line(text)
    parse_line("nvrc: " + text)
    parse_line('nvrc: END code=E what="' + text + '"')
