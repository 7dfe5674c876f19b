# SPDX-License-Identifier: Apache-2.0
"""The command line of the image factory: a table of commands, each a few lines over the package's own functions."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nvrc import __version__
from nvrc.vocabulary.manners import USAGE, Parser, complain, serve, speak_json, wants_json
from nvrc.vocabulary.output import write_document
from nvrc.vocabulary.terminal import width_of, write_text
from nvrc_build import options, pipeline, relock
from nvrc_build.after import evidence_command, extension_command, share, trust
from nvrc_build.declared import read as manifest
from nvrc_build.declared.declared import Declarations
from nvrc_build.ground.errors import BuildError, WrongCallError
from nvrc_build.ground.progress import Terminal
from nvrc_build.job import default_out, find_declarations, open_supply
from nvrc_build.kata import command as kata_command
from nvrc_build.papers import diff, inspect
from nvrc_build.papers.inventory import Inventory, find_manifest, read_inventory
from nvrc_build.papers.treemap import render_treemap

EPILOG = """examples:
  nvrc-image build                          the lab image into out/images/lab
  nvrc-image build lab --agent ./kata-agent --json
  nvrc-image build nvidia --agent ./kata-agent --agent-policy allow-set-policy
  nvrc-image build kata-base --agent ./kata-agent --policy policy.toml
  nvrc-image check                          read every declaration, report every mistake
  nvrc-image inspect lab --svg lab.svg      what it weighs, slice by slice
  nvrc-image diff old/manifest.json lab     what changed
  nvrc-image measure lab --firmware OVMF.amdsev.fd --cmdline "console=hvc0" --vcpus 1-8 -o values.json
  nvrc-image sign nvidia-confidential --key builder
  nvrc-image verify nvidia-confidential --report report --firmware OVMF.amdsev.fd --cmdline "console=hvc0" --vcpus 1-8
  nvrc-image overlay kata-base fixes/ --name kata-base-fixed
  nvrc-image check-extension nvidia-base-confidential kata-coco.img
  nvrc-image enrol nvidia --vars OVMF_VARS_4M.fd -o vars.fd
  nvrc-image kata-config nvidia --runtime-class kata-qemu-nvidia-gpu --deploy deploy
  nvrc-image lock                           take today's package versions into rootfs/locks

Building needs root, or a kernel that lets users make user namespaces: programs run in an unpacked root of their own.
Nothing outside the output and cache folders is changed; mounts end with the build, also after Ctrl-C.
Exit status: 0 done, 1 a finding or a failed build, 2 the call was wrong or this machine lacks something.
"""


# Commands whose status 1 is an answer: what cannot be compared is another thing than what differs.
ANSWERS_BY_STATUS = ("diff", "verify")
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
    parser.add_argument("--policy", metavar="FILE", help="what the kernel command line may decide: a policy.toml, "
                        "PATH or URL#sha256=HEX (default: what the image's slices bring, if they do)")
    parser.add_argument("--wait", type=float, metavar="S",
                        help="how long to wait for another build that makes the same thing (default: till it is over)")
    options.source_arguments(parser)
    options.build_arguments(parser)


def check_extra(needs: Sequence[str] = BUILD_EXTRA) -> None:
    """Before anything is fetched: what an image's bills are written with comes with an extra of the wheel."""
    lacking = [name for name in needs if importlib.util.find_spec(name) is None]
    if lacking:
        raise WrongCallError(f"Python packages that a build needs are not installed: {', '.join(lacking)}",
                             "run: pip install 'nvrc[build]'")


def run_build(args: argparse.Namespace) -> int:
    check_extra()
    started = time.monotonic()
    terminal = Terminal(sys.stderr)
    image = pipeline.build(args.profile, out=args.out, agent=args.agent, components=args.components,
                           policy=args.agent_policy, line_policy=args.policy, cache=args.cache, mirror=args.mirror,
                           progress=terminal, limit_s=args.wait, brought=options.read_brought(args))
    terminal.close()
    if args.json:
        write_document(sys.stdout, pipeline.describe(image))
    else:
        write_text(sys.stdout, inspect.summarise(read_inventory(image.manifest), width_of(sys.stdout)))
        print(f"{image.profile}: {image.folder} in {time.monotonic() - started:.1f} s")
    return 0


def lock_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", help="images or roots (default: all)")
    options.source_arguments(parser)


def run_lock(args: argparse.Namespace) -> int:
    terminal = Terminal(sys.stderr)
    changes = relock.relock(args.names, cache=args.cache or args.out / "cache", mirror=args.mirror,
                            checkout=pipeline.CHECKOUT, progress=terminal, brought=options.read_brought(args))
    terminal.close()
    if args.json:
        write_document(sys.stdout, {"locks": {name: list(lines) for name, lines in changes.items()}})
        return 0
    for name, lines in changes.items():
        print(f"{name}: {len(lines)} changes")
        print("".join(f"  {line}\n" for line in lines), end="")
    return 0


def run_check(args: argparse.Namespace) -> int:
    declared = _load(args)
    rows = {image.name: [row.name for row in declared.slices_of(image)] for image in declared.images}
    if args.json:
        write_document(sys.stdout, {"images": rows})
    else:
        for name, slices in rows.items():
            write_text(sys.stdout, f"{name}: {declared.image(name).summary}\n  {', '.join(slices)}\n")
    return 0


def _load(args: argparse.Namespace) -> Declarations:
    """Without declarations of one's own nothing is written, not even a cache."""
    if args.declarations is None:
        return manifest.load(find_declarations())
    return open_supply(cache=args.cache or args.out / "cache", brought=options.read_brought(args)).declared


