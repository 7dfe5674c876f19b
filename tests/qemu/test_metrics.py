# SPDX-License-Identifier: Apache-2.0
"""A GPU pod that serves metrics and its status, read from outside the machine while one of its GPUs gets worse and falls
off the bus, and while the process that serves them is frozen and killed (fakes/metrics_pod.py).

Its vsock is the lab's own device, behind a socket as Kata's hybrid vsock has it.
"""

from __future__ import annotations

import io
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fakes import metrics_pod
from fakes.metrics import Series, parse
from fakes.metrics_pod import HELD, LOST, TOLD, WORSE
from nvrc.cli import main
from nvrc.report.status import Status, from_json
from nvrc.vocabulary.verdict import Verdict
from nvrc_lab.agent import hybrid_vsock
from nvrc_lab.devices.vsock_device import VsockDevice
from nvrc_lab.watch.census import read_censuses

pytestmark = pytest.mark.qemu

MOST_BYTES = 25e6


@dataclass
class Seen:
    """`pages` and `states` in the order in which they came."""

    pages: list[Series] = field(default_factory=list)
    states: list[Status] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def last(self, name: str, **labels: str) -> float | None:
        return get(self.pages[-1], name, **labels)


def get(page: Series, name: str, **labels: str) -> float | None:
    return page.get((name, tuple(sorted(labels.items()))))


def scrape(port: int, seen: Seen) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        seen.pages.append(parse(answer.read()))


def ask(vsock: Path, seen: Seen) -> None:
    """As an operator does it on the host."""
    out = io.StringIO()
    if main(["status", "--vm", str(vsock), "--json"], out, io.StringIO()) in (0, 1):
        seen.states.append(from_json(out.getvalue().encode()))


@contextmanager
def again(act: Callable[[], None], every_s: float) -> Iterator[None]:
    over = threading.Event()

    def run() -> None:
        while not over.wait(every_s):
            try:
                act()
            except (OSError, urllib.error.URLError, ValueError):
                pass  # it does not serve yet, or no longer

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def numbers_of(page: Series, place: Mapping[str, str]) -> tuple[object, ...]:
    """In the units of the library, so that nothing is compared after a division."""
    def told(name: str, **labels: str) -> float:
        found = get(page, name, **place, **labels)
        return -1 if found is None else found

    return (round(told("nvrc_gpu_power_watts") * 1000), told("nvrc_gpu_temperature_celsius"),
            round(told("nvrc_gpu_utilisation_ratio") * 100),
            tuple(told("nvrc_gpu_ecc_errors_total", kind=kind) for kind in ("corrected", "uncorrected")),
            told("nvrc_gpu_memory_bytes", kind="used"), told("nvrc_gpu_nvlinks_down"))


def series_of(seen: Seen, bdf: str) -> list[tuple[object, ...]]:
    """What was told of a GPU, page for page, each change once."""
    found: list[tuple[object, ...]] = []
    for page in list(seen.pages):
        for name, labels in page:
            place = dict(labels)
            if name == "nvrc_gpu_info" and place["bus_id"] == bdf:
                numbers = numbers_of(page, {key: place[key] for key in ("gpu", "bus_id", "serial")})
                found += [numbers] if not found or found[-1] != numbers else []
    return found


def has_seen(seen: Seen, held: Sequence[object], lost: Sequence[object], verdict: Verdict) -> bool:
    return series_of(seen, HELD) == held and series_of(seen, LOST) == lost and verdict in {state.verdict for state in seen.states}


def has_come_back(seen: Seen) -> bool:
    """On the last page, with the numbers of the GPU that is left; and the host was told as well."""
    told = [dict(labels)["bus_id"] for name, labels in seen.pages[-1] if name == "nvrc_gpu_info"]
    return (told == [HELD] and seen.last("nvrc_service_restarts_total", service="nvrc-metrics") == 1
            and seen.states[-1].verdict is Verdict.DEGRADED)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    folder, found = tmp_path_factory.mktemp("metrics"), Seen()

    @contextmanager
    def around(port: int, device: VsockDevice) -> Iterator[Sequence[Callable[[], bool]]]:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(folder / "kata.hvsock"))
            listener.listen(8)
            threading.Thread(target=hybrid_vsock.serve, args=(device, listener), daemon=True).start()
            with again(lambda: scrape(port, found), 1.0), again(lambda: ask(folder / "kata.hvsock", found), 2.0):
                yield (lambda: has_seen(found, [TOLD[HELD]], [TOLD[LOST]], Verdict.READY),
                       lambda: has_seen(found, [TOLD[HELD]], [TOLD[LOST], WORSE[LOST]], Verdict.READY),
                       lambda: has_come_back(found))

    found.lines += metrics_pod.live(folder, around)
    (folder / "lines").write_text("\n".join(found.lines))
    assert found.pages and found.states, "\n".join(found.lines[-60:])
    return found


