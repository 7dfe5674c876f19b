# SPDX-License-Identifier: Apache-2.0
"""The agent beside the pod, real and whole, in a network of its own where everything goes wrong at once."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fakes.metrics import parse, value
from fakes.nvml import MockNvml
from nvrc_lab.ground.places import checkout

pytestmark = [
    pytest.mark.namespace,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root"),
    pytest.mark.skipif(shutil.which("ip") is None, reason="iproute2 is not installed"),
]
UUID = "GPU-11111111-2222-3333-4444-555555555555"
PLACE = {"gpu": UUID, "bus_id": "0000:1a:00.0", "serial": "1650123"}


@pytest.fixture(scope="module")
def seen(nvml_standin: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("driver")
    MockNvml(nvml_standin, folder / "usr/lib/x86_64-linux-gnu", f"gpu 0 bus=0000:1a:00.0 serial=1650123 uuid={UUID} draw-mw=412345")
    root = checkout().root
    done = subprocess.run(["unshare", "--net", sys.executable, Path(__file__).with_name("beside_cell.py"), folder],
                          env={**os.environ, "PYTHONPATH": f"{root}:{root}/tests"}, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout))


def test_every_scrape_is_answered_while_the_link_flaps_a_thousand_times(seen: dict[str, Any]) -> None:
    assert (seen["flapped"], seen["scrapes"] > 0) == (0, True)
    assert seen["slowest_s"] < 10
    assert (value(seen["after"].encode(), "nvrc_link_changes_total", link="flap") or 0) > 10  # what came faster than it was read is one
    assert value(seen["after"].encode(), "nvrc_link_addresses", link="flap") == 1
    assert value(seen["after"].encode(), "nvrc_link_up", link="flap") == 0


def test_what_the_library_told_before_it_hung_stays_until_it_answers_again(seen: dict[str, Any]) -> None:
    for when in ("before", "hung", "after"):
        assert value(seen[when].encode(), "nvrc_gpu_power_watts", **PLACE) == 412.345, when
    assert (value(seen["hung"].encode(), "nvrc_nvml_failures_total") or 0) >= 1  # asked again on a machine that is slow
    assert (value(seen["hung"].encode(), "nvrc_nvml_sample_age_seconds") or 0) >= 1


def test_clients_that_never_ask_give_way_to_those_that_do(seen: dict[str, Any]) -> None:
    assert (value(seen["after"].encode(), "nvrc_metrics_refused_total") or 0) >= 4  # of 20 that never ask, where 16 may be open
    assert value(seen["after"].encode(), "nvrc_pid1_up") == 0  # nobody is PID 1 in here
    failed = {dict(labels)["source"] for name, labels in parse(seen["after"].encode()) if name == "nvrc_metrics_source_failures_total"}
    assert failed <= {"boot"}  # there was none


def test_nothing_of_that_is_kept(seen: dict[str, Any]) -> None:
    before, after = seen["held"]
    assert after["descriptors"] <= before["descriptors"]
    assert after["kib"] - before["kib"] < 2048


def test_a_port_that_is_taken_ends_it_with_a_reason(seen: dict[str, Any]) -> None:
    assert seen["taken"] == [errno.EADDRINUSE, "port 9400 cannot be served: Address already in use; choose another with nvrc.metrics\n"]
