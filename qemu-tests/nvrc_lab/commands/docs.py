# SPDX-License-Identifier: Apache-2.0
"""The generated pages of docs/: one row for each program that makes one. Writes them anew, or tells which is stale."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from nvrc_lab.ground.places import checkout

# Modules that print a page, by the page they print.
PRINTERS = (("docs/topologies.md", "nvrc.pages.topology"), ("docs/pod-events.md", "nvrc.pages.pod_events"),
            ("docs/failure-signatures.md", "nvrc.pages.signatures"), ("docs/machine.svg", "nvrc.pages.picture"))
# Parts of pages between `<!-- NAME -->` and `<!-- end of NAME -->`, by the words of the module that prints them.
PARTS = (("docs/lab.md", "fault table", ("nvrc_lab", "explain", "fault-table")),)
# Modules that write and check their pages themselves.
WRITERS = ("nvrc.pages.reference", "nvrc.pages.policy", "nvrc.pages.manual", "nvrc_lab.manual")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="dev docs", description="Write the pages of docs/ that come from tables.")
    parser.add_argument("--check", action="store_true", help="write nothing; name what is out of date and exit 1")
    is_check: bool = parser.parse_args(argv).check
    root = checkout().root
    good = [_print_page(root, page, module, is_check=is_check) for page, module in PRINTERS]
    good += [_print_part(root, page, name, words, is_check=is_check) for page, name, words in PARTS]
    good += [_run(root, module, *(["--check"] if is_check else [])) for module in WRITERS]
    return 0 if all(good) else 1


def _print_page(root: Path, page: str, module: str, *, is_check: bool) -> bool:
    text = _read(root, page, module)
    return text is not None and _write(root, page, text, is_check=is_check)


def _print_part(root: Path, page: str, name: str, words: Sequence[str], *, is_check: bool) -> bool:
    text = _read(root, page, *words)
    begin, end = f"<!-- {name} -->\n".encode(), f"<!-- end of {name} -->".encode()
    head, found, rest = (root / page).read_bytes().partition(begin)
    _, ended, tail = rest.partition(end)
    if text is None or not found or not ended:
        print(f"{page}: has no place for {name}", file=sys.stderr)
        return False
    return _write(root, page, head + begin + text + end + tail, is_check=is_check)


def _read(root: Path, page: str, *words: str) -> bytes | None:
    done = subprocess.run([sys.executable, "-m", *words], cwd=root, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          check=False)
    if done.returncode == 0:
        return done.stdout
    print(f"{page}: python -m {' '.join(words)} failed with status {done.returncode}", file=sys.stderr)
    return None


def _write(root: Path, page: str, text: bytes, *, is_check: bool) -> bool:
    path = root / page
    if path.is_file() and path.read_bytes() == text:
        return True
    if is_check:
        print(f"{page}: out of date, run ./dev docs")
        return False
    path.write_bytes(text)
    print(f"{page}: written")
    return True


def _run(root: Path, module: str, *words: str) -> bool:
    argv = [sys.executable, "-m", module, *words]
    return subprocess.run(argv, cwd=root, stdin=subprocess.DEVNULL, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
