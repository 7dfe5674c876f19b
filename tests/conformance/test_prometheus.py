# SPDX-License-Identifier: Apache-2.0
"""Prometheus itself (NVRC_PROMETHEUS) scrapes a GPU pod of the lab while one of its GPUs gets worse and falls off the bus:
its samples are those numbers that NVIDIA's library gave, its alerts tell of the GPU, and every panel of the dashboard
has something to show. It listens on loopback alone and ends with the test.
"""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from fakes import metrics_pod
from fakes.kata_host import make_host
from fakes.metrics_pod import HELD, LOST, TOLD, WORSE, free_port
from nvrc.preflight import export
from nvrc.preflight.host import Host
from nvrc.preflight.preflight import judge
from nvrc_lab.devices.vsock_device import VsockDevice

PROMETHEUS = os.environ.get("NVRC_PROMETHEUS", "")
FLEET = Path(__file__).resolve().parents[2] / "docs/fleet"
DASHBOARD = json.loads((FLEET / "dashboard.json").read_text())
PANELS = {f"{panel['title']} {target['refId']}": target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]}
VARIABLES = {"$instance": ".*"}  # "All", as the dashboard has it
PATIENCE_S = 60.0

pytestmark = [pytest.mark.qemu, pytest.mark.skipif(not PROMETHEUS, reason="NVRC_PROMETHEUS names no prometheus")]

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Data:
    """What a Prometheus has recorded, by its own HTTP API, from its start to `until_s`."""

    address: str
    since_s: float
    until_s: float

    def ask(self, path: str, **words: str) -> object:
        with urllib.request.urlopen(f"{self.address}/api/v1/{path}?{urllib.parse.urlencode(words)}", timeout=30) as answer:
            document = json.loads(answer.read())
        assert document["status"] == "success", document
        return document["data"]

    def samples(self, selector: str) -> list[tuple[Labels, list[tuple[float, float]]]]:
        """Every sample of each series as it was scraped, without what a query fills in."""
        seconds = round(self.until_s - self.since_s) + 1
        data = self.ask("query", query=f"{selector}[{seconds}s]", time=f"{self.until_s:.3f}")
        assert isinstance(data, dict)
        return [(one["metric"], [(float(at), float(value)) for at, value in one["values"]]) for one in data["result"]]

    def values(self, selector: str) -> list[float]:
        """Of the one series, each change once."""
        (_labels, samples), = self.samples(selector)
        return changes([value for _at, value in samples])

    def heats(self, bdf: str) -> list[float]:
        """Of a GPU, each change once; none before its first sample."""
        found = self.samples(f'nvrc_gpu_temperature_celsius{{bus_id="{bdf}"}}')
        return changes([value for _labels, samples in found for _at, value in samples])

    def series(self, query: str) -> int:
        """How many a panel of that query shows over the whole time."""
        data = self.ask("query_range", query=query, start=f"{self.since_s:.3f}", end=f"{self.until_s:.3f}", step="1")
        assert isinstance(data, dict)
        return len(data["result"])


def configure(folder: Path, targets: Mapping[str, int]) -> Path:
    """A scrape a second, as the lab's pod lives for a minute; the rules as they are."""
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump({
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(FLEET / "rules.yaml")],
        "scrape_configs": [{"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]} for name, port in targets.items()],
    }))
    return file


@contextmanager
def prometheus(folder: Path, targets: Mapping[str, int]) -> Iterator[str]:
    address = f"127.0.0.1:{free_port()}"
    with (folder / "log").open("wb") as log, subprocess.Popen(
            [PROMETHEUS, f"--config.file={configure(folder, targets)}", f"--storage.tsdb.path={folder / 'data'}",
             f"--web.listen-address={address}"], stdin=subprocess.DEVNULL, stdout=log, stderr=log) as process:
        try:
            wait_until_ready(address, process, folder / "log")
            yield f"http://{address}"
        finally:
            process.terminate()


