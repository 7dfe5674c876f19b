# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E402, T201  (a script: it sets its own import path and prints)
"""How long one document takes, in process, with NVML open: python tests/bench/bench_cdi.py [--runs N] [--json].

Each run starts with a fresh view of the machine, so nothing is remembered from the run before. The figure to reach is
6 ms with 8 GPUs; the reference takes 9 to 10 ms as a process of its own.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

from fakes.machine import DescribedHost, Machine, Node, load
from guest_cdi.generate import generate
from guest_cdi.gpu import Gpu
from guest_cdi.host import LinuxHost
from guest_cdi.render import render

COUNTS = (1, 2, 4, 8, 16)


def add_gpus(machine: Machine, count: int) -> None:
    machine.gpus[:] = [Gpu(index=index, minor=index, uuid=f"GPU-00000000-0000-4000-8000-{index:012d}",
                           bus_id=f"00000000:{index + 1:02X}:00.0", name="NVIDIA H100") for index in range(count)]
    machine.nodes.update({f"/dev/nvidia{index}": Node(major=195, minor=index) for index in range(count)})


def measure(count: int, runs: int) -> dict[str, float]:
    machine = load("host-graphics")
    add_gpus(machine, count)
    with tempfile.TemporaryDirectory() as folder:
        machine.build(Path(folder))
        whole, rendering = [], []
        for _ in range(runs):
            start = time.perf_counter()
            spec = generate(DescribedHost(LinuxHost(folder), machine.nodes), machine.nvml()).spec
            described = time.perf_counter()
            size = len(render(spec, "yaml"))
            end = time.perf_counter()
            whole.append(end - start)
            rendering.append(end - described)
    return {"gpus": count, "median_ms": median(whole) * 1e3, "best_ms": min(whole) * 1e3,
            "render_ms": median(rendering) * 1e3, "bytes": size}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = [measure(count, arguments.runs) for count in COUNTS]

    if arguments.json:
        print(json.dumps({"runs": arguments.runs, "rows": rows}))
        return
    print(f"{'GPUs':>5} {'median ms':>10} {'best ms':>8} {'render ms':>10} {'bytes':>7}")
    for row in rows:
        print(f"{row['gpus']:>5} {row['median_ms']:>10.2f} {row['best_ms']:>8.2f} {row['render_ms']:>10.2f} "
              f"{row['bytes']:>7}")


if __name__ == "__main__":
    main()
