# SPDX-License-Identifier: Apache-2.0
"""The C of the lab: files of one program call each other in one direction, as modules of Python do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fakes.sources import ROOT, tracked
from tests.test_architecture import rings

FOLDERS = ("qemu-tests/kernel", "qemu-tests/standins", "qemu-tests/standins/nvml", "qemu-tests/standins/nscq",
           "qemu-tests/container")
# Several programs lie in one folder, and each has these for itself.
ENTRY_POINTS = frozenset({"main"})
_NOISE = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', re.DOTALL)
# At the start of a line: a function with its body, or data that has no `static` and no `extern`.
_FUNCTION = re.compile(r"^(?!static\b|extern\b|typedef\b|return\b|else\b)[A-Za-z_][\w \t*]*?\b(\w+)\([^;{]*\)\s*\{", re.MULTILINE)
_DATA = re.compile(r"^(?!static\b|extern\b|typedef\b)(?:const )?(?:struct )?\w[\w ]*?[ *](\w+)(?:\[\w*\])*(?: = [^\n]*)?;?$", re.MULTILINE)
_MADE = re.compile(r"^(?:LIST_HEAD|DEFINE_MUTEX)\((\w+)\)", re.MULTILINE)

# A variable or parameter, which may have the name of another file's function.
_LOCAL = re.compile(r"\b(?:char|int|long|unsigned|size_t|ssize_t|bool|double|u\d+|struct \w+)\b[ *]+(\w+)\b(?!\()")


def definitions(text: str) -> frozenset[str]:
    """What a file gives to others: functions and data that are not its own."""
    return frozenset({*_FUNCTION.findall(text), *_DATA.findall(text), *_MADE.findall(text)}) - ENTRY_POINTS


def arrows(texts: dict[str, str]) -> dict[str, set[str]]:
    """Which file uses what another defines, by call or by address. A name that a file declares itself is its own."""
    plain = {name: _NOISE.sub(" ", text) for name, text in texts.items()}
    given = {name: definitions(text) for name, text in plain.items()}
    used = {name: frozenset(re.findall(r"\w+", text)) - given[name] - frozenset(_LOCAL.findall(text))
            for name, text in plain.items()}
    return {name: {other for other in texts if other != name and given[other] & used[name]} for name in texts}


def circles(texts: dict[str, str]) -> list[list[str]]:
    return [ring for ring in rings(arrows(texts)) if len(ring) > 1]


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_files_of_c_call_each_other_in_a_circle(folder: str) -> None:
    files = [name for name in tracked(f"{folder}/*.c") if str(Path(name).parent) == folder]
    assert files
    assert circles({Path(name).name: (ROOT / name).read_text() for name in files}) == []


HEAD = "int add(int a,\n\t int b)\n{\n\treturn a + b;\n}\n\nint total;\n"
CASES = {
    "two that call each other": ({"a.c": HEAD + "int x(void)\n{\n\treturn twice(1);\n}\n",
                                  "b.c": "int twice(int a)\n{\n\treturn add(a, a);\n}\n"}, [["a.c", "b.c"]]),
    "data counts": ({"a.c": HEAD + "int x(void)\n{\n\treturn twice(1);\n}\n",
                     "b.c": "int twice(int a)\n{\n\treturn total;\n}\n"}, [["a.c", "b.c"]]),
    "one direction": ({"a.c": HEAD, "b.c": "int twice(int a)\n{\n\treturn add(a, a);\n}\n"}, []),
    "what is static is its own": ({"a.c": HEAD + "int x(void)\n{\n\treturn twice(1);\n}\n",
                                   "b.c": "static int twice(int a)\n{\n\treturn add(a, a);\n}\n"}, []),
    "neither comments nor texts call": ({"a.c": HEAD + '/* twice() */ char *say(void)\n{\n\treturn "twice";\n}\n',
                                         "b.c": "int twice(int a)\n{\n\treturn add(a, a);\n}\n"}, []),
}


@pytest.mark.parametrize(("texts", "expected"), CASES.values(), ids=CASES)
def test_a_circle_of_c_would_be_found(texts: dict[str, str], expected: list[list[str]]) -> None:
    assert circles(texts) == expected
