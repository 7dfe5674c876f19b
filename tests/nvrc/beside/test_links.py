# SPDX-License-Identifier: Apache-2.0
"""Links, addresses and routes from the kernel itself, against what iproute's neighbour /proc and /sys say of them."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.metrics import parse, value
from nvrc.beside.families import render
from nvrc.beside.links import Links, split


@pytest.mark.long
def test_this_machine_is_told_as_sys_tells_it() -> None:
    links = Links()
    try:
        text = render(links.samples())
    finally:
        links.close()
    names = {dict(labels)["link"] for name, labels in parse(text) if name == "nvrc_link_up"}
    assert names == set(os.listdir("/sys/class/net"))
    assert value(text, "nvrc_link_changes_total", link="lo") == 0
    assert value(text, "nvrc_routes", family="ipv4") is not None


@pytest.mark.parametrize(("data", "kinds"), [
    (struct.pack("=IHHII", 16, 3, 0, 0, 0), [3]), (b"", []), (b"\1", []), (struct.pack("=IHHII", 4, 3, 0, 0, 0), []),
    (struct.pack("=IHHII", 400, 3, 0, 0, 0), []), (struct.pack("=IHHII", 16, 3, 0, 0, 0) * 2, [3, 3]),
], ids=["one", "nothing", "a byte", "too short", "cut short", "two"])
def test_datagrams_are_split(data: bytes, kinds: list[int]) -> None:
    assert [kind for kind, _piece in split(data)] == kinds


@pytest.mark.namespace
@pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root")
@pytest.mark.skipif(shutil.which("ip") is None, reason="iproute2 is not installed")
def test_who_administers_the_network_speaks_not_as_the_kernel_and_holds_no_page_up() -> None:
    root = Path(__file__).parents[3]
    done = subprocess.run(["unshare", "--net", sys.executable, Path(__file__).with_name("links_cell.py")],
                          env={**os.environ, "PYTHONPATH": f"{root}:{root}/tests"}, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout)
    before, after = seen["before"].encode(), seen["after"].encode()
    assert value(before, "nvrc_link_changes_total", link="lo") == 0
    assert value(after, "nvrc_link_changes_total", link="lo") == 1, "the kernel is heard, and nobody else is counted"
    assert (value(after, "nvrc_routes", family="ipv4"), value(after, "nvrc_link_addresses", link="lo")) == (20_000, 2)
    assert seen["refused"] == 31
    assert seen["took_s"] < 0.5  # 1.2 where each route was decoded
