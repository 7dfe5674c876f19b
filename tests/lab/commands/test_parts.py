# SPDX-License-Identifier: Apache-2.0
"""Files of tests dealt out to sessions: each once, by the time that each took, or its length where nothing is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nvrc_lab.commands.parts import BYTES_A_SECOND, deal, naming, remember, weigh

REPORT = ('<testsuites><testsuite><testcase classname="tests.nvrc.test_a" time="1.5"/><testcase classname="tests.nvrc.test_a" time="0.25"/>'
          '<testcase classname="tests.test_b" time="3"/></testsuite></testsuites>')


@pytest.mark.parametrize(("seconds", "parts", "expected"), [
    pytest.param({"a": 1, "b": 1, "c": 1, "d": 1}, 2, (("a", "c"), ("b", "d")), id="equal"),
    pytest.param({"a": 1, "b": 5, "c": 3, "d": 1}, 2, (("b",), ("a", "c", "d")), id="one-outweighs-three"),
    pytest.param({"z": 1, "a": 2, "m": 1}, 1, (("z", "a", "m"),), id="one-part-keeps-the-order"),
    pytest.param({"a": 1}, 2, (("a",),), id="fewer-files-than-parts"),
])
def test_each_file_goes_to_who_has_least(seconds: dict[str, float], parts: int, expected: tuple[tuple[str, ...], ...]) -> None:
    assert deal(seconds, parts) == expected


def test_what_belongs_together_is_of_one_session() -> None:
    seconds = {"a": 2.0, "b": 1.5, "c": 1.0, "d": 2.0}
    assert deal(seconds, 2, together=("b", "d", "absent")) == (("b", "d"), ("a", "c"))
    assert deal(seconds, 2, together=tuple(seconds)) == (("a", "b", "c", "d"),)


def test_a_file_is_found_by_a_word_in_it(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mark.long\n")
    (tmp_path / "b").write_text("mark.qemu\n")
    assert naming(tmp_path, ["a", "b"], "mark.long") == ("a",)


def test_what_a_report_tells_is_remembered(tmp_path: Path) -> None:
    (tmp_path / "unit-1.xml").write_text(REPORT)
    times = tmp_path / "cache/seconds.json"
    remember([tmp_path / "unit-1.xml"], times)
    (tmp_path / "new.py").write_bytes(bytes(2 * BYTES_A_SECOND))
    assert weigh(tmp_path, ["tests/nvrc/test_a.py", "tests/test_b.py", "new.py"], times) == {
        "tests/nvrc/test_a.py": 1.75, "tests/test_b.py": 3, "new.py": 2}


@pytest.mark.parametrize("text", [None, "", "{", json.dumps(["no mapping"]), json.dumps({"a": "b"})])
def test_a_memory_that_is_none_is_no_mistake(tmp_path: Path, text: str | None) -> None:
    times = tmp_path / "seconds.json"
    if text is not None:
        times.write_text(text)
    (tmp_path / "a").write_bytes(bytes(BYTES_A_SECOND))
    assert weigh(tmp_path, ["a"], times) == {"a": 1}
