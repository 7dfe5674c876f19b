# SPDX-License-Identifier: Apache-2.0
"""What stays of a flat module, and that nvidia-ml-py still works when only what the guest uses of it is left."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

from nvrc_build.ground.errors import BuildError
from nvrc_build.products.freeze import BINDING, HEAVY, lighten, source_files
from nvrc_build.products.prune import prune

ROOT = Path(__file__).parents[3]
MODULE = """\
# A licence that stays.
import os
import re
from string import capwords, digits

LIMIT = 3
OTHER = 4   # nobody asks
KIND_A = 1
KIND_B = 2


class Base:
    pass


class Used(Base):
    size = LIMIT


class Unused(Base):
    pass


def wrap(function):
    return function


@wrap
def call(kind=KIND_A):
    return Used(), capwords(str(kind))


@wrap
def left_out():
    return re.compile(digits)


for name in ("x",):
    os.environ.get(name)
"""


def test_what_the_program_names_and_what_that_needs_stays() -> None:
    left = prune(MODULE, ["library.call(1)"])
    space: dict[str, object] = {}
    exec(compile(left, "pruned", "exec"), space)
    assert {"Base", "Used", "LIMIT", "KIND_A", "wrap", "call", "capwords", "os"} <= set(space)
    assert not {"OTHER", "KIND_B", "Unused", "left_out", "re"} & set(space)
    assert left.startswith("# A licence that stays.\n")
    assert all(line in MODULE.splitlines() for line in left.splitlines())


def test_a_family_of_names_stays_whole_and_an_import_is_not_asked_for_by_chance() -> None:
    left = prune(MODULE, ["re = 1"], whole=("KIND_",))
    assert "KIND_A = 1\nKIND_B = 2\n" in left
    assert "import re" not in left and "def " not in left


@pytest.fixture(scope="module")
def binding() -> types.ModuleType:
    import pynvml

    program = [path.read_text() for path in source_files(ROOT)]
    module = types.ModuleType("pynvml_as_frozen")
    sys.modules[module.__name__] = module
    assert pynvml.__file__ and Path(pynvml.__file__).name == BINDING
    left = lighten(prune(Path(pynvml.__file__).read_text(), program, ("NVML_ERROR_",)))
    exec(compile(left, BINDING, "exec"), vars(module))
    return module


@pytest.mark.long
def test_the_binding_loads_little_and_has_every_call_of_the_guest(binding: types.ModuleType) -> None:
    import pynvml

    words = {word for path in source_files(ROOT) for word in re.findall(r"\w+", path.read_text())}
    calls = {name for name in vars(pynvml) if name.startswith(("nvml", "c_nvml", "NVML_")) and name in words}
    assert len(calls) > 40
    assert calls <= set(vars(binding))
    assert "find_library" not in vars(binding)
    assert len(vars(binding)) < len(vars(pynvml)) / 8


def test_a_binding_that_imports_otherwise_is_refused() -> None:
    whole = "#\n" + "".join(HEAVY)
    assert lighten(whole) == "#\nfrom guest_cdi.lean.binding import string, threading, wraps\n"
    for line in HEAVY:
        with pytest.raises(BuildError, match=line.strip()):
            lighten(whole.replace(line, ""))


@pytest.mark.long
def test_errors_have_their_classes_and_their_text(binding: types.ModuleType) -> None:
    import pynvml

    for code in (1, 3, 15, 999):
        ours, theirs = binding.NVMLError(code), pynvml.NVMLError(code)
        assert (type(ours).__name__, str(ours), ours.value) == (type(theirs).__name__, str(theirs), theirs.value)
