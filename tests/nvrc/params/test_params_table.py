# SPDX-License-Identifier: Apache-2.0
"""The table itself: complete, without contradiction, and the one place that knows a name."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import typing
from types import UnionType

import pytest

import nvrc
from fakes.cases import Case
from nvrc.params.extension import Extension
from nvrc.params.parse import parse
from nvrc.params.settings import Settings
from nvrc.params.table import PARAMS, Param, Sensitivity, find, wild_part
from nvrc.params.values import GpuCount, MalformedError, ModuleOptions, text

# Fields that come from words of others, or from several words.
DERIVED = {"agent_has_config", "cgroup_v2", "module_options"}
IDS = [row.name for row in PARAMS]
REFERENCE_NAMES = {"nvrc.log", "nvrc.uvm.persistence.mode", "nvrc.dcgm", "nvrc.smi.srs", "nvrc.smi.lgc", "nvrc.smi.lmc",
                   "nvrc.smi.pl"}
FIELD_NAMES = {"nvrc.mode", "nvrc.fabricmanager", "nvrc.fm.mode", "nvrc.fm.rail.policy", "nvrc.uvm_persistence_mode",
               "nvrc.smi.lmcd", "nvrc.uvm.options", "nvrc.nvidia_smi_srs", "nvrc.nvidia_smi_lgc"}


def example(row: Param) -> str:
    """Some value of the row's kind."""
    known = {"nvrc.gpus": "min:2", "nvrc.uvm.options": "a=1", "nvrc.mig": "all:1g.10gb*7"}
    if row.is_pattern:
        return f"root_hash={'0' * 64},salt=00,data_blocks=1,data_block_size=4096,hash_block_size=4096"
    form = row.kind.form
    return known.get(row.name) or (form.rsplit(" ", 1)[-1] if row.kind.is_number else form.split("|")[0])


def test_every_field_has_its_row_and_every_row_its_field() -> None:
    fields = {field.name for field in dataclasses.fields(Settings)}
    assert sorted(row.field for row in PARAMS) == sorted(fields - DERIVED)


def test_no_name_stands_for_two_things() -> None:
    names = [name for row in PARAMS for name in (row.name, *row.aliases)]
    assert len(set(names)) == len(names)


def test_all_names_met_in_the_field_are_known() -> None:
    assert all(find(name) for name in REFERENCE_NAMES | FIELD_NAMES)
    assert all(not find(name).aliases or name not in find(name).aliases  # type: ignore[union-attr]
               for name in REFERENCE_NAMES)


def test_a_row_yields_the_type_of_its_field() -> None:
    hints = typing.get_type_hints(Settings)
    for row in PARAMS:
        with Case(row.name):
            hint = hints[row.field]
            wanted = (Extension,) if row.is_pattern else typing.get_args(hint) if isinstance(hint, UnionType) else (hint,)
            name = row.name.replace("<name>", "gpu")
            settings = parse(f"{name}={example(row)}".encode()).settings
            value = getattr(settings, row.field)
            assert type(value[0] if row.is_pattern else value) in wanted


def test_a_row_tells_its_reader_enough() -> None:
    for row in PARAMS:
        with Case(row.name):
            assert row.help[0].isupper()
            assert not row.help.endswith(".")
            assert len(row.help) <= 90
            assert not row.more or row.more.endswith((".", "-"))
            assert row.kind.form
            assert row.since == "0.1"
            assert isinstance(row.sensitivity, Sensitivity)


@pytest.mark.parametrize("row", [row for row in PARAMS if row.default is not None], ids=lambda row: row.name)
def test_a_default_is_a_value_that_one_could_give(row: Param) -> None:
    assert row.kind.parse(text(row.default)) == row.default


@pytest.mark.parametrize("row", [row for row in PARAMS if row.kind.is_number], ids=lambda row: row.name)
def test_a_number_has_a_range_and_its_form_says_which(row: Param) -> None:
    low, _, high = row.kind.form.split(", ")[1].partition(" to ")
    assert (row.kind.parse(low), row.kind.parse(high)) == (int(low), int(high))
    for outside in (str(int(low) - 1), str(int(high) + 1)):
        with pytest.raises(MalformedError):
            row.kind.parse(outside)


@pytest.mark.parametrize("row", [row for row in PARAMS if "|" in row.kind.form], ids=lambda row: row.name)
def test_every_word_of_a_form_is_accepted_in_any_case(row: Param) -> None:
    for given in row.kind.form.split("|"):
        assert row.kind.parse(given) == row.kind.parse(given.upper())


def test_patterns_know_the_part_that_the_line_chose() -> None:
    row = find("kata.extension.a.b.verity_params")
    assert row is not None
    assert wild_part(row, "kata.extension.a.b.verity_params") == "a.b"
    assert find("kata.extension.verity_params") is None
    assert find("kata.extension.x.verity") is None


def test_values_of_several_parts_print_themselves() -> None:
    assert text(ModuleOptions((("a", "1"), ("b", "2")))) == "a=1,b=2"
    assert isinstance(parse(b"nvrc.gpus=2").settings.gpus, GpuCount)


def test_a_boot_without_a_policy_loads_nothing_heavy_for_it() -> None:
    """What reading a command line adds to a bare interpreter; its mistakes included."""
    root = os.path.dirname(os.path.dirname(nvrc.__file__))
    code = ("import sys; before = set(sys.modules)\n"
            "from nvrc.params.parse import parse; parse(b'nvrc.smi.src=1 nvrc.log=x nvrc.mig=all:off')\n"
            "print(' '.join(sorted(set(sys.modules) - before)))")
    loaded = subprocess.run([sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {root!r})\n{code}"],
                            capture_output=True, text=True, check=True, timeout=20).stdout.split()
    assert {name for name in loaded if not name.startswith("nvrc")} == {"guest_cdi", "guest_cdi.lean", "guest_cdi.lean.coded", "guest_cdi.lean.light"}
