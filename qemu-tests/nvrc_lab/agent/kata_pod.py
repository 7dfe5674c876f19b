# SPDX-License-Identifier: Apache-2.0
"""A pod below Kata's runtime: a sandbox and its members, described to the runtime as containerd's CRI does it.

Whatever happens inside, everything of the pod is gone at the end, so that what is left over afterwards is a finding.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nvrc_lab.agent.kata_host import KataHost, Ran
from nvrc_lab.ground.errors import LabError

SANDBOX, MEMBER = "sandbox", "container"
STOP_S, GONE_S = 60.0, 30.0
LATE, STATUS = "impossible to delete", r"non-zero exit code (\d+)"
_LAST = 40


def describe(sandbox: str, kind: str) -> tuple[str, ...]:
    """Options of `ctr run`."""
    rows = {"io.kubernetes.cri.container-type": kind, "io.kubernetes.cri.sandbox-id": sandbox,
            "io.kubernetes.cri.container-name": kind}
    return tuple(word for key, value in rows.items() for word in ("--annotation", f"{key}={value}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    host: KataHost
    name: str
    config: Path

    def run(self, name: str, *args: str, options: Sequence[str] = (), limit_s: float = STOP_S) -> Ran:
        """A member, from its start to its end. Its output and its errors are one text.

        Kata tells of a member's end before it lets go of it, so `ctr run` cannot delete what it has waited for.
        """
        ident = f"{self.name}-{name}"
        out = self.host.folder / f"{ident}.out"
        more = ("--detach", "--log-uri", f"file://{out}", *describe(self.name, MEMBER), *options)
        started = self.host.run(ident, self.config, *args, options=more)
        self.until_stopped(ident, limit_s)
        ended = self._delete(ident)
        self.host.ctr("containers", "delete", ident)
        text = out.read_text(errors="replace") if out.exists() else ""
        if started.status != 0:
            return started
        status = re.search(STATUS, ended.errors)
        return Ran(status=int(status[1]) if status else ended.status, output=text, errors=f"{text}{ended.errors}")

    def _delete(self, ident: str) -> Ran:
        """It says the status of the task in words, of releases before 1.7 as its own."""
        until_s = time.monotonic() + STOP_S
        while LATE in (ended := self.host.ctr("task", "delete", ident)).errors and time.monotonic() < until_s:
            time.sleep(0.2)
        return ended

    def execute(self, *args: str) -> Ran:
        """A program in the sandbox's own container."""
        return self.host.ctr("task", "exec", "--exec-id", f"{time.monotonic_ns()}", self.name, *args)

    def stop(self, signal: str = "SIGTERM") -> str:
        """The state of the sandbox's container afterwards."""
        self.host.ctr("task", "kill", "--signal", signal, self.name)
        return self.until_stopped(self.name)

    def until_stopped(self, ident: str, limit_s: float = STOP_S) -> str:
        until_s = time.monotonic() + limit_s
        while (state := self.state(ident)) not in ("STOPPED", "") and time.monotonic() < until_s:
            time.sleep(0.5)
        return state

    def state(self, ident: str = "") -> str:
        lines = self.host.ctr("task", "list").lines
        return next((line.split()[-1] for line in lines if line.split()[:1] == [ident or self.name]), "")


@contextlib.contextmanager
def open_pod(host: KataHost, name: str, config: Path, *args: str, options: Sequence[str] = ()) -> Iterator[Pod]:
    pod = Pod(host=host, name=name, config=config)
    try:
        good(host.run(name, config, *args, options=("--detach", "--null-io", *describe(name, SANDBOX), *options)), host)
        yield pod
    finally:
        if pod.state() == "RUNNING":
            pod.stop("SIGKILL")
        host.ctr("task", "delete", "--force", name)
        host.ctr("containers", "delete", name)


def good(ran: Ran, host: KataHost) -> tuple[str, ...]:
    """What a program wrote that ended with 0."""
    if ran.status != 0:
        raise LabError(f"status {ran.status}: {ran.errors.strip()}\n{tail(host)}", f"read {host.log}")
    return ran.lines


def tail(host: KataHost) -> str:
    """What the guest said last, or else the log of containerd."""
    lines = host.log.read_text(errors="replace").splitlines()
    console = [line for line in lines if "vmconsole=" in line]
    return "\n".join((console or lines)[-_LAST:])


def left_over(host: KataHost) -> tuple[list[str], list[str]]:
    """Folders of VMs, and machines that run."""
    folders = host.enter(["sh", "-c", "ls -d /run/vc/vm/* /run/vc/sbs/* 2>/dev/null"]).lines
    machines = host.enter(["sh", "-c", "grep -la qemu-system /proc/[0-9]*/cmdline 2>/dev/null"]).lines
    names = [host.enter(["cat", path]).output for path in machines]
    return list(folders), [name for name in names if name.startswith("/") and "-machine" in name]


def until_nothing_is_left(host: KataHost, limit_s: float = GONE_S) -> tuple[list[str], list[str]]:
    until_s = time.monotonic() + limit_s
    while (found := left_over(host)) != ([], []) and time.monotonic() < until_s:
        time.sleep(0.5)
    return found
