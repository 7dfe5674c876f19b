# SPDX-License-Identifier: Apache-2.0
"""`./dev conformance`: what is given is run, what is not is told, and a path that leads nowhere is a mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from nvrc_lab.commands.conformance import PAGE, PARTS, Part, Row, check_paths, judge, main, read_version, run_part, tell
from nvrc_lab.commands.tiers import Count
from nvrc_lab.ground.errors import LabError

ROOT = Path(__file__).resolve().parents[3]
AGENT, RUNTIME = PARTS[0], PARTS[1]
GIVEN = {"NVRC_KATA_AGENT": "/x/agent"}


def row(part: Part, given: dict[str, str], count: Count) -> Row:
    return run_part(part, given, lambda _part: count, lambda path: f"{path.name} 4.1.0")


def test_what_is_given_is_run_and_what_is_not_is_told() -> None:
    good = Count(passed=3)
    rows = [row(AGENT, GIVEN, good), row(RUNTIME, GIVEN, good)]
    assert [line.split(None, 2)[:2] for line in tell(rows, GIVEN).splitlines()] == [
        ["part", "given"], ["kata-agent", "yes"], ["kata-runtime", "no"]]
    assert "3 passed, 0 failed, 0 skipped" in tell(rows, GIVEN)
    assert "agent 4.1.0" in tell(rows, GIVEN)
    assert "needs NVRC_KATA_SHIM, NVRC_CONTAINERD, NVRC_KATA_CONFIG" in tell(rows, GIVEN)


def test_a_program_in_a_folder_tells_its_version() -> None:
    given = {name: f"/x/{name.lower()}" for name in RUNTIME.needs}
    assert row(RUNTIME, given, Count(passed=1)).versions == ("nvrc_kata_shim 4.1.0", "containerd 4.1.0")


@pytest.mark.parametrize(("counts", "status"), [
    pytest.param([], 2, id="nothing given"), pytest.param([Count(passed=1)], 0, id="good"),
    pytest.param([Count(passed=1), Count(failed=1)], 1, id="one failed"),
    pytest.param([Count(skipped=4)], 1, id="all skipped though given")])
def test_the_exit_status(counts: list[Count], status: int) -> None:
    assert judge([Row(part=AGENT), *(Row(part=AGENT, count=count) for count in counts)]) == status


def test_paths_that_lead_nowhere_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"NVRC_KATA_AGENT=/no, NVRC_NVIDIA_CTK=/nor: no such file"):
        check_paths({"NVRC_KATA_AGENT": "/no", "NVRC_NVIDIA_CTK": "/nor", "NVRC_KATA_SHIM": str(tmp_path)})


@pytest.mark.parametrize(("script", "expected"), [
    pytest.param("echo hello; echo 'thing version 2.1' >&2", "thing version 2.1", id="the line with a number"),
    pytest.param("echo nothing", "program: no version", id="says nothing")])
def test_a_version(tmp_path: Path, script: str, expected: str) -> None:
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    assert read_version(program) == expected


def test_a_program_that_cannot_be_run_has_no_version(tmp_path: Path) -> None:
    assert read_version(tmp_path / "gone") == "gone: no version (FileNotFoundError)"


def test_the_page_names_every_variable_and_every_part_has_its_tests() -> None:
    text = (ROOT / PAGE).read_text()
    assert [name for part in PARTS for name in (*part.needs, *part.may) if f"`{name}`" not in text] == []
    assert [path for part in PARTS for path in part.tests if not (ROOT / path).is_file()] == []


def test_wrong_use_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--part", "nonsense"])
    assert ended.value.code == 2
    assert "invalid choice" in capsys.readouterr().err
