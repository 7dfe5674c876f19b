# SPDX-License-Identifier: Apache-2.0
"""The examples of the pages for pod authors and operators: every command runs, and prints what the page shows.

`python tests/docs/test_examples.py` writes what the commands print into the pages.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from fakes.bytecode import BYTECODE
from nvrc.params.parse import parse

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs/examples"
PAGES = tuple(page.name for page in sorted((ROOT / "docs").glob("*.md")) if "```console\n" in page.read_text())
KUBECTL = """#!/bin/sh
case "$*" in
    nvrc\\ *) shift; exec /bin/sh {root}/kubectl/kubectl-nvrc "$@" ;;
    *containerStatuses*) ;;
    *'get pod'*) echo 'node-7|5d1c0000-0000-4000-8000-000000000001|2026-11-20T09:14:00Z|kata-qemu-nvidia-gpu' ;;
    *'get events'* | *'describe pod'*) cat {root}/docs/examples/describe.txt ;;
    *) echo 'Error from server (Forbidden)' >&2; exit 1 ;;
esac
"""
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(page: str) -> Iterator[tuple[str, str]]:
    """Each command of a page with what the page shows below it."""
    for block in BLOCK.findall((ROOT / "docs" / page).read_text()):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            yield command, shown


def execute(command: str, programs: Path) -> str:
    for name, text in (("kubectl", KUBECTL.format(root=ROOT)),
                       ("nvrc", f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m nvrc "$@"\n')):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    width = {} if "| grep" in command else {"COLUMNS": "120"}  # a shell does not tell programs, and grep needs whole lines
    done = subprocess.run(["/bin/bash", "-c", command], cwd=EXAMPLES, capture_output=True, text=True, check=False, timeout=60,
                          env={"PATH": f"{programs}:{os.environ['PATH']}", **width, **BYTECODE,
                               "TMPDIR": str(programs)})
    assert done.stderr == ""
    return done.stdout


@pytest.mark.long
@pytest.mark.parametrize(("command", "shown"), [pytest.param(*row, id=f"{page} {row[0]}") for page in PAGES for row in commands(page)])
def test_a_command_prints_what_the_page_shows(tmp_path: Path, command: str, shown: str) -> None:
    assert execute(command, tmp_path) == shown


def test_the_pod_of_the_page_is_the_file_and_its_line_is_clean() -> None:
    text = (EXAMPLES / "pod.yaml").read_text()
    pod = yaml.safe_load(text)
    line = pod["metadata"]["annotations"]["io.katacontainers.config.hypervisor.kernel_params"]
    assert parse(line.encode()).is_clean
    shown = re.findall(r"^```yaml\n(.*?)^```$", (ROOT / "docs/pod.md").read_text(), re.MULTILINE | re.DOTALL)
    assert shown
    for part in "".join(shown).splitlines():
        assert part in text.splitlines()


def test_the_drop_in_of_the_page_is_the_file() -> None:
    shown = re.findall(r"^```toml\n(.*?)^```$", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE | re.DOTALL)
    assert [tomllib.loads(part) for part in shown] == [tomllib.loads((EXAMPLES / "console.toml").read_text())]


def test_every_example_file_is_used() -> None:
    text = "".join(page.read_text() for page in (*(ROOT / "docs").glob("*.md"), *(ROOT / "docs/man").iterdir())).replace("\\-", "-") + KUBECTL
    assert [path.name for path in EXAMPLES.iterdir() if path.name not in text] == []


def write(page: str) -> None:
    path = ROOT / "docs" / page
    text = path.read_text()
    with tempfile.TemporaryDirectory() as folder:
        for block in BLOCK.findall(text):
            ran = [part.partition("\n")[0] for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
            text = text.replace(f"```console\n{block}```", "```console\n" + "".join(
                f"$ {command}\n{execute(command, Path(folder))}" for command in ran) + "```")
    path.write_text(text)


if __name__ == "__main__":
    for name in PAGES:
        write(name)
