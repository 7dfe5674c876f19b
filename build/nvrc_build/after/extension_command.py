# SPDX-License-Identifier: Apache-2.0
"""`nvrc-image check-extension BASE EXTENSION`, for images of any maker: an initrd or a disk of Kata's layout."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from nvrc.vocabulary.output import write_document
from nvrc_build.after import contents, extension
from nvrc_build.ground.progress import Terminal
from nvrc_build.job import open_supply
from nvrc_build.products import given_kernel
from nvrc_build.supply import supply
from nvrc_build.tree.tree import Tree


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("base", help="an initrd or disk image, ours or Kata's: a file, a folder, a name in OUT/images")
    parser.add_argument("extension", help="an extension's disk image, likewise")
    parser.add_argument("--kernel", type=Path, metavar="FILE", help="the kernel of a base without modules: a bzImage")


def run(args: argparse.Namespace) -> int:
    release = given_kernel.release(args.kernel) if args.kernel is not None else ""
    with tempfile.TemporaryDirectory(prefix="nvrc-contents-") as work:
        base, upper = _read_trees(args, Path(work))
        findings, kind = extension.check_extension(base, upper, release), extension.kind_of(upper).value
    if args.json:
        write_document(sys.stdout, {"base": args.base, "extension": args.extension, "kind": kind,
                                    "findings": list(findings)})
        return 1 if findings else 0
    extension.require(findings, args.base, args.extension)
    print(f"extension {args.extension} ({kind}) fits base {args.base}")
    return 0


def _read_trees(args: argparse.Namespace, work: Path) -> tuple[Tree, ...]:
    """Both as they are in their files."""
    terminal = Terminal(sys.stderr)
    opened = open_supply(cache=args.cache or args.out / "cache", mirror=args.mirror, progress=terminal)
    tools = supply.root(opened, "tools")
    terminal.close()
    trees = []
    for part, name in (("base", args.base), ("extension", args.extension)):
        place = work / part
        place.mkdir()
        trees.append(contents.read_tree(contents.find_image(name, args.out / "images"), place, name, tools=tools))
    return tuple(trees)