def test_numbers_are_those_that_the_library_gave(seen: Seen) -> None:
    assert series_of(seen, HELD) == [TOLD[HELD]]
    assert series_of(seen, LOST) == [TOLD[LOST], WORSE[LOST]]


def test_gpus_are_told_as_the_library_has_them(seen: Seen) -> None:
    told = {dict(found)["bus_id"]: dict(found) for (name, found) in seen.pages[-1] if name == "nvrc_gpu_info"}
    assert list(told) == [HELD]  # the library lists what still answers
    assert told[HELD]["name"] == "NVIDIA H100 80GB HBM3"
    place = {key: told[HELD][key] for key in ("gpu", "bus_id", "serial")}
    assert place["gpu"].startswith("GPU-")
    assert f"{place['bus_id']} ({place['gpu']})" not in "".join(seen.lines)
    assert (seen.last("nvrc_gpu_clock_hertz", **place, clock="graphics") or 0) > 0
    assert (seen.last("nvrc_gpu_power_limit_watts", **place) or 0) > 0
    assert seen.last("nvrc_gpu_memory_bytes", **place, kind="total") == 80 << 30
    assert seen.last("nvrc_gpu_up", **place) == 1


def test_the_gpu_that_falls_off_is_told_with_its_uuid_and_the_other_is_not(seen: Seen) -> None:
    states = {dict(found)["bus_id"]: dict(found)["state"] for (name, found), number in seen.pages[-1].items()
              if name == "nvrc_gpu_state" and number == 1}
    assert states == {HELD: "attached", LOST: "lost"}
    xids = {dict(found)["bus_id"]: (dict(found)["gpu"][:4], dict(found)["xid"]) for (name, found) in seen.pages[-1]
            if name == "nvrc_gpu_xid_total"}
    assert xids == {LOST: ("GPU-", "79")}
    assert seen.last("nvrc_verdict", verdict="degraded") == 1
    line = next(line for line in seen.lines if "E_GPU_LOST" in line)
    assert f"{LOST} (GPU-" in line


def test_it_costs_little_and_services_and_steps_are_there(seen: Seen) -> None:
    page = seen.pages[-1]
    assert seen.last("nvrc_service_up", service="nvidia-persistenced") == 1
    assert (seen.last("nvrc_boot_step_seconds", step="persistenced") or 0) > 0
    assert seen.last("nvrc_link_up", link="eth0") == 1
    assert seen.last("nvrc_default_route") == 1
    assert max(get(page, "nvrc_metrics_resident_bytes") or 0 for page in seen.pages) < MOST_BYTES
    assert not [found for (name, found) in page if name == "nvrc_metrics_source_failures_total"]


def test_both_processes_together_take_little(seen: Seen) -> None:
    """What they add to the machine's memory: a page of several processes counts for each by its part."""
    census, = read_censuses(seen.lines)
    assert 0 < census.beside_pss * 1024 < MOST_BYTES


def test_one_that_is_frozen_and_killed_comes_back(seen: Seen) -> None:
    assert seen.last("nvrc_service_restarts_total", service="nvrc-metrics") == 1
    assert not [line for line in seen.lines if "E_METRICS" in line]
    gpus = {dict(labels)["bus_id"]: dict(labels)["serial"] for name, labels in seen.pages[-1] if name == "nvrc_gpu_state"}
    assert all(gpus[bdf] for bdf in (HELD, LOST)), "which of the lost one the library tells no more"


def test_the_host_reads_the_status_over_a_hybrid_vsock(seen: Seen) -> None:
    verdicts = list(dict.fromkeys(state.verdict for state in seen.states))
    assert verdicts == [Verdict.READY, Verdict.DEGRADED]
    last = seen.states[-1]
    assert {gpu.bdf: gpu.state.value for gpu in last.gpus} == {HELD: "attached", LOST: "lost"}
    assert "nvrc-metrics" in {service.name for service in last.services}
