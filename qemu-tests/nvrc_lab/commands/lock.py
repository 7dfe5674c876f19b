# SPDX-License-Identifier: Apache-2.0
"""`./dev lock`: write the hashed locks of Python packages anew from pyproject.toml. No index is named: pip's counts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence

from nvrc_lab.ground.places import checkout

LOCKS: Mapping[str, tuple[str, ...]] = {"venv.txt": ("dev", "build"), "mutate.txt": ("mutate",), "fuzz.txt": ("fuzz",),
                                         "site.txt": ("site",)}


def argv(name: str, root: str) -> list[str]:
    extras = [word for extra in LOCKS[name] for word in ("--extra", extra)]
    return [sys.executable, "-m", "piptools", "compile", "--quiet", "--generate-hashes", "--allow-unsafe",
            "--strip-extras", "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links",
            "--no-emit-trusted-host", *extras, "--output-file", f"{root}/build/locks/{name}", f"{root}/pyproject.toml"]


def main(words: Sequence[str] | None = None) -> int:
    chosen = list(sys.argv[1:] if words is None else words)
    root = str(checkout().root)
    return max(subprocess.run([*argv(name, root), *chosen], stdin=subprocess.DEVNULL, check=False).returncode
               for name in LOCKS)


if __name__ == "__main__":
    sys.exit(main())
