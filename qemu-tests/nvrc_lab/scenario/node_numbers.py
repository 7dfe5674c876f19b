# SPDX-License-Identifier: Apache-2.0
"""Do the nodes in /dev carry the numbers that NVIDIA's driver registered? A probe inside the machine, and its reading.

The driver itself makes no node, and some of its numbers differ from boot to boot, so both sides are looked up in the
running machine: /proc/devices, and the nodes when the last of them has been made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

WAIT_MS = 60000


class Row(NamedTuple):
    """A node and the name in /proc/devices that its major number belongs to."""

    path: str
    owner: str
    minor: int


FIXED: tuple[Row, ...] = (
    Row("/dev/nvidiactl", "nvidiactl", 255),
    Row("/dev/nvidia-uvm", "nvidia-uvm", 0),
    Row("/dev/nvidia-uvm-tools", "nvidia-uvm", 1),
    Row("/dev/nvidia-nvlink", "nvidia-nvlink", 0),
    Row("/dev/nvidia-caps/nvidia-cap1", "nvidia-caps", 1),
    Row("/dev/nvidia-caps/nvidia-cap2", "nvidia-caps", 2),
)
_MAJOR = re.compile(r"probe: cat /proc/devices:\s+(\d+) (\S+)")
_NODE = re.compile(r"probe: stat (\S+) (?:(\d+):(\d+) mode=(\d+)|(error \S+))")


def due_nodes(minors: Sequence[int]) -> tuple[Row, ...]:
    return (*FIXED, *(Row(f"/dev/nvidia{minor}", "nvidia", minor) for minor in minors))


def probe_commands(minors: Sequence[int]) -> tuple[str, ...]:
    """For the prober, beside the init: nothing here opens a GPU."""
    rows = due_nodes(minors)
    return (f"wait /proc/driver/nvidia/version {WAIT_MS}", *(f"wait {row.path} {WAIT_MS}" for row in rows),
            "cat /proc/devices", *(f"stat {row.path}" for row in rows))


def check_numbers(lines: Sequence[str], minors: Sequence[int]) -> Iterator[str]:
    text = "\n".join(lines)
    majors: Mapping[str, int] = {found[2]: int(found[1]) for found in _MAJOR.finditer(text)}
    nodes = {found[1]: found for found in _NODE.finditer(text)}
    for row in due_nodes(minors):
        found = nodes.get(row.path)
        if found is None or found[5]:
            yield f"node {row.path}: {found[5] if found else 'never looked at'}"
        elif (int(found[2]), int(found[3])) != (majors.get(row.owner), row.minor):
            yield (f"node {row.path}: it is {found[2]}:{found[3]}, and {row.owner} has "
                   f"{majors.get(row.owner, 'no number')}:{row.minor}")
