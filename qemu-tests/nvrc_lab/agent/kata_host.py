# SPDX-License-Identifier: Apache-2.0
"""A host of Kata in namespaces of its own: containerd, the shim and QEMU run there, and all of it goes with it.

The namespaces are those of mounts, processes, network, IPC and host name; /run is an empty file system, so that nothing
of the machine outside is touched but the folder that is given. containerd is asked by `ctr`, whose errors are those
that a kubelet gets. Nothing here knows an image or a scenario.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nvrc_lab.agent.kata_config import HostPrograms
from nvrc_lab.agent.pod_image import NAME
from nvrc_lab.ground.errors import LabError

NAMESPACES = ("--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child=SIGKILL", "--propagation=private",
              "--mount-proc")
SOCKET = "/run/containerd/containerd.sock"
START_S, CALL_S = 60.0, 900.0
VHOST = Path("/dev/vhost-vsock")
_SEARCH = ":".join(word for word in sys.path if word)
_OLD_VIRTIOFSD = Path("/usr/lib/qemu/virtiofsd")
_INSIDE = """
mount --make-rshared /
mount -t tmpfs tmpfs /run
mkdir -p /run/containerd
ip link set lo up 2>/dev/null
{python} -m nvrc_lab.agent.syslog_sink {folder}/shim.log &
while [ ! -S /run/log ]; do sleep 0.1; done
exec "$@"
"""
_CONFIG = """version = 2
root = "{folder}/root"
state = "/run/containerd/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{socket}"
[debug]
level = "debug"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What others made. `programs`: a folder with containerd and ctr. `has_kvm`: /dev/kvm was seen to work."""

    shim: Path
    programs: Path
    qemu: str
    has_kvm: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    status: int
    output: str
    errors: str

    @property
    def lines(self) -> tuple[str, ...]:
        return tuple(self.output.splitlines())


class KataHost:
    """A running containerd. `log` has its lines, the shim's and, with debugging on, the guest's console; so has
    shim.log beside it, as a syslog gets them."""

    def __init__(self, given: Given, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self._given, self.folder, self._process = given, folder, process
        self.log = folder / "containerd.log"
        self.programs = make_wrappers(given, folder)

    @property
    def inside(self) -> int:
        """containerd's pid as this machine numbers it."""
        text = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text(encoding="ascii")
        return int(text.split()[0])

    def enter(self, argv: Sequence[str], limit_s: float = CALL_S) -> Ran:
        """A program in the host's namespaces."""
        words = ["nsenter", "--target", str(self.inside), "--mount", "--pid", "--net", "--ipc", "--uts", "--", *argv]
        return run_program(words, limit_s)

    def ctr(self, *words: str, limit_s: float = CALL_S) -> Ran:
        return self.enter([str(self._given.programs / "ctr"), "--address", SOCKET, *words], limit_s)

    def run(self, name: str, config: Path, *args: str, options: Sequence[str] = (), limit_s: float = CALL_S) -> Ran:
        """A container from its start to its end; `--detach` among the options leaves it running."""
        end = () if "--detach" in options else ("--rm",)
        return self.ctr("run", *end, *options, "--runtime", str(self._given.shim), "--runtime-config-path", str(config),
                        NAME, name, *args, limit_s=limit_s)

    def wait_until_up(self) -> None:
        until_s = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError, IndexError):
                if self.ctr("version").status == 0:
                    return
            if self._process.poll() is not None or time.monotonic() > until_s:
                raise LabError(f"containerd did not start within {START_S:g} s", f"read {self.log}")
            time.sleep(0.2)


def run_program(argv: Sequence[str], limit_s: float) -> Ran:
    """Nothing comes from its standard input, and that does not end either.

    `ctr` tells the shim when its input ends; Kata's then waits, with its lock held, for a process that may not have
    been started yet, and answers nobody any more.
    """
    reading, writing = os.pipe()
    try:
        done = subprocess.run(argv, stdin=reading, capture_output=True, text=True, errors="replace", timeout=limit_s,
                              check=False)
    finally:
        os.close(reading)
        os.close(writing)
    return Ran(status=done.returncode, output=done.stdout, errors=done.stderr)


@contextlib.contextmanager
def open_host(given: Given, folder: Path, image: Path) -> Iterator[KataHost]:
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "containerd.toml"
    config.write_text(_CONFIG.format(folder=folder, socket=SOCKET), encoding="utf-8")
    path = f"{given.shim.parent}:{given.programs}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    inside = _INSIDE.format(python=shlex.quote(sys.executable), folder=shlex.quote(str(folder)))
    argv = ["unshare", *NAMESPACES, "sh", "-c", inside, "sh", str(given.programs / "containerd"), "--config",
            str(config)]
    with (folder / "containerd.log").open("wb") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                   env={**os.environ, "PATH": path, "PYTHONPATH": _SEARCH})
    try:
        host = KataHost(given, folder, process)
        host.wait_until_up()
        imported = host.ctr("images", "import", str(image))
        if imported.status != 0:
            raise LabError(f"the image could not be imported: {imported.errors.strip()}", f"read {host.log}")
        yield host
    finally:
        process.kill()  # and with it, as PID 1 of its namespace dies, containerd, shims and machines
        process.wait()


def make_wrappers(given: Given, folder: Path) -> HostPrograms:
    """On a host that has what Kata needs, its own programs; else wrappers around them."""
    virtiofsd = next((path for path in map(Path, ("/usr/libexec/virtiofsd", "/opt/kata/libexec/virtiofsd"))
                      if path.is_file()), None)
    is_whole = given.has_kvm and VHOST.exists()
    return HostPrograms(qemu=Path(given.qemu) if is_whole else _wrap(folder / "qemu", "qemu", given.qemu),
                        virtiofsd=virtiofsd or _wrap(folder / "virtiofsd", "virtiofsd", str(_OLD_VIRTIOFSD)))


def _wrap(path: Path, kind: str, program: str) -> Path:
    path.write_text(f"#!/bin/sh\nPYTHONPATH='{_SEARCH}' exec '{sys.executable}' -m nvrc_lab.agent.kata_qemu {kind} "
                    f"'{program}' \"$@\"\n", encoding="utf-8")
    path.chmod(0o755)
    return path