def wait_until_ready(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    over = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < over:
        try:
            with urllib.request.urlopen(f"http://{address}/-/ready", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(log.read_text())


@contextmanager
def textfile(folder: Path) -> Iterator[int]:
    """A host with one thing missing, as node_exporter serves what its preflight has exported."""
    host = make_host(folder / "host")
    host.remove("/dev/vhost-vsock")
    page = export.metrics(judge(Host(str(host.root))), round(time.time())).encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_args: object) -> None:
            """Nothing: the test's output is for the test."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Data]:
    folder = tmp_path_factory.mktemp("prometheus")
    port = free_port()
    with textfile(folder) as host, prometheus(folder, {"pod": port, "node": host}) as address:
        since_s = time.time()

        @contextmanager
        def around(_port: int, _device: VsockDevice) -> Iterator[Sequence[Callable[[], bool]]]:
            def seen() -> Data:
                return Data(address, since_s, time.time())

            first, worse = TOLD[LOST][1], WORSE[LOST][1]
            yield (lambda: seen().heats(LOST) == [first], lambda: seen().heats(LOST) == [first, worse], lambda: has_come_back(seen()))

        lines = metrics_pod.live(folder, around, port)
        (folder / "lines").write_text("\n".join(lines))
        yield Data(address, since_s, time.time())


def changes(values: Sequence[float]) -> list[float]:
    return [value for number, value in enumerate(values) if not number or values[number - 1] != value]


def has_come_back(data: Data) -> bool:
    """The process that was killed serves again, and tells the numbers of the GPU that is left; the lost one has its alert."""
    back = [at for _labels, samples in data.samples('nvrc_service_restarts_total{service="nvrc-metrics"}') for at, value in samples
            if value == 1]
    told = [at for _labels, samples in data.samples(f'nvrc_gpu_temperature_celsius{{bus_id="{HELD}"}}') for at, _value in samples]
    return bool(back) and told[-1] > back[0] and ("NvrcGpuLost", LOST) in alerts(data)


def alerts(data: Data) -> set[tuple[str, str]]:
    return {(labels["alertname"], labels.get("bus_id", "")) for labels, _samples in data.samples('ALERTS{alertstate="firing"}')}


def place(data: Data, bdf: str) -> str:
    """A GPU's labels, as a selector."""
    labels = next(labels for labels, _samples in data.samples("nvrc_gpu_info") if labels["bus_id"] == bdf)
    return ",".join(f'{name}="{labels[name]}"' for name in ("gpu", "bus_id", "serial"))


@pytest.mark.parametrize("bdf", [HELD, LOST])
def test_samples_are_the_numbers_that_the_library_gave(data: Data, bdf: str) -> None:
    steps = [TOLD[bdf], *([WORSE[bdf]] if bdf in WORSE else [])]
    gpu = place(data, bdf)
    told: Mapping[str, Sequence[float]] = {
        f"nvrc_gpu_power_watts{{{gpu}}}": [draw / 1000 for draw, *_rest in steps],
        f"nvrc_gpu_temperature_celsius{{{gpu}}}": [step[1] for step in steps],
        f"nvrc_gpu_utilisation_ratio{{{gpu}}}": [step[2] / 100 for step in steps],
        f'nvrc_gpu_ecc_errors_total{{{gpu},kind="corrected"}}': [step[3][0] for step in steps],
        f'nvrc_gpu_ecc_errors_total{{{gpu},kind="uncorrected"}}': [step[3][1] for step in steps],
        f'nvrc_gpu_memory_bytes{{{gpu},kind="used"}}': [step[4] for step in steps],
        f"nvrc_gpu_nvlinks_down{{{gpu}}}": [step[5] for step in steps],
    }
    for name, wanted in told.items():
        assert data.values(name) == pytest.approx(changes(wanted), rel=1e-9), name


def test_the_gpu_that_falls_off_is_lost_and_its_numbers_end(data: Data) -> None:
    gone, kept = place(data, LOST), place(data, HELD)  # with serial numbers, by which the host knows the boards
    assert data.values(f'nvrc_gpu_state{{{gone},state="lost"}}') == [0, 1]
    assert data.values(f'nvrc_gpu_state{{{kept},state="attached"}}') == [1]
    assert data.values(f'nvrc_gpu_xid_total{{{gone},xid="79"}}')[-1] == 2  # the driver's own line, and the lab's
    (_labels, lost), = data.samples(f"nvrc_gpu_power_watts{{{gone}}}")
    (_labels, held), = data.samples(f"nvrc_gpu_power_watts{{{kept}}}")
    assert lost[-1][0] < held[-1][0]


def test_its_alert_fires_for_the_gpu_alone(data: Data) -> None:
    assert ("NvrcGpuLost", LOST) in alerts(data)
    assert not [one for one in alerts(data) if one[1] == HELD]


def test_types_and_help_are_taken_from_the_page(data: Data) -> None:
    labels = data.ask("metadata", metric="nvrc_gpu_power_watts")
    assert labels == {"nvrc_gpu_power_watts": [{"type": "gauge", "help": "Power that a GPU draws.", "unit": ""}]}


@pytest.mark.parametrize("panel", PANELS)
def test_every_panel_of_the_dashboard_has_something_to_show(data: Data, panel: str) -> None:
    query = PANELS[panel]
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    assert "$" not in query
    assert data.series(query) > 0, query


def test_the_dashboards_variable_finds_the_pod(data: Data) -> None:
    assert [labels["job"] for labels, _samples in data.samples("nvrc_build_info")] == ["pod"]
