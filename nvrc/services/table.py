# SPDX-License-Identifier: Apache-2.0
"""THE table of daemons: argv, readiness, importance, what their end means; and how one of them is started.

A daemon is started from the root of the driver's files: "" or where the GPU extension is mounted. Its output goes to
the journal. How long to wait for it and what to make of its lines is the business of its step.
"""

from __future__ import annotations

import errno

from guest_cdi.lean.light import TYPE_CHECKING, Enum, Mapping, NamedTuple, dataclass
from nvrc.machine import privileges as rows
from nvrc.machine.children import Ended
from nvrc.machine.privileges import prepare
from nvrc.machine.program import Program
from nvrc.machine.rights import Privileges
from nvrc.machine.system import Files, System
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.signals import signal

if TYPE_CHECKING:
    from nvrc.vocabulary.errors import Code


class Importance(Enum):
    CRITICAL = "critical"  # GPUs depend on it
    HELPER = "helper"


class Restart(Enum):
    NEVER = "never"
    UNLESS_CONFIDENTIAL = "once, never with confidential GPUs"
    BOUNDED = "a few times, more and more slowly"


class Rule(NamedTuple):
    """`most` restarts, after `first_s` and twice as long each time; all is forgiven after `steady_s` without an end."""

    most: int
    first_s: float = 1.0
    steady_s: float | None = None


RULES: Mapping[Restart, Rule] = {
    Restart.NEVER: Rule(0), Restart.UNLESS_CONFIDENTIAL: Rule(1), Restart.BOUNDED: Rule(5, steady_s=600.0),
}
# Who goes first when memory is short is what the machine can do without: -1000 is never, 1000 always.
KEPT, SPARED = -900, 500


class Words(NamedTuple):
    """An option with its argument. {root} and {names} are filled in; without a value for `only_with` it is left out."""

    words: tuple[str, ...]
    only_with: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One daemon. `pid_file`: it puts itself into the background, and its pid is there.

    `marker`: what its line says when it is ready; `ready_path`: what it makes then. `code` and `stall_code` are those
    of a failed start and of one that takes too long, `lost_code` that of one that ended for good. `meanings`: what an
    exit status of its own says. `input`: a descriptor of PID 1's that it reads from.
    """

    name: str
    step: str
    path: str
    args: tuple[Words, ...]
    privileges: Privileges
    code: Code
    stall_code: Code
    importance: Importance
    restart: Restart
    marker: str = ""
    ready_path: str = ""
    pid_file: str = ""
    oom_score_adj: int = 0
    lost_code: Code = "E_SERVICE_LOST"
    meanings: tuple[tuple[int, str], ...] = ()
    input: int = -1
    stop: signal.Signals = signal.SIGTERM


# The fabric manager is never restarted: it would meet GPUs that another one has set up, and those need a reset first.
FABRIC_MANAGER = Service(
    name="nv-fabricmanager", step="fabric", path="/bin/nv-fabricmanager", privileges=rows.FABRIC_MANAGER,
    code="E_FABRIC_START", stall_code="E_FABRIC_STALL",
    args=(Words(("-c", paths.FABRIC_CONFIG)), Words(("-g", "{guid}"), only_with="guid")),
    importance=Importance.CRITICAL, oom_score_adj=KEPT, restart=Restart.NEVER, marker="FM starting NvLink Inband")
SUBNET_MANAGER = Service(
    name="nvlsm", step="fabric", path="/sbin/nvlsm", privileges=rows.SUBNET_MANAGER,
    code="E_NVLSM", stall_code="E_NVLSM",
    args=(Words(("-F", "{root}/usr/share/nvidia/nvlsm/nvlsm.conf")), Words(("-g", "{guid}")), Words(("-f", "stdout"))),
    importance=Importance.CRITICAL, oom_score_adj=KEPT, restart=Restart.NEVER, marker="SUBNET UP",
    ready_path=paths.SUBNET_SOCKET)
# It holds the only attach that a confidential GPU has. Verbose, because only its lines per device tell the truth.
PERSISTENCED = Service(
    name="nvidia-persistenced", step="persistenced", path="/bin/nvidia-persistenced",
    privileges=rows.PERSISTENCED,
    code="E_PERSISTENCED_START", stall_code="E_PERSISTENCED_STALL",
    args=(Words(("--verbose",)), Words(("--uvm-persistence-mode",), only_with="uvm")),
    importance=Importance.CRITICAL, oom_score_adj=KEPT, restart=Restart.UNLESS_CONFIDENTIAL,
    pid_file=paths.PERSISTENCED_PID)
HOST_ENGINE = Service(
    name="nv-hostengine", step="dcgm", path="/bin/nv-hostengine", privileges=rows.HOST_ENGINE,
    code="E_DCGM", stall_code="E_DCGM",
    args=(Words(("--pid", paths.HOSTENGINE_PID)), Words(("--home-dir", "/tmp"))),  # noqa: S108 - the guest's own
    importance=Importance.HELPER, oom_score_adj=SPARED, restart=Restart.BOUNDED, pid_file=paths.HOSTENGINE_PID)
EXPORTER = Service(
    name="dcgm-exporter", step="dcgm", path="/bin/dcgm-exporter", privileges=rows.EXPORTER,
    code="E_DCGM", stall_code="E_DCGM",
    args=(Words(("-k",)), Words(("-f", paths.DCGM_COUNTERS))),
    importance=Importance.HELPER, oom_score_adj=SPARED, restart=Restart.BOUNDED, marker="Starting webserver")

# Ours, and no part of the boot: PID 1 starts it when the machine is ready.
METRICS = Service(
    name="nvrc-metrics", step="supervise", path=paths.METRICS, privileges=rows.METRICS,
    code="E_METRICS", stall_code="E_METRICS",
    args=(Words(("--port", "{port}")), Words(("--driver-root", "{driver_root}"), only_with="driver_root"),
          Words(("--gpus",), only_with="gpus"), Words(("--serials", "{serials}"), only_with="serials")),
    importance=Importance.HELPER, oom_score_adj=SPARED, restart=Restart.BOUNDED, lost_code="E_METRICS",
    meanings=((errno.EADDRINUSE, "another program listens there"),))

SHORTAGES = frozenset({errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC})
MORE_ROOM = "processes, files or memory are used up: give the VM more memory, or find what takes them"


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A daemon that is up. `started_pid` is the process that was started, `pid` the daemon it may have left behind;
    `about` is what tells it from others of its name, for people.
    """

    service: Service
    program: Program
    started_pid: int
    pid: int | None
    since_s: float
    about: str = ""

    @property
    def is_critical(self) -> bool:
        return self.service.importance is Importance.CRITICAL


