# SPDX-License-Identifier: Apache-2.0
"""Options by which a caller brings what the checkout does not declare: declarations, archives, packages, a kernel."""

from __future__ import annotations

import argparse
from pathlib import Path

from nvrc_build.job import Brought
from nvrc_build.supply.archives import Addresses, parse_named


def source_arguments(parser: argparse.ArgumentParser) -> None:
    """Where declarations and packages come from: of every command that reads them."""
    parser.add_argument("--declarations", type=Path, metavar="FOLDER",
                        help="declarations of your own, a folder like rootfs/; its files win, its locks/ is written")
    parser.add_argument("--archive", action="append", default=[], metavar="NAME=WHERE",
                        help="where a declared archive is: a URI or a folder with packages (can be given again)")
    parser.add_argument("--archive-key", action="append", default=[], metavar="NAME=FILE",
                        help="the key that the archive is signed with, armoured or not (can be given again)")


def build_arguments(parser: argparse.ArgumentParser) -> None:
    """What one build takes in beside the image's lock."""
    parser.add_argument("--package", action="append", default=[], metavar="NAME",
                        help="a further package that libraries may come from, not locked (can be given again)")
    parser.add_argument("--kernel", type=Path, metavar="FOLDER",
                        help="the kernel of an image that declares \"@kernel\": vmlinuz, config, modules/ and, where "
                        "a driver is compiled, headers/")
    parser.add_argument("--driver-run", metavar="FILE",
                        help="NVIDIA-Linux-x86_64-VERSION.run for an image with the driver nvidia-run: "
                        "PATH#sha256=HEX or URL#sha256=HEX")


def read_brought(args: argparse.Namespace) -> Brought:
    addresses = Addresses(places=parse_named("--archive", tuple(args.archive)),
                          keys={name: Path(path) for name, path in
                                parse_named("--archive-key", tuple(args.archive_key)).items()})
    return Brought(declarations=args.declarations, addresses=addresses, packages=tuple(getattr(args, "package", ())),
                   kernel=getattr(args, "kernel", None), driver_run=getattr(args, "driver_run", None))
