# SPDX-License-Identifier: Apache-2.0
"""A GPU pod of the lab that serves metrics and its status, while one of its GPUs gets worse and falls off the bus, and
while the process that serves them is frozen and killed. It goes on when this host has seen what it had to see so far.

The machine has a network card of QEMU's, whose other side is this host: a port here is a port of the guest's address.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

from fakes.lab_image import lab_image
from nvrc_lab.devices.vsock_device import VsockDevice
from nvrc_lab.ground.places import checkout
from nvrc_lab.qemu.machine import make_argv
from nvrc_lab.qemu.qemu import find_qemu
from nvrc_lab.run.compose import compose, needed_parts
from nvrc_lab.run.runner import open_lab
from nvrc_lab.scenario.faults import BOOT_OVER, NVML
from nvrc_lab.scenario.hardware import place_gpus
from nvrc_lab.scenario.scenario import parse_scenario
from nvrc_lab.watch.watch import Limits, record_of, watch

PORT, STATUS_PORT = 9400, 1030
GO_ON, GO_ON_MS = 1040, 90_000  # a port of the vsock; and how long each of what the host waits for may take
GUEST = "10.0.2.15"
SCENARIO = parse_scenario(f"""
summary: Two H100 of a pod that serves metrics and its status.
machine:
  memory_mib: 768
  gpus:
    - {{product: H100, count: 2}}
cmdline: nvrc.metrics={PORT} nvrc.status.vsock={STATUS_PORT}
agent:
  does: [network, hold]
expect: {{verdict: ready}}
""", "metrics", "fakes/metrics_pod.py")
HELD, LOST = (gpu.bdf for gpu in place_gpus(SCENARIO.machine))
# What the library tells of each GPU: power, heat, use, ECC errors, memory in use, links down of 18; then of one that gets worse.
TOLD = {HELD: (412345, 55, 93, (0, 0), 12 << 30, 0), LOST: (398700, 61, 88, (2, 0), 40 << 30, 0)}
WORSE = {LOST: (120500, 84, 0, (7, 1), 40 << 30, 3)}


def describe(index: int, numbers: tuple[int, int, int, tuple[int, int], int, int]) -> str:
    draw, celsius, busy, (corrected, uncorrected), used, down = numbers
    return (f"append {NVML} set gpu={index} nvlinks=18 draw-mw={draw} celsius={celsius} busy={busy},0 ecc={corrected},{uncorrected} "
            f"used={used} nvlinks-down={down}")


# MiB of zeros that NVIDIA's own library writes when it starts.
TABLE_MIB = 14
EVENTS = (
    f"append {NVML} table {TABLE_MIB}",
    *(describe(index, numbers) for index, numbers in enumerate(TOLD.values())),
    BOOT_OVER, "await nvrc-metrics 60000", f"called {GO_ON} {GO_ON_MS}",
    describe(1, WORSE[LOST]), f"called {GO_ON} {GO_ON_MS}", "census",
    f"write /proc/lab-pci off {LOST}", f"write /proc/nvidia-lab xid {LOST} 79 pid=0, name=, GPU has fallen off the bus.",
    "sleep 2000", "kill nvrc-metrics 19", "sleep 3000", "kill nvrc-metrics 18", "kill nvrc-metrics 9",
    f"called {GO_ON} {GO_ON_MS}", "kill 1 15",
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@contextmanager
def leading(device: VsockDevice, turns: Sequence[Callable[[], bool]]) -> Iterator[None]:
    """Let the pod go on each time that what it waits for was seen here."""
    over = threading.Event()

    def lead() -> None:
        for is_seen in turns:
            while not is_seen():
                if over.wait(0.1):
                    return
            with contextlib.suppress(OSError):  # the pod hangs up, or has ended
                device.connect(GO_ON, GO_ON_MS / 1000).receive_exactly(1, GO_ON_MS / 1000)

    thread = threading.Thread(target=lead, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def live(folder: Path, around: Callable[[int, VsockDevice], AbstractContextManager[Sequence[Callable[[], bool]]]],
         port: int = 0) -> list[str]:
    """From its start to its end, inside what `around` makes of its port on this host and its vsock; its log.

    `around` says how to tell that this host has seen the GPUs' first numbers, then the worse ones, then all the rest.
    """
    lab = open_lab(checkout(), find_qemu(), lab_image(), [SCENARIO])
    port, device, lines = port or free_port(), VsockDevice(folder / "vsock"), list[str]()
    machine = compose(SCENARIO, lab.image, {name: lab.kit[name] for name in needed_parts(SCENARIO)}, folder, events=EVENTS)
    machine = replace(machine, console=folder / "console", vsock=device.path, devices=("virtio-net-pci,netdev=pod,romfile=",), extra=(
        "-netdev", f"user,id=pod,restrict=on,hostfwd=tcp:127.0.0.1:{port}-{GUEST}:{PORT}"))
    try:
        with around(port, device) as turns, leading(device, turns):
            watch(make_argv(machine, lab.qemu.program, lab.choice.accel), folder / "console", Limits(total_s=400, silence_s=200),
                  lambda _story, more, _now_s: lines.extend(more), record=record_of(folder / "console"))
    finally:
        device.close()
    return lines
