# SPDX-License-Identifier: Apache-2.0
"""The four roles of the seam: each method in one of them, each role declared once, the fake free of the real ones."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from fakes.sources import ROOT, tracked, tree_of
from fakes.system import FakeSystem
from nvrc.machine import system
from nvrc.machine.console import LinuxConsole
from nvrc.machine.files import LinuxFiles
from nvrc.machine.kernel import LinuxKernel
from nvrc.machine.linux_system import LinuxSystem
from nvrc.machine.processes import LinuxProcesses

ROLES = {"Files": LinuxFiles, "Kernel": LinuxKernel, "Processes": LinuxProcesses, "Console": LinuxConsole}
SEAM = "nvrc/machine/system.py"


def protocols(file: str) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in tree_of(ROOT / file).body if isinstance(node, ast.ClassDef)
            and any(isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases)}


def members(node: ast.ClassDef) -> set[str]:
    return {item.name for item in node.body if isinstance(item, ast.FunctionDef)} | {
        item.target.id for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)}


def declared() -> dict[str, set[str]]:
    """By role; what Files has of a machine that is only looked at is its own."""
    found = {name: members(node) for name, node in protocols(SEAM).items()}
    return {**{name: found[name] for name in ROLES}, "Files": found["Files"] | found["Readable"]}


def test_each_method_belongs_to_one_role_and_system_adds_none() -> None:
    methods = [name for role in declared().values() for name in role]
    assert sorted(methods) == sorted(set(methods))
    assert members(protocols(SEAM)["System"]) == set()
    bases = [base.id for base in protocols(SEAM)["System"].bases if isinstance(base, ast.Name)]
    assert bases == [*ROLES, "Protocol"]


@pytest.mark.parametrize("role", ROLES)
def test_one_class_plays_one_role_on_the_real_machine(role: str, tmp_path: Path) -> None:
    one = ROLES[role](str(tmp_path))
    assert {name for name in declared()[role] if not hasattr(one, name)} == set()
    others = {name for other, names in declared().items() if other != role for name in names}
    assert {name for name in others if hasattr(one, name)} == set()
    assert isinstance(LinuxSystem(str(tmp_path)), ROLES[role])


def test_the_fake_has_every_method_and_of_the_real_machine_its_files_only(tmp_path: Path) -> None:
    one = FakeSystem(str(tmp_path))
    assert {name for names in declared().values() for name in names if not hasattr(one, name)} == set()
    assert [name for name, real in ROLES.items() if isinstance(one, real)] == ["Files"]


@pytest.mark.long
def test_no_consumer_declares_a_part_of_a_role_anew() -> None:
    known = {name for names in declared().values() for name in names} - set(dir(system.Subscription))
    found = [f"{file}: {name} declares {', '.join(sorted(members(node) & known))}" for file in tracked("nvrc/*.py")
             if file != SEAM for name, node in protocols(file).items() if members(node) & known]
    assert found == []
