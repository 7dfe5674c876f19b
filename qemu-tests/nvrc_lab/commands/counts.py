# SPDX-License-Identifier: Apache-2.0
"""What came of tests: how many passed, failed and were skipped, by the reports that pytest writes."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

MESSAGE_LENGTH = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    note: str = ""
    culprits: Sequence[str] = field(default=(), compare=False)  # a line for each test that failed

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def add_up(counts: Sequence[Count]) -> Count:
    return Count(passed=sum(count.passed for count in counts), failed=sum(count.failed for count in counts),
                 skipped=sum(count.skipped for count in counts),
                 note="; ".join(dict.fromkeys(count.note for count in counts if count.note)),
                 culprits=[line for count in counts for line in count.culprits])


def read_report(path: Path, *, is_good: bool) -> Count:
    """What pytest counted. Whatever ends it without a report, or without a test, is one failure."""
    try:
        root = ET.parse(path).getroot()
    except (OSError, ET.ParseError):
        return Count(failed=1, note="pytest ended without a report")
    tests = failed = skipped = 0
    for suite in root.iter("testsuite"):
        tests += int(suite.get("tests", "0"))
        failed += int(suite.get("failures", "0")) + int(suite.get("errors", "0"))
        skipped += int(suite.get("skipped", "0"))
    if tests == 0:
        return Count(failed=1, note="no test was run")
    note = "pytest itself failed" if not is_good and failed == 0 else ""
    culprits = [_tell(case, cause) for case in root.iter("testcase") for cause in case
                if cause.tag in {"failure", "error"}]
    return Count(passed=tests - failed - skipped, failed=failed or int(not is_good), skipped=skipped, note=note,
                 culprits=culprits)


def _tell(case: ET.Element, cause: ET.Element) -> str:
    first, *_ = (cause.get("message") or "").split("\n", 1)
    return f"{case.get('classname', '')}::{case.get('name', '')}: {first[:MESSAGE_LENGTH]}"
