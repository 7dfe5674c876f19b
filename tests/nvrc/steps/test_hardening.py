# SPDX-License-Identifier: Apache-2.0
"""The kernel's protections, row by row: set, left where they refuse more, passed over where a kernel has none."""

from __future__ import annotations

import os
import struct
from errno import EINVAL, EIO, EPERM
from pathlib import Path

import pytest

from fakes.system import FakeSystem, bare_guest
from nvrc.engine.facts import Facts
from nvrc.machine.audit import make_rule
from nvrc.steps import hardening
from nvrc.steps.hardening import HARDENING, Row, tell
from nvrc.vocabulary.errors import NvrcError

ROWS = {row.name: row for row in HARDENING}


@pytest.fixture
def system(tmp_path: Path) -> FakeSystem:
    """A kernel that has every row, each set to something else."""
    system = bare_guest(str(tmp_path))
    for row in HARDENING:
        system.put(row.path, f"{other(row)}\n")
    return system


def other(row: Row) -> str:
    return "0" if row.value.isdecimal() and row.value != "0" else "1" if row.value else "|/bin/evil"


@pytest.mark.parametrize("row", HARDENING, ids=lambda row: row.name)
def test_every_row_is_set_and_has_a_reason(system: FakeSystem, row: Row) -> None:
    facts = hardening.run(system, Facts())
    assert system.text(row.path) == f"{row.value}\n"
    assert facts.unhardened == ()
    assert tell(facts) == f"{len(HARDENING)} of {len(HARDENING)} rows"
    assert row.why


def test_no_name_has_two_rows() -> None:
    assert len(ROWS) == len(HARDENING)


def test_what_holds_already_is_not_written(system: FakeSystem) -> None:
    hardening.run(system, Facts())
    system.effects.clear()
    hardening.run(system, Facts())
    assert [effect for effect in system.effects if effect.startswith("write")] == []


@pytest.mark.parametrize(("name", "found", "left"), [
    pytest.param("kernel.yama.ptrace_scope", "3", "3", id="more-and-locked"),
    pytest.param("kernel.perf_event_paranoid", "3", "3", id="more"),
    pytest.param("kernel.perf_event_paranoid", "-1", "2", id="less-than-nothing"),
    pytest.param("kernel.yama.ptrace_scope", "many", "1", id="no-number"),
    pytest.param("kernel.unprivileged_bpf_disabled", "2", "1", id="more-is-not-stricter"),
    pytest.param("kernel.core_pattern", "|/usr/bin/dump %p", "", id="a-program-from-the-line"),
    pytest.param("kernel.modprobe", "/dev/vdb", "", id="a-loader-from-the-line"),
])
def test_what_the_line_has_set(system: FakeSystem, name: str, found: str, left: str) -> None:
    system.put(ROWS[name].path, f"{found}\n")
    hardening.run(system, Facts())
    assert system.text(ROWS[name].path).strip() == left


@pytest.mark.parametrize("row", HARDENING, ids=lambda row: row.name)
def test_a_row_that_the_kernel_has_not(system: FakeSystem, row: Row) -> None:
    os.unlink(system.real_path(row.path))
    if row.required:
        with pytest.raises(NvrcError, match=f"{row.path} is missing") as caught:
            hardening.run(system, Facts())
        assert caught.value.code == "E_HARDENING"
        return
    facts = hardening.run(system, Facts())
    assert facts.unhardened == (row.name,)
    assert tell(facts) == f"{len(HARDENING) - 1} of {len(HARDENING)} rows; not in this kernel: {row.name}"
    assert not system.exists(row.path)


def test_a_refused_value_names_both(system: FakeSystem) -> None:
    system.fail["write /proc/sys/kernel/core_pattern"] = OSError(EINVAL, os.strerror(EINVAL))
    with pytest.raises(NvrcError) as caught:
        hardening.run(system, Facts())
    assert caught.value.code == "E_HARDENING"
    assert caught.value.what == ("cannot write '' to /proc/sys/kernel/core_pattern, which holds '|/bin/evil': "
                                 "Invalid argument")


def test_an_unreadable_value_is_fatal(system: FakeSystem) -> None:
    system.fail["read /proc/sys/kernel/sysrq"] = OSError(EIO, os.strerror(EIO))
    with pytest.raises(NvrcError, match="cannot read /proc/sys/kernel/sysrq: Input/output error"):
        hardening.run(system, Facts())


def test_audit_messages_of_programs_are_dropped(system: FakeSystem) -> None:
    hardening.run(system, Facts())
    assert system.effects.count("drop audit messages") == 1


def test_a_kernel_that_refuses_that_rule_is_fatal(system: FakeSystem) -> None:
    system.fail["drop audit messages"] = OSError(EPERM, os.strerror(EPERM))
    with pytest.raises(NvrcError, match="refused a rule that drops programs' audit messages: Operation not permitted") as caught:
        hardening.run(system, Facts())
    assert caught.value.code == "E_HARDENING"


def test_the_rule_is_as_the_kernel_has_it() -> None:
    """struct audit_rule_data of linux/audit.h: one field, in the first of 64 places of each row."""
    rule = make_rule()
    assert len(rule) == 12 + 4 * 64 * 4 + 4
    assert [struct.unpack_from("=I", rule, 4 * place)[0] for place in range(3)] == [0, 0, 1]
    rows = [struct.unpack_from("=64I", rule, 12 + 256 * row) for row in range(4)]
    assert [row[0] for row in rows] == [0, 12, 0, 0x60000000]
    assert not any(any(row[1:]) for row in rows)
