# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E402, T201  (a script: it sets its own import path and prints)
"""How long a boot waits for the worker with NVIDIA's library: python tests/bench/bench_worker.py [--runs N] [--json].

A real fork per run, the stand-in library, confidential GPUs, 40 driver libraries. `warm` is what the worker does while
the driver attaches GPUs, from the fork on; the critical path is `gpus` to `ready`. The figure to reach is a growth of
5 ms per GPU at most; it is taken from the best runs, because a busy machine spoils medians more than it grows them.
The stand-in's own time is in it, a real driver's is not.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

from fakes import nvml
from fakes.elf import shared_object
from fakes.gpu_guest import CONFIDENTIAL, LIBRARIES, VERSION, GpuGuest, bus_id
from nvrc.nvml.worker import Worker
from nvrc.vocabulary.errors import NvrcError

COUNTS = (1, 2, 4, 8, 16)
REQUESTS = ("gpus", "settings", "cc", "cdi", "ready")
COLUMNS = ("warm", *REQUESTS, "critical")


def describe(guest: GpuGuest) -> None:
    """The machine without a call log, whose writing would be measured too."""
    lines = [f"driver {VERSION}", CONFIDENTIAL,
             *(f"gpu {i} bus={bus_id(i)} minor={guest.gpus - 1 - i} cc=on" for i in range(guest.gpus))]
    (guest.mock.folder / "nvml-mock.conf").write_text("\n".join(lines) + "\n")
    for number in range(40):
        name = f"libnvidia-part{number}.so.{VERSION}"
        (guest.root / LIBRARIES.lstrip("/") / name).write_bytes(shared_object(name))


def given(name: str, gpus: int) -> dict[str, object]:
    everything = list(range(gpus))
    details: dict[str, dict[str, object]] = {
        "settings": {"gpus": everything, "power_limit_w": 500}, "cc": {"gpus": everything},
        "cdi": {"keep_going": False}, "ready": {"ready": True},
    }
    return details.get(name, {})


def warm_up(worker: Worker) -> None:
    try:
        worker.ask("nothing", 60)
    except NvrcError:
        return  # there is no such request; its refusal comes after the warming up


def run(guest: GpuGuest) -> dict[str, float]:
    times = {}
    start = time.perf_counter()
    worker = guest.start()
    warm_up(worker)
    times["warm"] = time.perf_counter() - start
    begun = time.perf_counter()
    for name in REQUESTS:
        start = time.perf_counter()
        worker.ask(name, 60, **given(name, guest.gpus))
        times[name] = time.perf_counter() - start
    times["critical"] = time.perf_counter() - begun
    guest.end()
    return times


def measure(built: Path, count: int, runs: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        guest = GpuGuest(built, Path(folder), gpus=count)
        describe(guest)
        rows = [run(guest) for _ in range(runs)]
    found = {"count": count} | {name: median(row[name] for row in rows) * 1e3 for name in COLUMNS}
    return found | {"best": min(row["critical"] for row in rows) * 1e3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # of a fork beside threads
    with tempfile.TemporaryDirectory() as folder:
        built = nvml.build(Path(folder))
        rows = [measure(built, count, arguments.runs) for count in COUNTS]
    growth_ms = (rows[-1]["best"] - rows[0]["best"]) / (COUNTS[-1] - COUNTS[0])
    if arguments.json:
        print(json.dumps({"runs": arguments.runs, "growth_ms_per_gpu": growth_ms, "rows_ms": rows}))
        return
    print(" ".join(f"{name:>9}" for name in ("GPUs", *COLUMNS)) + "      best   (median ms; best of critical)")
    for row in rows:
        print(f"{row['count']:>9.0f} " + " ".join(f"{row[name]:>9.2f}" for name in (*COLUMNS, "best")))
    print(f"growth per GPU, by the best runs: {growth_ms:.2f} ms")


if __name__ == "__main__":
    main()
