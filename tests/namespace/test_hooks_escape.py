# SPDX-License-Identifier: Apache-2.0
"""Code of a container that took ldconfig over: what it can still ask of the kernel, and a way out that worked once."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

from guest_cdi.errors import CdiError
from guest_cdi.hooks import ldcache
from guest_cdi.hooks.root import Root
from namespace.hooks_cell import build, make_tree, run_program

pytestmark = pytest.mark.namespace

TREE: dict[str, str | None] = {"etc/debian_version": "12", "proc": None, "lib": None}
_AT_FDCWD, _ROOM = -100, 128


@pytest.fixture(scope="session")
def escapist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("hooks_escape.c", tmp_path_factory.mktemp("escape") / "ldconfig", "-static")


def handle_of(path: Path) -> bytes:
    """The kernel's handle of a file, as name_to_handle_at(2) gives it to anybody."""
    handle = ctypes.create_string_buffer(_ROOM.to_bytes(4, "little") + bytes(4 + _ROOM))
    mount = ctypes.c_int()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.name_to_handle_at(_AT_FDCWD, os.fsencode(path), handle, ctypes.byref(mount), 0):
        pytest.skip(f"no handles on this file system: {os.strerror(ctypes.get_errno())}")
    return handle.raw


def test_no_call_that_leads_out(tmp_path: Path, escapist: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the machine")
    tree = make_tree(tmp_path, TREE)
    (tree / "spy-handle").write_bytes(handle_of(secret))
    done = run_program(tree, "update-ldcache", "--ldconfig-path", str(escapist))
    assert (done.returncode, done.stderr) == (0, "")
    answers = [line.rpartition(" Function not implemented")[0] or line for line in (tree / "spy").read_text().splitlines()]
    assert len(answers) > 40
    assert [line for line in answers if " " in line and line != "not yet known"] == []


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the machine has one ABI")
def test_the_other_abi_of_the_machine_ends_the_program(tmp_path: Path, escapist: Path) -> None:
    tree = make_tree(tmp_path, {**TREE, "spy-abi": ""})
    with Root(str(tree)) as root, pytest.raises(CdiError, match="E_CDI_HOOK_LDCACHE") as caught:
        ldcache.update_cache((), str(escapist), root)
    assert caught.value.what.startswith("exit status -31 ")  # SIGSYS
