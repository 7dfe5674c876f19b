# SPDX-License-Identifier: Apache-2.0
"""The command line of the image factory: a table of commands, each a few lines over the package's own functions."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nvrc_build import pipeline, relock
from nvrc_build.after import trust
from nvrc_build.declared import read as manifest
from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.progress import Terminal
from nvrc_build.job import default_out, find_declarations
from nvrc_build.kata import command as kata_command
from nvrc_build.papers import diff, inspect
from nvrc_build.papers.inventory import Inventory, find_manifest, read_inventory
from nvrc_build.papers.treemap import render_treemap

EPILOG = """examples:
  nvrc-image build                          the lab image into out/images/lab
  nvrc-image build lab --agent ./kata-agent --json
  nvrc-image build nvidia --agent ./kata-agent --agent-policy allow-set-policy
  nvrc-image check                          read every declaration, report every mistake
  nvrc-image inspect lab --svg lab.svg      what it weighs, slice by slice
  nvrc-image diff old/manifest.json lab     what changed
  nvrc-image measure lab --firmware OVMF.amdsev.fd --cmdline "console=hvc0" --vcpus 1-8 -o values.json
  nvrc-image overlay kata-base fixes/ --name kata-base-fixed
  nvrc-image enrol nvidia --vars OVMF_VARS_4M.fd -o vars.fd
  nvrc-image kata-config nvidia --runtime-class kata-qemu-nvidia-gpu --deploy deploy
  nvrc-image lock                           take today's package versions into rootfs/locks

Building needs root, or a kernel that lets users make user namespaces: programs run in an unpacked root of their own.
Nothing outside the output and cache folders is changed; mounts end with the build, also after Ctrl-C.
"""


BUILD_EXTRA = ("cyclonedx", "license_expression", "packageurl", "spdx_tools")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    name: str
    help: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    epilog: str = ""


def _image_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", help="an image in OUT/images, its folder, or its manifest.json")


def build_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("profile", nargs="?", default="lab", help="image in rootfs/images (default: lab)")
    parser.add_argument("--agent", metavar="FILE",
                        help="kata-agent: PATH or URL#sha256=HEX; default: the lab's stand-in")
    parser.add_argument("--components", metavar="TREE", help="confidential guest components: a folder or tar archive, "
                        "PATH or URL#sha256=HEX")
    parser.add_argument("--agent-policy", metavar="POLICY", help="what the agent may be asked for: allow-all, "
                        "allow-set-policy, deny, or a Rego file, PATH or URL#sha256=HEX (default: the image's)")


def check_extra(needs: Sequence[str] = BUILD_EXTRA) -> None:
    """Before anything is fetched: what an image's bills are written with comes with an extra of the wheel."""
    lacking = [name for name in needs if importlib.util.find_spec(name) is None]
    if lacking:
        raise BuildError(f"Python packages that a build needs are not installed: {', '.join(lacking)}",
                         "run: pip install 'nvrc[build]'")


def run_build(args: argparse.Namespace) -> int:
    check_extra()
    started = time.monotonic()
    terminal = Terminal(sys.stderr)
    image = pipeline.build(args.profile, out=args.out, agent=args.agent, components=args.components,
                           policy=args.agent_policy, cache=args.cache, mirror=args.mirror, progress=terminal)
    terminal.close()
    if args.json:
        print(json.dumps(pipeline.describe(image)))
    else:
        print(inspect.summarise(read_inventory(image.manifest)), end="")
        print(f"{image.profile}: {image.folder} in {time.monotonic() - started:.1f} s")
    return 0


def lock_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", help="images or roots (default: all)")


def run_lock(args: argparse.Namespace) -> int:
    terminal = Terminal(sys.stderr)
    changes = relock.relock(args.names, cache=args.cache or args.out / "cache", mirror=args.mirror,
                            checkout=pipeline.CHECKOUT, progress=terminal)
    terminal.close()
    if args.json:
        print(json.dumps({name: list(lines) for name, lines in changes.items()}))
        return 0
    for name, lines in changes.items():
        print(f"{name}: {len(lines)} changes")
        print("".join(f"  {line}\n" for line in lines), end="")
    return 0


