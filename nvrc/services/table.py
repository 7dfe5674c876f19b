# SPDX-License-Identifier: Apache-2.0
"""THE table of daemons: argv, readiness, importance, what their end means; and how one of them is started.

A daemon is started from the root of the driver's files: "" or where the GPU extension is mounted. Its output goes to
the journal. How long to wait for it and what to make of its lines is the business of its step.
"""

from __future__ import annotations

from guest_cdi.lean.light import Enum, Mapping, NamedTuple, dataclass
from nvrc.machine.children import Ended
from nvrc.machine.program import Program
from nvrc.machine.system import System
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.signals import signal


class Importance(Enum):
    CRITICAL = "critical"  # GPUs depend on it
    HELPER = "helper"


class Restart(Enum):
    NEVER = "never"
    UNLESS_CONFIDENTIAL = "once, never with confidential GPUs"
    BOUNDED = "a few times, more and more slowly"


class Words(NamedTuple):
    """An option with its argument. {root} and {names} are filled in; without a value for `only_with` it is left out."""

    words: tuple[str, ...]
    only_with: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One daemon. `pid_file`: it puts itself into the background, and its pid is there.

    `marker`: what its line says when it is ready; `ready_path`: what it makes then. `code` and `stall_code` are those
    of a failed start and of one that takes too long.
    """

    name: str
    step: str
    path: str
    args: tuple[Words, ...]
    code: str
    stall_code: str
    importance: Importance
    restart: Restart
    marker: str = ""
    ready_path: str = ""
    pid_file: str = ""
    account: str = ""
    stop: signal.Signals = signal.SIGTERM


# The fabric manager is never restarted: it would meet GPUs that another one has set up, and those need a reset first.
FABRIC_MANAGER = Service(
    name="nv-fabricmanager", step="fabric", path="/bin/nv-fabricmanager",
    code="E_FABRIC_START", stall_code="E_FABRIC_STALL",
    args=(Words(("-c", paths.FABRIC_CONFIG)), Words(("-g", "{guid}"), only_with="guid")),
    importance=Importance.CRITICAL, restart=Restart.NEVER, marker="FM starting NvLink Inband")
SUBNET_MANAGER = Service(
    name="nvlsm", step="fabric", path="/sbin/nvlsm", code="E_NVLSM", stall_code="E_NVLSM",
    args=(Words(("-F", "{root}/usr/share/nvidia/nvlsm/nvlsm.conf")), Words(("-g", "{guid}")), Words(("-f", "stdout"))),
    importance=Importance.CRITICAL, restart=Restart.NEVER, marker="SUBNET UP",
    ready_path=paths.SUBNET_SOCKET)
# It holds the only attach that a confidential GPU has. Verbose, because only its lines per device tell the truth.
PERSISTENCED = Service(
    name="nvidia-persistenced", step="persistenced", path="/bin/nvidia-persistenced",
    code="E_PERSISTENCED_START", stall_code="E_PERSISTENCED_STALL",
    args=(Words(("--verbose",)), Words(("--uvm-persistence-mode",), only_with="uvm")),
    importance=Importance.CRITICAL, restart=Restart.UNLESS_CONFIDENTIAL, pid_file=paths.PERSISTENCED_PID)
HOST_ENGINE = Service(
    name="nv-hostengine", step="dcgm", path="/bin/nv-hostengine", code="E_DCGM", stall_code="E_DCGM",
    args=(Words(("--service-account", "nvidia-dcgm")), Words(("--home-dir", "/tmp"))),  # noqa: S108 - the guest's own
    importance=Importance.HELPER, restart=Restart.BOUNDED, pid_file=paths.HOSTENGINE_PID, account="nvidia-dcgm")
EXPORTER = Service(
    name="dcgm-exporter", step="dcgm", path="/bin/dcgm-exporter", code="E_DCGM", stall_code="E_DCGM",
    args=(Words(("-k",)), Words(("-f", paths.DCGM_COUNTERS))),
    importance=Importance.HELPER, restart=Restart.BOUNDED, marker="Starting webserver")

# In the order of their start; they are stopped in the reverse order.
SERVICES = (SUBNET_MANAGER, FABRIC_MANAGER, PERSISTENCED, HOST_ENGINE, EXPORTER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A daemon that is up. `started_pid` is the process that was started, `pid` the daemon it may have left behind."""

    service: Service
    program: Program
    started_pid: int
    pid: int | None
    since_s: float

    @property
    def is_critical(self) -> bool:
        return self.service.importance is Importance.CRITICAL


def describe(service: Service, root: str, values: Mapping[str, str] | None = None) -> Program:
    """The program with its command line."""
    filled = {"root": root, **(values or {})}
    return Program(
        path=f"{root}{service.path}", log_as=service.name,
        args=tuple(word.format_map(filled) for words in service.args
                   if not words.only_with or filled.get(words.only_with) for word in words.words))


def start(system: System, service: Service, root: str, ended: Ended,
          values: Mapping[str, str] | None = None) -> tuple[Program, int]:
    """Start the daemon from below `root`; what it starts with, and the pid of what was started."""
    program = describe(service, root, values)
    if not system.exists(program.path, executable=True):
        raise NvrcError(service.code, f"{program.path} is not there or not executable",
                        "build the image or the GPU extension with it")
    try:
        return program, system.start(program, ended)
    except OSError as err:
        raise NvrcError(service.code, f"cannot start {program.path}: {err.strerror}",
                        "check the file's loader and architecture in the image") from err


def read_pid(system: System, service: Service) -> int | None:
    """The pid in the daemon's PID file; None while there is none that makes sense."""
    try:
        text = system.read(service.pid_file, 64).decode("ascii", "replace").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() and len(text) < 10 and int(text) > 1 else None
