# SPDX-License-Identifier: Apache-2.0
"""nvrc-image: build, lock, inspect and compare guest images. Exit 0 done, 1 a finding or failure, 2 wrong usage."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from nvrc_build import pipeline, relock
from nvrc_build.errors import BuildError
from nvrc_build.progress import Terminal, silent

EXAMPLES = """examples:
  nvrc-image build                       the lab image into out/images/lab
  nvrc-image build lab --agent ./kata-agent --json
  nvrc-image lock                        take today's package versions into rootfs/locks
"""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="nvrc-image", description=__doc__, epilog=EXAMPLES,
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    one = commands.add_parser("build", help="build an image")
    one.add_argument("profile", nargs="?", default="lab", help="image in rootfs/images (default: lab)")
    one.add_argument("--agent", type=Path, help="kata-agent binary; default: the lab's stand-in")
    _common(one)
    lock = commands.add_parser("lock", help="take today's package versions into the lock files")
    lock.add_argument("names", nargs="*", help="images or roots (default: all)")
    _common(lock)
    return top


def _common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--out", type=Path, default=pipeline.CHECKOUT / "out", help="output folder (default: out)")
    command.add_argument("--cache", type=Path, help="cache folder (default: OUT/cache)")
    command.add_argument("--mirror", help="archive URI (default: the one this machine's apt uses)")
    command.add_argument("--json", action="store_true", help="print the result as JSON")


def run_build(args: argparse.Namespace) -> int:
    started = time.monotonic()
    terminal = Terminal(sys.stderr)
    image = pipeline.build(args.profile, out=args.out, agent=args.agent, cache=args.cache, mirror=args.mirror,
                           progress=terminal)
    terminal.close()
    if args.json:
        print(json.dumps({"profile": image.profile, "kernel": str(image.kernel), "initrd": str(image.initrd),
                          "manifest": str(image.manifest)}))
    else:
        size = image.initrd.stat().st_size / 1e6
        print(f"{image.profile}: {image.initrd} ({size:.1f} MB) in {time.monotonic() - started:.1f} s")
    return 0


def run_lock(args: argparse.Namespace) -> int:
    changes = relock.relock(args.names, cache=args.cache or args.out / "cache", mirror=args.mirror,
                            checkout=pipeline.CHECKOUT, progress=silent if args.json else Terminal(sys.stderr))
    if args.json:
        print(json.dumps({name: list(lines) for name, lines in changes.items()}))
    else:
        for name, lines in changes.items():
            print(f"{name}: {len(lines)} changes")
            print("".join(f"  {line}\n" for line in lines), end="")
    return 0


COMMANDS = {"build": run_build, "lock": run_lock}


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        return COMMANDS[args.command](args)
    except BuildError as failed:
        print(f"nvrc-image: {failed}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("nvrc-image: interrupted; finished stages stay in the cache", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