def describe(service: Service, root: str, values: Mapping[str, str] | None = None) -> Program:
    """The program with its command line."""
    filled = {"root": root, **(values or {})}
    return Program(
        path=f"{root}{service.path}", log_as=service.name, input=service.input,
        privileges=service.privileges, oom_score_adj=service.oom_score_adj or None,
        args=tuple(word.format_map(filled) for words in service.args
                   if not words.only_with or filled.get(words.only_with) for word in words.words))


def start(system: System, service: Service, root: str, ended: Ended,
          values: Mapping[str, str] | None = None) -> tuple[Program, int]:
    """Start the daemon from below `root`; what it starts with, and the pid of what was started."""
    program = describe(service, root, values)
    if not system.exists(program.path, executable=True):
        raise NvrcError(service.code, f"{program.path} is missing or not executable",
                        "build the image or the GPU extension with it", service=service.name, path=program.path)
    prepare(system, service.privileges, service.code)
    try:
        return program, system.start(program, ended)
    except OSError as err:
        remedy = MORE_ROOM if err.errno in SHORTAGES else "check the file's loader and architecture in the image"
        raise NvrcError(service.code, f"cannot start {program.path}: {err.strerror}", remedy,
                        service=service.name, path=program.path) from err


def find_daemon(system: Files, service: Service) -> int | None:
    """The pid in the daemon's PID file, where that is a process of its row. The daemon may write any, and by it PID 1
    knows what to stop, and whose end is the daemon's.
    """
    pid = read_pid(system, service)
    return pid if pid is not None and _group(system, pid) == service.privileges.account.gid else None


def _group(system: Files, pid: int) -> int | None:
    """The one that a process has in every respect. Each row has one of its own, whatever its user is."""
    try:
        lines = system.read(f"/proc/{pid}/status", 4096).splitlines()
        (groups,) = {tuple(line.split()[1:]) for line in lines if line.startswith(b"Gid:")}
        (group,) = set(groups)
        return int(group)
    except (OSError, ValueError):
        return None


def read_pid(system: Files, service: Service) -> int | None:
    """What the daemon's PID file says; None while there is none that makes sense."""
    try:
        text = system.read_plain(service.pid_file, 64).decode("ascii", "replace").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() and len(text) < 10 and int(text) > 1 else None
