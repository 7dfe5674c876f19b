# SPDX-License-Identifier: Apache-2.0
"""How `./dev test` counts: reports of pytest, the coverage bar, and the line that sums up."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import pytest

from fakes.memory import MEMORY, has_room
from fakes.sources import tracked
from nvrc_lab.commands.counts import Count, read_report
from nvrc_lab.commands.parts import naming
from nvrc_lab.commands.tiers import (
    COVERAGE_BAR_PERCENT,
    TIERS,
    Job,
    Tier,
    environment,
    judge_coverage,
    main,
    run_all,
    summarise,
)
from nvrc_lab.ground.places import Places, checkout

SUITE = '<testsuites><testsuite tests="{}" failures="{}" errors="{}" skipped="{}"/></testsuites>'
REPORTS = {
    "all good": (SUITE.format(9, 0, 0, 2), True, Count(passed=7, skipped=2)),
    "failures and errors": (SUITE.format(9, 2, 1, 1), False, Count(passed=5, failed=3, skipped=1)),
    "no test at all": (SUITE.format(0, 0, 0, 0), False, Count(failed=1, note="no test was run")),
    "good tests, bad end": (SUITE.format(3, 0, 0, 0), False, Count(passed=3, failed=1, note="pytest itself failed")),
    "cut": ("<testsuites><tests", False, Count(failed=1, note="pytest ended without a report")),
    "cut, and yet a good end": ("", True, Count(failed=1, note="pytest ended without a report")),
}


@pytest.mark.parametrize(("text", "is_good", "expected"), REPORTS.values(), ids=REPORTS)
def test_what_pytest_counted(tmp_path: Path, text: str, is_good: bool, expected: Count) -> None:
    report = tmp_path / "unit.xml"
    report.write_text(text)
    assert read_report(report, is_good=is_good) == expected


def test_who_failed_is_told_with_the_first_line_of_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is kept of a run is often its end: it has to name them."""
    report = tmp_path / "long.xml"
    report.write_text('<testsuites><testsuite tests="3" failures="1" errors="1">'
                      '<testcase classname="tests.a.test_b" name="test_good"/>'
                      '<testcase classname="tests.a.test_b" name="test_c[1]"><failure message="assert 1 == 2&#10;more">x</failure></testcase>'
                      '<testcase classname="tests.a.test_b" name="test_d"><error message="no room">x</error></testcase>'
                      "</testsuite></testsuites>")
    assert summarise([(TIERS[2], read_report(report, is_good=False), 1.0)]) == 1
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "failed: tests.a.test_b::test_c[1]: assert 1 == 2", "failed: tests.a.test_b::test_d: no room", "1 passed, 2 failed, 0 skipped"]


def test_no_report_is_a_failure(tmp_path: Path) -> None:
    assert read_report(tmp_path / "none.xml", is_good=True).failed == 1


@pytest.mark.parametrize(("total", "failed"), [
    (f"{COVERAGE_BAR_PERCENT}.0", 0), ("100.0", 0), (f"{COVERAGE_BAR_PERCENT - 0.1:.1f}", 1), ("", 1), ("No data", 1)])
def test_the_bar_is_a_bar(total: str, failed: int) -> None:
    count = judge_coverage(total)
    assert (count.failed, count.passed) == (failed, 1 - failed)
    assert count.note


def test_the_last_line_is_the_sum_alone(capsys: pytest.CaptureFixture[str]) -> None:
    counts = (Count(passed=4), Count(passed=7, failed=1, skipped=2, note="why"))
    status = summarise([(tier, count, 1.25) for tier, count in zip(TIERS, counts, strict=False)])
    lines = capsys.readouterr().out.splitlines()
    assert status == 1
    assert lines[-1] == "11 passed, 1 failed, 2 skipped"
    assert lines[-2] == "FAIL  unit           1.2 s  7 passed, 1 failed, 2 skipped  (why)"


def test_nothing_failed_is_status_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert summarise([(TIERS[0], Count(passed=4), 1.0)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "4 passed, 0 failed, 0 skipped"


def test_the_order_of_the_tiers() -> None:
    assert [tier.name for tier in TIERS] == ["lint", "unit", "long", "namespace", "qemu", "coverage"]


@pytest.mark.long
def test_one_tier_runs_beside_the_others_and_is_told_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each waits for the other: it is beside them only if both can end."""
    job = Job(places=Places(root=tmp_path))
    job.places.reports.mkdir(parents=True)
    suite = SUITE.format(5, 0, 0, 1)
    script = (f"import pathlib, sys, time\nprint('machines')\npathlib.Path('started').touch()\n"
              f"while not pathlib.Path('front').exists(): time.sleep(0.01)\n"
              f"(pathlib.Path({str(job.places.reports)!r}) / f'{{sys.argv[1]}}.xml').write_text({suite!r})")

    def front(_job: Job) -> Count:
        while not (tmp_path / "started").exists():
            time.sleep(0.01)
        (tmp_path / "front").touch()
        return Count(passed=2)

    first, qemu, last = Tier(name="a", about="", run=front), TIERS[4], Tier(name="b", about="", run=front)
    results = run_all((first, qemu, last), job, (sys.executable, "-c", script))
    assert [(tier.name, str(count)) for tier, count, _ in results] == [
        ("a", "2 passed, 0 failed, 0 skipped"), ("qemu", "4 passed, 0 failed, 1 skipped"), ("b", "2 passed, 0 failed, 0 skipped")]
    assert capsys.readouterr().out.splitlines()[-1] == "machines"
    (tmp_path / "started").unlink()
    (job.places.reports / "qemu.xml").unlink()
    assert [count.failed for _, count, _ in run_all((first, qemu), job, (sys.executable, "-c", script.replace("write_text", "foo")))] == [0, 1]


def test_an_unknown_tier_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--tier", "magic"])
    assert left.value.code == 2
    assert "{lint,unit,long,namespace,qemu,coverage}" in capsys.readouterr().err


def test_a_tier_is_told_by_the_file_that_has_its_tests() -> None:
    """Workers read the files that name a mark: one that a test had from elsewhere would leave it out of every tier."""
    elsewhere = [name for name in tracked("tests/*.py") if not Path(name).name.startswith("test_")]
    assert len(elsewhere) > 50
    for mark in ("long", "namespace", "qemu"):
        assert naming(checkout().root, elsewhere, f"mark.{mark}") == ()


def test_folders_of_tests_are_in_memory_where_there_is_room(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = os.environ.get("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    assert tmp_path.is_relative_to(root)
    assert tmp_path_factory.mktemp("x").is_relative_to(root)
    assert root == MEMORY or not has_room(MEMORY)


def test_bytecode_is_kept_whatever_the_caller_has_set() -> None:
    places = checkout()
    env = environment(places, {"PYTHONDONTWRITEBYTECODE": "1", "HOME": "/h"})
    assert env == {"HOME": "/h", "PYTHONPYCACHEPREFIX": str(places.cache / "pycache"),
                   "COVERAGE_FILE": str(places.reports / "coverage/.coverage")}
