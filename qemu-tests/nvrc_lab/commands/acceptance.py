# SPDX-License-Identifier: Apache-2.0
"""`./dev gpu-acceptance`: on a machine with a real NVIDIA GPU and driver, find where the lab's idea of them is wrong.

A machine or a container, as root, no VM. Reads /proc, /sys and /dev, asks NVML through the worker that a boot uses,
writes the CDI document, holds it against nvidia-ctk where that is installed, and lets a container compute where crun or
runc is. Nothing of the machine is changed. tests/gpu has the assumptions, one a test; all facts and every difference
go into one JSON file, which serves as a fixture.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from nvrc_lab.ground.places import checkout


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dev gpu-acceptance", description="Hold a real GPU and its driver against what the lab assumes of them.",
        epilog="Exit status: 0 as assumed, 1 differences, 2 no NVIDIA driver on this machine.")
    parser.add_argument("--output", metavar="FILE", type=Path, help="the facts (default: out/gpu-acceptance.json)")
    parser.add_argument("--root", metavar="DIR", default="/", help="a described machine instead of this one")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    places = checkout()
    output = (args.output or places.out / "gpu-acceptance.json").absolute()
    if not Path(args.root, "proc/driver/nvidia/version").exists():
        print("dev gpu-acceptance: no NVIDIA driver on this machine (/proc/driver/nvidia/version is missing); "
              "load it, or run this where a GPU is", file=sys.stderr)
        return 2
    output.parent.mkdir(parents=True, exist_ok=True)
    output.unlink(missing_ok=True)
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", "--no-header", "--tb=no",
             str(places.root / "tests" / "gpu")]
    env = {**os.environ, "NVRC_GPU_ROOT": args.root, "NVRC_GPU_FACTS": str(output)}
    done = subprocess.run(words, cwd=places.root, env=env, stdin=subprocess.DEVNULL, check=False)
    if not output.exists():
        print("dev gpu-acceptance: the facts could not be gathered; see the failure above", file=sys.stderr)
        return 1
    for name, difference in json.loads(output.read_text(encoding="utf-8"))["differences"].items():
        print(f"DIFFERS {name}: {difference}")
    print(f"facts: {output}")
    return min(done.returncode, 1)


if __name__ == "__main__":
    sys.exit(main())