def run_check(args: argparse.Namespace) -> int:
    declared = manifest.load(find_declarations())
    rows = {image.name: [row.name for row in declared.slices_of(image)] for image in declared.images}
    if args.json:
        print(json.dumps(rows))
    else:
        for name, slices in rows.items():
            print(f"{name}: {declared.image(name).summary}\n  {', '.join(slices)}")
    return 0


def inspect_arguments(parser: argparse.ArgumentParser) -> None:
    _image_name(parser)
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write a treemap of the image")
    parser.add_argument("--table", action="store_true", help="print the weights as a Markdown table")


def run_inspect(args: argparse.Namespace) -> int:
    image = _read(args.image, args)
    if args.svg is not None:
        args.svg.write_text(render_treemap(image), encoding="utf-8")
    if args.json:
        print(json.dumps({"image": image.image, "parts": dict(image.parts), "packages": dict(image.packages),
                          "slices": {name: {"files": count, "bytes": size}
                                     for name, (count, size) in image.weights().items()}}))
    elif args.table:
        print(inspect.tabulate(image), end="")
    else:
        print(inspect.summarise(image), end="")
        print(f"\n  heaviest files\n{inspect.list_heaviest(image)}", end="")
    return 0


def diff_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("old", help="an image in OUT/images, its folder, or its manifest.json")
    parser.add_argument("new", help="the same")


def run_diff(args: argparse.Namespace) -> int:
    found = diff.compare(_read(args.old, args), _read(args.new, args))
    if args.json:
        print(json.dumps({
            "parts": list(found.parts), "packages": list(found.packages), "slices": found.by_slice(),
            "files": [{"path": row.path, "what": row.what, "bytes": row.bytes_more} for row in found.changes]}))
    else:
        print(diff.render(found), end="")
    return 1 if found else 0


def _read(name: str, args: argparse.Namespace) -> Inventory:
    return read_inventory(find_manifest(name, args.out / "images"))


def _no_arguments(_parser: argparse.ArgumentParser) -> None:
    """For commands that take options only."""


COMMANDS = (
    Command(name="build", help="build an image", arguments=build_arguments, run=run_build),
    Command(name="check", help="read all declarations and report every mistake", arguments=_no_arguments,
            run=run_check),
    Command(name="inspect", help="what an image is made of and weighs", arguments=inspect_arguments, run=run_inspect),
    Command(name="diff", help="what changed between two images (exit 1 if anything did)", arguments=diff_arguments,
            run=run_diff),
    Command(name="measure", help="the expected SEV-SNP launch measurements, and how to register them with Trustee",
            arguments=trust.measure_arguments, run=trust.run_measure, epilog=trust.MEASURE_EPILOG),
    Command(name="overlay", help="add or replace files in a verity image, as an image of its own",
            arguments=trust.overlay_arguments, run=trust.run_overlay),
    Command(name="enrol", help="put the key of an image's modules into db of an OVMF variable store",
            arguments=trust.enrol_arguments, run=trust.run_enrol),
    Command(name="kata-config", help="what a cluster needs to boot an image: drop-in, Helm values, RuntimeClass, Pod",
            arguments=kata_command.add_arguments, run=kata_command.run,
            epilog=kata_command.EPILOG),
    Command(name="lock", help="take today's package versions into the locks", arguments=lock_arguments, run=run_lock),
)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nvrc-image", description="Build, check, explain and compare guest images.", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    choices = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        one = choices.add_parser(command.name, help=command.help, description=command.help, epilog=command.epilog,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
        one.add_argument("--out", type=Path, default=default_out(), help="output folder (default: out)")
        one.add_argument("--cache", type=Path, help="cache folder (default: OUT/cache)")
        one.add_argument("--mirror", metavar="URI", help="archive (default: the one this machine's apt uses)")
        one.add_argument("--json", action="store_true", help="print the result as JSON")
        command.arguments(one)
        one.set_defaults(run=command.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    try:
        return int(args.run(args))
    except BuildError as failed:
        print(f"nvrc-image: {failed}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as missing:
        print(f"nvrc-image: the Python package {missing.name} is not installed; run: pip install 'nvrc[build]'",
              file=sys.stderr)
        return 2
    except OSError as failed:
        print(f"nvrc-image: {failed}; free space or correct the path, then run it again", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("nvrc-image: interrupted; finished stages stay in the cache", file=sys.stderr)
        return 130
