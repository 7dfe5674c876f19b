# SPDX-License-Identifier: Apache-2.0
"""Links, addresses and routes from the kernel itself, against what iproute's neighbour /proc and /sys say of them."""

from __future__ import annotations

import os
import struct

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
