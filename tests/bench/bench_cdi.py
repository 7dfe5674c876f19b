# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E402, T201  (a script: it sets its own import path and prints)
"""How long one document takes, in process, with NVML open: python tests/bench/bench_cdi.py [--runs N] [--json].

Each run starts with a fresh view of the machine, so nothing is remembered from the run before. To reach is 6 ms with
8 GPUs, where the reference takes 9 to 10 ms as a process of its own and 204 ms in the packed form that guests ship.
With --json: {"runs", "reads_yaml", "rows": [{"name", "gpus", "median_ms", "best_ms", "render_ms", "bytes", "scans",
"budget_ms", "reference_ms", "reference_packed_ms"}]}, null where there is no figure; "scans" counts directory reads.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

from fakes.machine import DescribedHost, Machine, Node, load
from guest_cdi.generate import generate
from guest_cdi.gpu import Gpu
from guest_cdi.host import LinuxHost
from guest_cdi.render import render

COUNTS = (1, 2, 4, 8, 16)
# With eight GPUs: the figure to reach, and what the reference was measured to take, start included.
BUDGET_MS, REFERENCE_MS, REFERENCE_PACKED_MS = {8: 6.0}, {8: 9.5}, {8: 204.0}


class Row(NamedTuple):
    name: str
    gpus: int
    median_ms: float
    best_ms: float
    render_ms: float
    bytes: int
    scans: int
    budget_ms: float | None
    reference_ms: float | None
    reference_packed_ms: float | None


def add_gpus(machine: Machine, count: int) -> None:
    machine.gpus[:] = [Gpu(index=index, minor=index, uuid=f"GPU-00000000-0000-4000-8000-{index:012d}",
                           bus_id=f"00000000:{index + 1:02X}:00.0", name="NVIDIA H100") for index in range(count)]
    machine.nodes.update({f"/dev/nvidia{index}": Node(major=195, minor=index) for index in range(count)})


def measure(count: int, runs: int) -> Row:
    machine = load("host-graphics")
    add_gpus(machine, count)
    whole, rendering = [], []
    with tempfile.TemporaryDirectory() as folder:
        machine.build(Path(folder))
        for _ in range(runs):
            start = time.perf_counter()
            host = DescribedHost(LinuxHost(folder), machine.nodes)
            spec = generate(host, machine.nvml()).spec
            described = time.perf_counter()
            size = len(render(spec, "yaml"))
            end = time.perf_counter()
            whole.append(end - start)
            rendering.append(end - described)
    return Row(f"document for {count} GPUs", count, median(whole) * 1e3, min(whole) * 1e3, median(rendering) * 1e3, size,
               len(set(host.scanned)), BUDGET_MS.get(count), REFERENCE_MS.get(count), REFERENCE_PACKED_MS.get(count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = [measure(count, arguments.runs) for count in COUNTS]

    if arguments.json:
        print(json.dumps({"runs": arguments.runs, "reads_yaml": "yaml" in sys.modules,
                          "rows": [row._asdict() for row in rows]}))
        return
    print(f"{'GPUs':>5} {'median':>8} {'best':>8} {'render':>8} {'at most':>8} {'reference':>10} {'packed':>7} {'scans':>6}"
          "   (ms; the reference as a process)")
    for row in rows:
        limits = (f"{value:.1f}" if value else "-" for value in row[7:])
        print(f"{row.gpus:>5} {row.median_ms:>8.2f} {row.best_ms:>8.2f} {row.render_ms:>8.2f} "
              "{:>8} {:>10} {:>7}".format(*limits) + f" {row.scans:>6}")


if __name__ == "__main__":
    main()
