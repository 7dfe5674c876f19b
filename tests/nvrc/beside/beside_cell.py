# SPDX-License-Identifier: Apache-2.0
"""Inside a network namespace: the agent beside the pod, its library that hangs, scrapers that never read, a link that
flaps, all at once. Run as a program (`python beside_cell.py FOLDER`); prints what it saw as JSON.

FOLDER has a driver's root with the stand-in library and its description, nvml-mock.conf beside it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from fakes.metrics import parse, value
from nvrc.beside import main

# The agent has little of a processor that others want, and on a busy machine starts the library's process in seconds.
PORT, EVERY_S, DEADLINE_S = 9400, 0.5, 5.0
DEAF, SILENT = 20, 20
FLAPS = "link set flap up\nlink set flap down\n" * 1000
PAGE = f"http://127.0.0.1:{PORT}/metrics"


def scrape() -> bytes:
    """With the patience that Prometheus has unless it is told otherwise."""
    with urllib.request.urlopen(PAGE, timeout=10) as answer:
        return bytes(answer.read())


def until(name: str, number: float) -> bytes:
    over = time.monotonic() + 180
    while True:
        try:
            page = scrape()
        except OSError:
            page = b""
        if value(page, name) == number:
            return page
        if time.monotonic() > over:
            raise TimeoutError(f"{name} never was {number:g}; {page.decode()}")
        time.sleep(0.05)


def ip(lines: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input=lines.encode(), check=True)


def held(pid: int) -> Mapping[str, int]:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {"kib": int(status["VmRSS"].split()[0]), "descriptors": len(os.listdir(f"/proc/{pid}/fd"))}


def settled(pid: int, descriptors: int) -> Mapping[str, int]:
    """What it holds when it has seen that clients are gone, which on a busy machine is not at once."""
    over = time.monotonic() + 60
    while (found := held(pid))["descriptors"] > descriptors and time.monotonic() < over:
        time.sleep(0.05)
    return found


def play(folder: Path, pid: int) -> Mapping[str, object]:
    before_page, before = until("nvrc_nvml_up", 1), held(pid)
    description = folder / "usr/lib/x86_64-linux-gnu/nvml-mock.conf"
    working = description.read_text()
    deaf = [socket.create_connection(("127.0.0.1", PORT)) for _ in range(SILENT + DEAF)]
    for client in deaf[SILENT:]:
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
    with description.open("a") as file:
        file.write("hang nvmlDeviceGetSerial\n")
    flapping = subprocess.Popen(["ip", "-batch", "-"], stdin=subprocess.PIPE)
    assert flapping.stdin is not None
    flapping.stdin.write(FLAPS.encode())
    flapping.stdin.close()
    slowest_s, scrapes = 0.0, 0
    while flapping.poll() is None:
        began = time.monotonic()
        scrape()
        slowest_s, scrapes = max(slowest_s, time.monotonic() - began), scrapes + 1
    hung = until("nvrc_nvml_up", 0)
    taken = subprocess.run([sys.executable, __file__, str(folder), "serve"], capture_output=True, text=True, check=False)
    description.write_text(working)
    for client in deaf:
        client.close()
    after_page = until("nvrc_nvml_up", 1)
    return {"before": before_page.decode(), "hung": hung.decode(), "after": after_page.decode(), "slowest_s": slowest_s,
            "scrapes": scrapes, "flapped": flapping.returncode, "held": [before, settled(pid, before["descriptors"])],
            "taken": [taken.returncode, taken.stderr], "series": len(parse(after_page))}


def make_link() -> None:
    """Of the first kind that this kernel has."""
    for kind in ("dummy", "veth", "bridge", "ifb"):
        if subprocess.run(["ip", "link", "add", "name", "flap", "type", kind], stderr=subprocess.DEVNULL, check=False).returncode == 0:
            return
    raise RuntimeError("this kernel has no link that can be made")


def cell(folder: Path) -> None:
    ip("link set lo up\n")
    make_link()
    ip("address add 192.0.2.1/24 dev flap\n")
    agent = subprocess.Popen([sys.executable, __file__, str(folder), "serve"], stdout=subprocess.DEVNULL)
    try:
        sys.stdout.write(json.dumps(play(folder, agent.pid)))
    finally:
        agent.kill()
        agent.wait()


if __name__ == "__main__":
    if sys.argv[2:]:
        sys.exit(main.run(PORT, sys.argv[1], has_gpus=True, every_s=EVERY_S, deadline_s=DEADLINE_S))
    cell(Path(sys.argv[1]))
