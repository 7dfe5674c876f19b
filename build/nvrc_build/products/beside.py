# SPDX-License-Identifier: Apache-2.0
"""What the agent beside the pod needs and the frozen init has not: plain files for the init's own interpreter.

A folder of its own, so that an image has it or has not, and no boot reads a line more of a table of contents. The
modules are those that a run of it loads, in the root that the image's libc comes from; what the init has frozen is
left out. pyroute2's top, which brings an event loop and 20 MB, is replaced by nothing: its parsers are all that is
used. Imports of both packages that bring much and serve nothing here are replaced by a few names.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.run import clean_env, run
from nvrc_build.products.freeze import PACKAGES, source_folder
from nvrc_build.sandbox.sandbox import sandbox_argv

RECIPE = Path(__file__).parent / "recipes" / "lay_beside.py"
PLACE = "usr/lib/nvrc-metrics"
OURS = "from nvrc.beside.spared import"
# Lines of imports, and what takes their place.
SPARED: Mapping[str, Mapping[str, str]] = {
    "pyroute2/common.py": {
        "from typing import Any, Callable, Literal, Optional, TypeVar, Union":
            f"{OURS} Any, Callable, Literal, Optional, TypeVar, Union"},
    "pyroute2/netlink/__init__.py": {
        "import logging": f"{OURS} logging", "import traceback": f"{OURS} traceback",
        "from typing import Dict": f"{OURS} Dict"},
    "psutil/__init__.py": {
        "import datetime": f"{OURS} datetime", "import subprocess": f"{OURS} subprocess"},
}


def lay(checkout: Path, *, root: Path, site: Path, init: Path, out: Path) -> None:
    source = out / "src"
    for package in PACKAGES:
        for path in sorted((source_folder(checkout) / package).rglob("*.py")):
            target = source / path.relative_to(source_folder(checkout))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    for package in ("pyroute2", "psutil"):
        shutil.copytree(site / package, source / package)
    for name in SPARED:
        path = source / name
        path.write_text(spare(path.read_text(encoding="utf-8"), name), encoding="utf-8")
    (source / "pyroute2/__init__.py").write_text("", encoding="utf-8")
    shutil.copyfile(RECIPE, source / RECIPE.name)
    shutil.copyfile(init / "modules.txt", source / "frozen.txt")
    (out / PLACE).mkdir(parents=True)
    argv = sandbox_argv(root, ["/usr/bin/python3.13", "-I", "-S", "-B", f"/src/{RECIPE.name}", f"/out/{PLACE}"],
                        env=clean_env({}), read_only={"/src": source}, writable={"/out": out})
    run(argv, what="laying the agent beside the pod", timeout_s=120)
    shutil.rmtree(source)


def spare(text: str, name: str) -> str:
    """A file of a package without its imports of SPARED; a version that imports otherwise is an error."""
    for line, ours in SPARED[name].items():
        if text.count(f"\n{line}\n") != 1:
            raise BuildError(f"{name} has not one line {line!r}",
                             "compare SPARED of nvrc_build/products/beside.py with its imports")
        text = text.replace(f"\n{line}\n", f"\n{ours}\n")
    return text