def inspect_arguments(parser: argparse.ArgumentParser) -> None:
    _image_name(parser)
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write a treemap of the image")
    parser.add_argument("--table", action="store_true", help="print the weights as a Markdown table")


def run_inspect(args: argparse.Namespace) -> int:
    image = _read(args.image, args)
    if args.svg is not None:
        args.svg.write_text(render_treemap(image), encoding="utf-8")
    if args.json:
        write_document(sys.stdout, {
            "image": image.image, "parts": dict(image.parts), "packages": dict(image.packages),
            "slices": {name: {"files": count, "bytes": size} for name, (count, size) in image.weights().items()}})
    elif args.table:
        print(inspect.tabulate(image), end="")
    else:
        width = width_of(sys.stdout)
        write_text(sys.stdout, inspect.summarise(image, width))
        print(f"\n  heaviest files\n{inspect.list_heaviest(image, width)}", end="")
    return 0


def diff_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("old", help="an image in OUT/images, its folder, or its manifest.json")
    parser.add_argument("new", help="the same")


def run_diff(args: argparse.Namespace) -> int:
    found = diff.compare(_read(args.old, args), _read(args.new, args))
    if args.json:
        write_document(sys.stdout, {
            "parts": list(found.parts), "packages": list(found.packages), "slices": found.by_slice(),
            "files": [{"path": row.path, "what": row.what, "bytes": row.bytes_more} for row in found.changes]})
    else:
        print(diff.render(found, width_of(sys.stdout)), end="")
    return 1 if found else 0


def _read(name: str, args: argparse.Namespace) -> Inventory:
    return read_inventory(find_manifest(name, args.out / "images"))


COMMANDS = (
    Command(name="build", help="build an image", arguments=build_arguments, run=run_build),
    Command(name="check", help="read all declarations and report every mistake",
            arguments=options.source_arguments, run=run_check),
    Command(name="inspect", help="what an image is made of and weighs", arguments=inspect_arguments, run=run_inspect),
    Command(name="diff", help="what changed between two images (exit 1 if anything did)", arguments=diff_arguments,
            run=run_diff),
    Command(name="measure", help="the expected measurements of SEV-SNP or TDX, and how to register them with Trustee",
            arguments=trust.measure_arguments, run=trust.run_measure, epilog=trust.MEASURE_EPILOG),
    Command(name="sign", help="sign all files of an image, and what it was made of, with a key of OpenSSH",
            arguments=share.sign_arguments, run=share.run_sign, epilog=share.SIGN_EPILOG),
    Command(name="verify", help="is an image what its builder signed, and an attestation report one of it",
            arguments=evidence_command.add_arguments, run=evidence_command.run, epilog=evidence_command.EPILOG),
    Command(name="push", help="an image to an OCI registry; prints the digest to pull it by",
            arguments=share.push_arguments, run=share.run_push, epilog=share.PUSH_EPILOG),
    Command(name="pull", help="an image from an OCI registry, by digest", arguments=share.pull_arguments,
            run=share.run_pull, epilog=share.PULL_EPILOG),
    Command(name="overlay", help="add or replace files in a verity image, as an image of its own",
            arguments=trust.overlay_arguments, run=trust.run_overlay),
    Command(name="check-extension", help="does an extension fit a base: libraries, symbol versions, modules, paths",
            arguments=extension_command.add_arguments, run=extension_command.run),
    Command(name="enrol", help="put the key of an image's modules into db of an OVMF variable store",
            arguments=trust.enrol_arguments, run=trust.run_enrol),
    Command(name="kata-config", help="what a cluster needs to boot an image: drop-in, Helm values, RuntimeClass, Pod",
            arguments=kata_command.add_arguments, run=kata_command.run,
            epilog=kata_command.EPILOG),
    Command(name="lock", help="take today's package versions into the locks", arguments=lock_arguments, run=run_lock),
)


def make_parser(asked: str | None = None) -> argparse.ArgumentParser:
    """Of all commands; of one alone where that is the one that was asked for, since each takes a millisecond."""
    parser = Parser(
        prog="nvrc-image", description="Build, check, explain and compare guest images.", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"nvrc-image {__version__}")
    choices = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in [command for command in COMMANDS if command.name == asked] or COMMANDS:
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
    return serve("nvrc-image", lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> int:
    words = sys.argv[1:] if argv is None else argv
    parser, is_json = make_parser(words[0] if words else None), wants_json(argv)
    if is_json:
        speak_json(parser)
    args = parser.parse_args(argv)
    os.umask(0o022)  # what is made here is nobody else's to change while it is made
    try:
        return int(args.run(args))
    except BuildError as failed:
        complain("nvrc-image", failed.what, failed.hint, findings=failed.findings, is_json=is_json, text=str(failed))
        is_wrong = isinstance(failed, WrongCallError) or args.command in ANSWERS_BY_STATUS
        return USAGE if is_wrong else 1
    except ModuleNotFoundError as missing:
        complain("nvrc-image", f"the Python package {missing.name} is not installed",
                 "run: pip install 'nvrc[build]'", is_json=is_json)
        return USAGE
    except BrokenPipeError:
        raise  # most likely the reader of our output went away
    except OSError as failed:
        complain("nvrc-image", str(failed), "free space or correct the path, then run it again", is_json=is_json)
        return USAGE if args.command in ANSWERS_BY_STATUS else 1
    except KeyboardInterrupt:
        print("nvrc-image: interrupted; finished stages stay in the cache", file=sys.stderr)
        return 130
