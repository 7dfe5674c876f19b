# SPDX-License-Identifier: Apache-2.0
"""`./dev conformance`: the tests against programs of others, as far as these are given by NVRC_...=PATH.

One table says of each part whether it was given, in which version, and what its tests found. docs/conformance.md says
where each comes from. What is named and is not there is a mistake, never "not given".
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nvrc_lab.commands.counts import Count, read_report
from nvrc_lab.commands.tiers import PYTHON
from nvrc_lab.ground.errors import LabError
from nvrc_lab.ground.places import Places, checkout

PAGE = "docs/conformance.md"
VERSION_S = 20.0
_EVERY_TEST = ("-m", "qemu or not qemu")  # whatever tier a test belongs to


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """`needs`: the variables without which its tests are skipped. `asks`: which program tells its version, by variable
    and the name below it if that is a folder."""

    name: str
    needs: tuple[str, ...]
    tests: tuple[str, ...]
    asks: tuple[tuple[str, str], ...] = ()
    may: tuple[str, ...] = ()


RUNTIME = Part(
    name="kata-runtime", needs=("NVRC_KATA_SHIM", "NVRC_CONTAINERD", "NVRC_KATA_AGENT", "NVRC_KATA_CONFIG"),
    tests=("tests/conformance/test_kata_runtime.py", "tests/conformance/test_kata_pods.py",
           "tests/conformance/test_kata_early.py", "tests/conformance/test_kata_tenant.py"), may=("NVRC_OTHER_INIT",),
    asks=(("NVRC_KATA_SHIM", ""), ("NVRC_CONTAINERD", "containerd")))
CONFIDENTIAL = Part(name="confidential", needs=("NVRC_COCO",), tests=("tests/conformance/test_confidential.py",),
                    asks=(("NVRC_COCO", "kata-agent"), ("NVRC_COCO", "kbs-client")))
PARTS = (
    Part(name="kata-agent", needs=("NVRC_KATA_AGENT",), tests=("tests/conformance/test_kata_agent.py",),
         asks=(("NVRC_KATA_AGENT", ""),)),
    RUNTIME,
    CONFIDENTIAL,
    Part(name="nvidia-ctk", needs=("NVRC_NVIDIA_CTK",), tests=("tests/guest_cdi/test_generate_reference.py",),
         asks=(("NVRC_NVIDIA_CTK", ""),), may=("NVRC_NVIDIA_CTK_1_19",)),
    Part(name="nccl", needs=("NVRC_NCCL",), tests=("tests/conformance/test_nccl.py",), asks=(("NVRC_NCCL", ""),)),
    Part(name="prometheus", needs=("NVRC_PROMETHEUS",), may=("NVRC_PROMTOOL",), asks=(("NVRC_PROMETHEUS", ""),),
         tests=("tests/conformance/test_prometheus.py", "tests/docs/test_fleet.py")),
    Part(name="nvml", needs=("NVRC_NVML_LIBRARY",), tests=("tests/nvrc/beside/test_zeros.py",)),
    Part(name="cdi-oracles", needs=("NVRC_CDI_ORACLES",), tests=("tests/guest_cdi/test_oracles.py",)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`count` is None where the part was not given."""

    part: Part
    versions: tuple[str, ...] = ()
    count: Count | None = None


def missing(part: Part, given: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(name for name in part.needs if not given.get(name))


def check_paths(given: Mapping[str, str]) -> None:
    """Every mistake at once."""
    names = dict.fromkeys(name for part in PARTS for name in (*part.needs, *part.may))
    wrong = [f"{name}={given[name]}" for name in names if given.get(name) and not Path(given[name]).exists()]
    if wrong:
        raise LabError(f"{', '.join(wrong)}: no such file or folder",
                       f"correct the path; {PAGE} says what belongs there")


def read_version(program: Path) -> str:
    """The line of `--version` that has a number, or why there is none."""
    try:
        done = subprocess.run([str(program), "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              errors="replace", timeout=VERSION_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as err:
        return f"{program.name}: no version ({type(err).__name__})"
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
    return next((line for line in lines if any(sign.isdigit() for sign in line)), f"{program.name}: no version")


def run_part(part: Part, given: Mapping[str, str], run: Callable[[Part], Count],
             version: Callable[[Path], str] = read_version) -> Row:
    if missing(part, given):
        return Row(part=part)
    versions = tuple(version(Path(given[name]) / below if below else Path(given[name])) for name, below in part.asks)
    return Row(part=part, versions=versions, count=run(part))


def tell(rows: Sequence[Row], given: Mapping[str, str]) -> str:
    lines = [f"{'part':<14} {'given':<6} {'result':<34} version"]
    for row in rows:
        if row.count is None:
            lines.append(f"{row.part.name:<14} {'no':<6} {'-':<34} needs {', '.join(missing(row.part, given))}")
        else:
            note = f" ({row.count.note})" if row.count.note else ""
            lines.append(f"{row.part.name:<14} {'yes':<6} {f'{row.count}{note}':<34} {'; '.join(row.versions) or '-'}")
    return "\n".join(lines)


def judge(rows: Sequence[Row]) -> int:
    """2 when nothing was given, as nothing was shown then."""
    counts = [row.count for row in rows if row.count is not None]
    return 2 if not counts else int(any(count.failed or not count.passed for count in counts))


def _pytest(part: Part, places: Places) -> Count:
    places.reports.mkdir(parents=True, exist_ok=True)
    report = places.reports / f"conformance-{part.name}.xml"
    report.unlink(missing_ok=True)
    argv = [PYTHON, "-m", "pytest", "-q", *_EVERY_TEST, f"--junitxml={report}", *part.tests]
    print(f"\n== {part.name}: {' '.join(part.tests)}", flush=True)
    good = subprocess.run(argv, cwd=places.root, stdin=subprocess.DEVNULL, check=False).returncode == 0
    return read_report(report, is_good=good)


def main(argv: Sequence[str] | None = None) -> int:
    variables = dict.fromkeys(name for part in PARTS for name in (*part.needs, *part.may))
    parser = argparse.ArgumentParser(prog="dev conformance", description="Run the tests against programs of others.",
                                     epilog=f"variables: {', '.join(variables)}; {PAGE} says what belongs there. "
                                     "Example: NVRC_KATA_AGENT=/opt/kata-agent ./dev conformance")
    parser.add_argument("--part", action="append", choices=[part.name for part in PARTS],
                        help="only this one; may be given several times")
    chosen: list[str] | None = parser.parse_args(argv).part
    places, given = checkout(), os.environ
    try:
        check_paths(given)
    except LabError as err:
        print(f"dev conformance: {err}", file=sys.stderr)
        return 2
    rows = [run_part(part, given, lambda one: _pytest(one, places)) for part in PARTS
            if chosen is None or part.name in chosen]
    print(f"\n{tell(rows, given)}", flush=True)
    counts = [row.count for row in rows if row.count is not None]
    print(Count(passed=sum(count.passed for count in counts), failed=sum(count.failed for count in counts),
                skipped=sum(count.skipped for count in counts)), flush=True)
    if not counts:
        print(f"dev conformance: nothing was given; {PAGE} says what can be", file=sys.stderr)
    return judge(rows)


if __name__ == "__main__":
    sys.exit(main())
