# SPDX-License-Identifier: Apache-2.0
"""`nvrc initdata`: make, check and measure what a pod gives its VM by annotation. Off the boot path.

nvrc.params.initdata is what the boot reads it with, so what this accepts a boot accepts.
"""

from __future__ import annotations

import argparse
import base64
import os
import sys
from typing import TextIO

from nvrc.commands.params import FINDING, check_document, show_check
from nvrc.params.initdata import (
    ALGORITHMS,
    ENTRIES,
    OWN,
    Initdata,
    parse_both,
    read_initdata,
)
from nvrc.params.initdata_make import make_document, pack, pack_disk, unwrap
from nvrc.params.policy import NO_POLICY, load_policy
from nvrc.vocabulary.console import printable
from nvrc.vocabulary.document import read_input
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.jsonread import FormatError
from nvrc.vocabulary.output import write_document

NAME = "initdata"
HELP = "make, check and measure what a pod gives its VM"
EPILOG = """\
examples:
  nvrc initdata make nvrc.toml aa.toml policy.rego >annotation   the value of the annotation cc_init_data
  nvrc initdata make --as toml nvrc.toml aa.toml >initdata.toml  the document, for a runtime that packs it itself
  nvrc initdata check annotation --policy image/policy.toml      what a boot would say to it
  nvrc initdata digest annotation                                what a verifier compares, for each kind of TEE

A file that is read may be a TOML document, its annotation, or the disk that a runtime made of it. The annotation is
io.katacontainers.config.hypervisor.cc_init_data. Exit status: 0 good, 1 a finding, 2 it could not be read.
"""
SIZES = (("sev-snp", "HOST_DATA", 32), ("tdx", "MRCONFIGID", 48), ("cca", "personalization value", 64))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="make|check|digest", required=True)
    make = actions.add_parser("make", help="make initdata of files")
    make.add_argument("files", metavar="FILE", nargs="+", help=f"files by the names {', '.join(ENTRIES)}")
    make.add_argument("--algorithm", choices=ALGORITHMS, default="sha384", help="of its digest (%(default)s)")
    make.add_argument("--as", dest="form", choices=("annotation", "toml", "disk"), default="annotation",
                      help="what to write (%(default)s)")
    make.add_argument("--policy", metavar="FILE", help="the policy of the image that is to boot with it")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("file", metavar="FILE", help="a document, an annotation or a disk; - for standard input")
    shared.add_argument("--json", action="store_true", help="print one JSON document")
    check = actions.add_parser("check", parents=[shared], help="say what a boot would refuse in it")
    check.add_argument("--policy", metavar="FILE", help="under the policy of this image")
    check.add_argument("--cmdline", metavar="TEXT", default="", help="beside this kernel command line")
    actions.add_parser("digest", parents=[shared], help="print its digest and what each kind of TEE keeps of it")


def run(args: argparse.Namespace, out: TextIO) -> int:
    if args.action == "make":
        return _make(args, out)
    document = read_document(args.file)
    if args.action == "digest":
        return _digest(read_initdata(document), as_json=args.json, out=out)
    return _check(document, args, out)


def read_document(path: str) -> bytes:
    """The TOML document of a file in any of its three forms."""
    return unwrap(read_input(path))


def _make(args: argparse.Namespace, out: TextIO) -> int:
    entries: dict[str, str] = {}
    for path in args.files:
        name = os.path.basename(path)
        if name not in ENTRIES:
            raise FormatError((f"{path}: its name is not one of {', '.join(ENTRIES)}",))
        if name in entries:
            raise FormatError((f"{path}: {name} is given twice",))
        try:
            entries[name] = read_input(path).decode()
        except UnicodeDecodeError as err:
            raise FormatError((f"{path}: is not UTF-8 ({err})",)) from err
    document = make_document(entries, args.algorithm)
    policy = load_policy(read_input(args.policy), args.policy) if args.policy else NO_POLICY
    found = read_initdata(document)
    mistakes = parse_both(b"", policy, found).errors
    if mistakes:
        raise NvrcError("E_INITDATA", "; ".join(f"{one}" if one.parameter in ENTRIES else f"{OWN}: {one}"
                                                for one in mistakes))
    if args.form == "annotation":
        out.write(base64.b64encode(pack(document)).decode() + "\n")
        return 0
    content = document if args.form == "toml" else pack_disk(document)
    out.flush()
    (out.buffer if hasattr(out, "buffer") else sys.stdout.buffer).write(content)
    return 0


def _check(document: bytes, args: argparse.Namespace, out: TextIO) -> int:
    policy = load_policy(read_input(args.policy), args.policy) if args.policy else NO_POLICY
    try:
        found = read_initdata(document)
    except NvrcError as err:
        if args.json:
            write_document(out, {"ok": False, "mistakes": [err.what], "line": None})
        else:
            out.write(printable(err.what) + "\n")
        return FINDING
    parsed = parse_both(os.fsencode(args.cmdline), policy, found)
    is_good = parsed.is_clean and not found.remarks
    if args.json:
        write_document(out, {"ok": is_good, "mistakes": list(found.remarks), "line": check_document(parsed)})
        return 0 if is_good else FINDING
    out.writelines(printable(f"warning  {remark}") + "\n" for remark in found.remarks)
    out.write(f"entries: {', '.join(map(printable, found.entries)) or 'none'}\n")
    show_check(parsed, out)
    return 0 if is_good else FINDING


def _digest(found: Initdata, *, as_json: bool, out: TextIO) -> int:
    bound = {name: found.bound(size).hex() for name, _field, size in SIZES}
    if as_json:
        write_document(out, {"algorithm": found.algorithm, "digest": found.digest.hex(), "bound": bound})
        return 0
    out.write(f"{found.algorithm}  {found.digest.hex()}\n")
    out.writelines(f"{name:<8}{field:<22} {bound[name]}\n" for name, field, _size in SIZES)
    return 0
