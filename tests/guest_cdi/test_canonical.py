# SPDX-License-Identifier: Apache-2.0
"""The short way to read our own YAML: what it takes it takes for what the library would, and leaves the rest to that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guest_cdi import canonical
from guest_cdi.load import parse_any_yaml, parse_source

ROOTS = Path(__file__).parents[1] / "roots"
DOCUMENTS = {path.parent.name: path.read_text(encoding="utf-8") for path in sorted(ROOTS.glob("*/expected.yaml"))}
SMALL = DOCUMENTS["extension-drm-gid"].split("\n")[:42]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_each_document_of_ours_is_read_the_short_way_and_to_the_same_result(name: str) -> None:
    assert canonical.read(DOCUMENTS[name]) is not None
    assert parse_source("x.yaml", DOCUMENTS[name].encode()) == parse_any_yaml("x.yaml", DOCUMENTS[name])


@pytest.mark.parametrize("text", [
    "", "---\n", "---\na: b", "---\na: b\n\n", "a: b\n", "---\na: b # c\n", "---\na: 'b'\n", "---\na: 1:0\n", "---\na: 010\n",
    "---\na: yes\n", "---\na: b\na: c\n", "---\na:\n  b: c\n", "---\na: [b]\n", "---\na:\n", "---\na: b\n  c: d\n",
    "---\na: \"\\x41\"\n", "---\na:  b\n", "---\n- a\n", "---\na: &x b\n", "---\na:\n    - - b\n", "---\na: b\n---\n", "---\na: -1\n",
    "---\r\na: b\r\n", "---\na:\n    - b:\n", "---\n? a\n", "---\na: |\n    b\n", "---\na: 12345678901234567890\n", "---\na: b:\n",
], ids=repr)
def test_another_form_is_left_to_the_library(text: str) -> None:
    assert canonical.read(text) is None


@given(st.data())
def test_what_is_changed_is_declined_or_read_as_the_library_does(data: st.DataObject) -> None:
    lines = list(SMALL)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        line = lines[at]
        cut = data.draw(st.integers(0, len(line)))
        piece = data.draw(st.sampled_from([" ", "  ", "    ", "- ", ":", ": ", "#", "0", "-1", "true", '"', "'", "~", "{", "x", "\t", "é"]))
        lines[at:at + 1] = data.draw(st.sampled_from([
            [], [line, line], [line[:cut] + piece + line[cut:]], [line[:cut] + line[cut + 1:]], [line[:cut] + piece], [line[4:]]])) or [piece]
    text = "\n".join([*lines, ""])
    own = canonical.read(text)
    if own is not None:
        assert parse_source("x.yaml", text.encode()) == parse_any_yaml("x.yaml", text)


def test_a_deep_document_is_left_to_the_library() -> None:
    text = "---\n" + "".join(f"{' ' * 4 * depth}a:\n" for depth in range(50)) + " " * 200 + "a: b\n"
    assert canonical.read(text) is None


VALIDATE = """
import sys
sys.path.insert(0, sys.argv[1])
from guest_cdi.__main__ import main
try:
    main(["guest-cdi", "validate", sys.argv[2]])
except SystemExit as stop:
    print("status", stop.code)
print(sorted({"yaml", "typing", "dataclasses", "json"} & set(sys.modules)))
"""


def test_the_command_that_reads_a_document_of_ours_loads_nothing_heavy(tmp_path: Path) -> None:
    path = tmp_path / "nvidia.yaml"
    path.write_text(DOCUMENTS["monolith"], encoding="utf-8")
    done = subprocess.run([sys.executable, "-I", "-S", "-c", VALIDATE, Path(__file__).parents[2], path], capture_output=True, text=True,
                          check=True)
    assert done.stdout.endswith(", all\n[]\n"), done.stdout
