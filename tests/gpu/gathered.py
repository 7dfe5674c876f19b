# SPDX-License-Identifier: Apache-2.0
"""What a machine with an NVIDIA driver says of itself: read only, no GPU touched but through NVML in our own worker.

Everything is plain JSON, since it becomes a fixture. Serial numbers are not read; UUIDs are kept, and are those of
the GPUs of one machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from guest_cdi.host import LinuxHost
from nvrc.hardware.device_nodes import make_capability_nodes, make_nodes
from nvrc.hardware.topology import NVIDIA, classify, scan
from nvrc.machine.files import LinuxFiles
from nvrc.machine.linux_system import LinuxSystem
from nvrc.machine.system import Node
from nvrc.nvml.client import Client, prepare_worker
from nvrc.vocabulary.errors import NvrcError

Json = Mapping[str, object]
T = TypeVar("T")

PROC = "/proc/driver/nvidia"
MODULES = ("nvidia", "nvidia_uvm", "nvidia_modeset", "nvidia_drm", "nvidia_peermem", "gdrdrv")
PCI_FILES = ("vendor", "device", "class", "subsystem_vendor", "subsystem_device", "numa_node", "current_link_speed",
             "current_link_width", "max_link_speed", "max_link_width", "power_state", "d3cold_allowed", "revision", "resource")
PATIENCE_S = 60.0


class Acceptance:
    """What one run found. `facts` are those of the machine; tests add what they measured."""

    def __init__(self, facts: Json) -> None:
        self.facts: dict[str, object] = dict(facts)
        self.differences: dict[str, str] = {}


class Drawn(LinuxSystem):
    """The machine as it is; nodes that would be made are written down instead."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.nodes: dict[str, Node] = {}

    def make_dir(self, path: str, mode: int = 0o755) -> None:
        pass

    def make_node(self, path: str, node: Node) -> None:
        self.nodes[path] = node


def text_of(files: LinuxFiles, path: str) -> str | None:
    try:
        return files.read(path, 1 << 18).decode("utf-8", "replace")
    except OSError as err:
        return None if err.errno == 2 else f"<{err.strerror}>"


def names_in(files: LinuxFiles, folder: str) -> tuple[str, ...]:
    try:
        return files.list_dir(folder)
    except OSError:
        return ()


def files_below(files: LinuxFiles, folder: str, depth: int = 6) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in names_in(files, folder):
        path = f"{folder}/{name}"
        if names_in(files, path) and depth:
            found |= files_below(files, path, depth - 1)
        elif (text := text_of(files, path)) is not None:
            found[path] = text
    return found


def bus(files: LinuxFiles) -> list[Json]:
    found = []
    for function in scan(files):
        if function.vendor == NVIDIA or function.pci_class >> 16 == 0x02:
            place = f"/sys/bus/pci/devices/{function.bdf}"
            link = os.path.basename(os.path.realpath(files.real_path(f"{place}/driver")))
            facts = {name: (text_of(files, f"{place}/{name}") or "").strip() for name in PCI_FILES}
            found.append({"bdf": function.bdf, "driver": link if link != "driver" else "", **facts})
    return found


def nodes(files: LinuxFiles) -> dict[str, Sequence[int]]:
    places = [f"/dev/{name}" for name in names_in(files, "/dev") if name.startswith(("nvidia", "gdrdrv"))]
    places += [f"{folder}/{name}" for folder in ("/dev/nvidia-caps", "/dev/nvidia-caps-imex-channels")
               for name in names_in(files, folder)]
    return {path: list(node) for path in places if (node := files.find_node(path)) is not None}


def due_nodes(root: str, gpus: Sequence[str]) -> Json:
    """The nodes that PID 1 would make, or why it would refuse."""
    drawn = Drawn(root)
    try:
        make_nodes(drawn, tuple(gpus))
        make_capability_nodes(drawn)
    except NvrcError as refused:
        return {"refused": f"{refused.code} {refused.what}"}
    return {"nodes": {path: list(node) for path, node in drawn.nodes.items()}}


def timed(ask: Callable[[], object]) -> Json:
    """The answer of one question to the worker, or its failure, and how long it took."""
    began_s = time.monotonic()
    try:
        answer: Json = {"answer": plain(ask())}
    except NvrcError as err:
        answer = {"code": err.code, "what": err.what, "hint": err.hint}
    return {**answer, "took_ms": round(1000 * (time.monotonic() - began_s), 1)}


def plain(value: object) -> object:
    """Records become objects by the names of their fields."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: plain(item) for name, item in value._asdict().items()}
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value


def asked(root: str) -> Json:
    """NVML through the worker that a boot uses; nothing is set."""
    worker = prepare_worker(LinuxSystem(root), "/", root=root, host=LinuxHost(root))
    client = Client(worker, PATIENCE_S)
    try:
        gpus = timed(client.gpus)
        listed = gpus.get("answer")
        numbers = [item["number"] for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
        return {"gpus": gpus, "again": timed(client.gpus), "cc": timed(lambda: client.confidential(numbers)),
                "ready": timed(lambda: client.settle_ready(None))}
    finally:
        worker.stop()
        os.waitpid(worker.pid, 0)


def facts_of(root: str) -> Json:
    files = LinuxFiles(root)
    topology = classify(scan(files))
    gpus = [function.bdf for function in topology.gpus]
    return {
        "schema": 1, "kernel": os.uname().release, "counts": list(topology.counts), "bus": bus(files),
        "proc": files_below(files, PROC), "devices": text_of(files, "/proc/devices"),
        "modules": {name: {"version": (text_of(files, f"/sys/module/{name}/version") or "").strip(),
                           "parameters": {parameter: (text_of(files, f"/sys/module/{name}/parameters/{parameter}") or "").strip()
                                          for parameter in names_in(files, f"/sys/module/{name}/parameters")}}
                    for name in MODULES if files.exists(f"/sys/module/{name}")},
        "nodes": nodes(files), "due": due_nodes(root, gpus), "nvml": asked(root),
    }
