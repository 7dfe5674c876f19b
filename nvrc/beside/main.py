# SPDX-License-Identifier: Apache-2.0
"""The agent beside the pod: sources, one page, one loop. What fails in a source is counted, and the rest is served.

PID 1 starts it after READY when `nvrc.metrics` asks for it, with the port, and looks after it like any helper.
"""

from __future__ import annotations

import errno
import gc
import os
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from nvrc.beside.child import DEADLINE_S, MOST_GPUS, NvmlChild, open_library
from nvrc.beside.families import Sample, render
from nvrc.beside.gpus import of_gpus, place_of
from nvrc.beside.guest import of_disks, of_guest, of_memory_kills, of_pressure, of_self, of_services
from nvrc.beside.init_state import of_report, of_status
from nvrc.beside.links import Links
from nvrc.beside.server import Server
from nvrc.machine.control import ask
from nvrc.machine.inet import listen
from nvrc.report import report, status
from nvrc.vocabulary import paths

EVERY_S = 15.0
TICK_S = 1.0
FRESH_S = 0.5
PATIENCE_S = 1.0
NICE = 10
READY = "serving metrics on port"


class Watcher:
    """What is known now, as samples. Sources are read when a page is asked for; only NVML is read in the background."""

    def __init__(
        self,
        nvml: NvmlChild | None,
        links: Links | None,
        now: Callable[[], float],
        *,
        control: str = paths.CONTROL,
        report_path: str = paths.REPORT,
        serials: Mapping[str, str] | None = None,
    ) -> None:
        self._nvml, self._links, self._now = nvml, links, now
        self._control, self._report_path = control, report_path
        self._pids: dict[str, int] = {}
        self._known = dict(serials or {})
        self._boot: tuple[Sample, ...] | None = None
        self._failures: dict[str, int] = {}
        self.server: Server | None = None

    def page(self) -> bytes:
        sources: tuple[tuple[str, Callable[[], Iterable[Sample]]], ...] = (
            ("init", self._of_init),
            ("boot", self._of_boot),
            ("nvml", self._of_nvml),
            ("guest", of_guest),
            ("pressure", of_pressure),
            ("kills", of_memory_kills),
            ("disks", of_disks),
            ("services", lambda: of_services(self._pids)),
            ("links", self._of_links),
            ("self", of_self),
            ("server", self._of_server),
        )
        samples: list[Sample] = []
        for name, read in sources:
            try:
                samples += read()
            except Exception:
                self._failures[name] = self._failures.get(name, 0) + 1
        samples += [
            Sample("nvrc_metrics_source_failures_total", count, (name,)) for name, count in self._failures.items()
        ]
        page = render(samples)
        gc.collect()  # what was loaded is frozen, so little is looked at; garbage that waits becomes memory that stays
        return page

    def _of_init(self) -> Iterable[Sample]:
        try:
            found = status.from_json(ask(self._control, PATIENCE_S))
        except OSError:
            return (Sample("nvrc_pid1_up", 0),)
        self._pids = {one.name: one.pid for one in found.services if one.pid is not None}
        return of_status(found, self._serials())

    def _serials(self) -> dict[str, str]:
        """Of a GPU that fell off the bus as well: the library lists it no more, and the host looks for the board."""
        gpus = self._nvml.latest.get("gpus") if self._nvml and self._nvml.latest else None
        places = map(place_of, gpus if isinstance(gpus, list) else ())
        for _uuid, bus_id, serial in places:
            if serial and (bus_id in self._known or len(self._known) < MOST_GPUS):
                self._known[bus_id] = serial
        return self._known

    def _of_boot(self) -> Iterable[Sample]:
        if self._boot is None:
            with open(self._report_path, "rb") as file:
                self._boot = tuple(of_report(report.from_json(file.read())))
        return self._boot

    def _of_nvml(self) -> Iterable[Sample]:
        nvml = self._nvml
        if nvml is None:
            return
        yield Sample("nvrc_nvml_up", nvml.is_up)
        yield Sample("nvrc_nvml_failures_total", nvml.failures)
        if nvml.latest is not None:
            yield Sample("nvrc_nvml_sample_age_seconds", round(self._now() - nvml.told_s, 3))
            yield from of_gpus(nvml.latest)

    def _of_links(self) -> Iterable[Sample]:
        return self._links.samples() if self._links else ()

    def _of_server(self) -> Iterable[Sample]:
        if self.server is not None:
            yield Sample("nvrc_metrics_scrapes_total", self.server.scrapes)
            yield Sample("nvrc_metrics_refused_total", self.server.refused)


