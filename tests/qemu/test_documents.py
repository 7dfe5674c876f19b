# SPDX-License-Identifier: Apache-2.0
"""Documents of the commands that boot machines or build an image: `schema`, and null for what is unset."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.documents import BOOTED, unset

pytestmark = pytest.mark.qemu
MODULES = {"nvrc-image": "nvrc_build", "nvrc-lab": "nvrc_lab"}


@pytest.mark.parametrize(("command", "words"), BOOTED.items(), ids=BOOTED)
def test_a_document_has_a_schema_and_nothing_unset_but_null(command: str, words: list[str], tmp_path: Path) -> None:
    program, name = command.split()
    console = [f"--console={tmp_path / 'kept.console'}"] if name == "boot" else []
    done = subprocess.run([sys.executable, "-m", MODULES[program], name, *words, *console, "--json"], capture_output=True, text=True,
                          check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == (1 if name == "life" else 0), done.stdout + done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == 1
    assert list(unset(document)) == []
