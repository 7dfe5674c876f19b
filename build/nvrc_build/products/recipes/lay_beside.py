# SPDX-License-Identifier: Apache-2.0
"""Runs in the sandbox: loads the agent beside the pod with all that it loads late, and lays what the init has not.

Code is compiled as the frozen init's is, with hashes in place of times, so that equal sources give equal bytes.
"""

import os
import shutil
import sys
from importlib import _bootstrap_external
from importlib.util import source_hash

TARGET = sys.argv[1]
# The base library of a frozen program: always there, and in none of its lists.
BASE = ("_collections_abc", "_weakrefset", "abc", "codecs", "collections", "copyreg", "encodings", "enum", "functools",
        "genericpath", "io", "heapq", "keyword", "linecache", "locale", "ntpath", "operator", "posixpath", "re",
        "reprlib", "stat", "traceback", "types", "warnings", "weakref", "os", "site")

# Loaded where they happen to be there, and used by nothing here; each would bring a library of its own.
UNUSED = ("bz2", "_bz2", "lzma", "_lzma", "__main__", "__mp_main__", "_frozen_importlib", "_frozen_importlib_external")

sys.path[:0] = ["/src"]

from importlib import import_module  # noqa: E402

for wanted in ("psutil", "nvrc.beside.main", "nvrc.beside.zeros"):  # the last one by the child alone
    import_module(wanted)
import_module("nvrc.beside.links").messages()
with open("/src/frozen.txt", encoding="utf-8") as listing:
    frozen = listing.read().split()
known = {*frozen, *(os.path.basename(name) for name in frozen)}
laid = []
for name, module in sorted(sys.modules.items()):
    path = getattr(module, "__file__", None)
    if path is None or name in UNUSED or name in known or name.partition(".")[0] in BASE:
        continue
    if path.endswith(".so"):
        if os.path.basename(path) in known:
            continue
        inside = path.removeprefix("/src/") if path.startswith("/src/") else f"lib-dynload/{os.path.basename(path)}"
        target = f"{TARGET}/{inside}"
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copyfile(path, target)
    else:
        with open(path, "rb") as source:
            text = source.read()
        shown = path.removeprefix("/src/").removeprefix("/usr/lib/python3.13/")
        code = compile(text, shown, "exec", dont_inherit=True, optimize=2)
        is_package = path.endswith("/__init__.py")
        target = f"{TARGET}/{name.replace('.', '/')}{'/__init__' if is_package else ''}.pyc"
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as stream:
            stream.write(_bootstrap_external._code_to_hash_pyc(  # type: ignore[attr-defined]
                code, source_hash(text), False))
    laid.append(name)
with open("/out/modules.txt", "w", encoding="utf-8") as listing:
    listing.write("".join(f"{name}\n" for name in laid))