def run(
    port: int,
    driver_root: str,
    *,
    has_gpus: bool,
    serials: Mapping[str, str] | None = None,
    every_s: float = EVERY_S,
    deadline_s: float = DEADLINE_S,
) -> int:
    try:
        listener = given() or socket.socket(fileno=listen(port))
    except OSError as err:
        remedy = "; choose another with nvrc.metrics" if err.errno == errno.EADDRINUSE else ""
        reason = os.strerror(err.errno) if err.errno else str(err)
        print(f"port {port} cannot be served: {reason}{remedy}", file=sys.stderr)
        return err.errno or 1  # PID 1 knows what some of them mean
    os.nice(NICE)
    links = Links()
    settle()
    nvml = NvmlChild(lambda: open_library(driver_root), every_s, deadline_s) if has_gpus else None
    watcher = Watcher(nvml, links, time.monotonic, serials=serials)
    server = watcher.server = Server(listener, kept(watcher.page, time.monotonic), time.monotonic)
    server.watch(links, links.heard)
    print(f"{READY} {port}", flush=True)
    following = Following(server, nvml, time.monotonic) if nvml else None
    while True:
        if following is not None:
            following.tick()
        server.serve(TICK_S)


def given() -> socket.socket | None:
    """The socket that PID 1 listens with, and hands over as input; None where it did not get the port."""
    if not stat.S_ISSOCK(os.fstat(0).st_mode):
        return None
    listener = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # the process with NVIDIA's library has descriptor 0 as well, and shall not listen
    os.close(nothing)
    return listener


def kept(make: Callable[[], bytes], now: Callable[[], float]) -> Callable[[], bytes]:
    """A page for all who ask within half a second, so that neither this process nor PID 1 works for a flood of them."""
    page, made_s = b"", -FRESH_S

    def give() -> bytes:
        nonlocal page, made_s
        if now() - made_s >= FRESH_S:
            page, made_s = make(), now()
        return page

    return give


def settle() -> None:
    """All that is loaded by now stays, here and in the process that is forked off: no collection looks at it again."""
    tuple(of_self())  # loads psutil
    gc.collect()
    gc.freeze()


class Following:
    """Has the pipe of the library's process watched, whichever process that is. A closed descriptor is let go at once,
    before another connection gets its number.
    """

    def __init__(self, server: Server, nvml: NvmlChild, now: Callable[[], float]) -> None:
        self._server, self._nvml, self._now = server, nvml, now
        self._watched = -1

    def tick(self) -> None:
        self._nvml.tick(self._now())
        self._follow()

    def _ready(self) -> None:
        self._nvml.take(self._now())
        self._follow()

    def _follow(self) -> None:
        current = self._nvml.fileno()
        if current != self._watched:
            if self._watched >= 0:
                self._server.unwatch_descriptor(self._watched)
            if current >= 0:
                self._server.watch_descriptor(current, self._ready)
            self._watched = current


def main(argv: Sequence[str] | None = None) -> int:
    """`--port PORT [--driver-root DIR] [--gpus] [--serials BUSID=SERIAL,...]`, as PID 1 has it. Without argparse, which
    stays in memory.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    has_gpus = "--gpus" in words
    pairs = [word for word in words if word != "--gpus"]
    options = dict(zip(pairs[::2], pairs[1::2], strict=False))
    known = {"--port", "--driver-root", "--serials"}
    if len(pairs) % 2 or not options.keys() <= known or not options.get("--port", "").isdigit():
        usage = "usage: nvrc-metrics --port PORT [--driver-root DIR] [--gpus] [--serials LIST]; PID 1 starts it"
        print(usage, file=sys.stderr)
        return 2
    serials = [word.partition("=")[::2] for word in options.get("--serials", "").split(",") if word]
    return run(int(options["--port"]), options.get("--driver-root", ""), has_gpus=has_gpus, serials=dict(serials))


if __name__ == "__main__":
    sys.exit(main())
