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
PRINTERS = (("docs/topologies.md", "nvrc.pages.topology"), ("docs/pod-events.md", "nvrc.pages.pod_events"))
# Modules that write and check their pages themselves.
WRITERS = ("nvrc.pages.reference",)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="dev docs", description="Write the pages of docs/ that come from tables.")
    parser.add_argument("--check", action="store_true", help="write nothing; name what is out of date and exit 1")
    is_check: bool = parser.parse_args(argv).check
    root = checkout().root
    good = [_print_page(root, page, module, is_check=is_check) for page, module in PRINTERS]
    good += [_run(root, module, *(["--check"] if is_check else [])) for module in WRITERS]
    return 0 if all(good) else 1


def _print_page(root: Path, page: str, module: str, *, is_check: bool) -> bool:
    done = subprocess.run([sys.executable, "-m", module], cwd=root, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          check=False)
    if done.returncode != 0:
        print(f"{page}: python -m {module} failed with status {done.returncode}", file=sys.stderr)
        return False
    path = root / page
    if path.is_file() and path.read_bytes() == done.stdout:
        return True
    if is_check:
        print(f"{page}: out of date, run ./dev docs")
        return False
    path.write_bytes(done.stdout)
    print(f"{page}: written")
    return True


def _run(root: Path, module: str, *words: str) -> bool:
    argv = [sys.executable, "-m", module, *words]
    return subprocess.run(argv, cwd=root, stdin=subprocess.DEVNULL, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
