# SPDX-License-Identifier: Apache-2.0
"""Boot virtual hardware with a list of probes in place of an init, and return what they printed.

No image and no init of ours takes part: this is how the hardware itself is tested. The commands are those of
qemu-tests/standins/prober.c.
"""

from __future__ import annotations

import functools
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nvrc_build import pipeline
from nvrc_build.ground.progress import silent
from nvrc_build.products import kernel as kernels
from nvrc_build.supply import supply
from nvrc_build.tree.cpio import write_cpio
from nvrc_build.tree.tree import Entry, Kind, Origin
from nvrc_lab.ground.errors import LabError
from nvrc_lab.ground.hosttime import STAMP, Host, read_load, starved_s, wall_limit_s
from nvrc_lab.ground.places import Places, checkout
from nvrc_lab.ground.scratch import scratch_folder
from nvrc_lab.kit import standins
from nvrc_lab.kit.kit_texts import IMAGE_TEXTS
from nvrc_lab.kit.unpacked_boot import unpack_kernel
from nvrc_lab.qemu.machine import Accel, Machine, make_argv
from nvrc_lab.qemu.qemu import find_qemu

_ORIGIN = Origin(slice="lab")
CMDLINE = "quiet panic=1 reboot=k rdinit=/lab/init"

# Where there is none, nvidia-persistenced does not come up.
TRANSPORTS = "/etc/netconfig"
LOOK_S = 0.5
_STAMP = re.compile(f"{STAMP.pattern} ")

# What most probes need first.
MOUNTS = "mount proc /proc\nmount sysfs /sys\nmount devtmpfs /dev\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """What lies in the initrd: files by path (executable), texts by path, and the kernel that unpacks them."""

    kernel: Path
    programs: Mapping[str, Path]
    texts: Mapping[str, str]


def guest_kernel(places: Places) -> Path:
    """The kernel of the lab image, unpacked from its package and of its loader; nothing else of the image is built."""
    job = pipeline.open_job("lab", cache=places.cache, agent=None, mirror=None, checkout=places.root, progress=silent)
    package = next(row for row in supply.fetch(job.supply, job.image, "image") if row.name.startswith("linux-image-"))
    return unpack_kernel(kernels.image_path(supply.unpack_each(job.supply, [package])[package.name]), places)


@functools.cache
def _prepare() -> tuple[standins.Workshop, Path]:
    """Compiler and kernel, once a process: finding them takes the build's lock, which a long build may hold."""
    places = checkout()
    return standins.open_workshop(places), guest_kernel(places)


def write_initrd(guest: Guest, target: Path) -> None:
    """A newc archive; every folder on the way to a file, and /dev/console for the kernel to open."""
    files = {path: Entry(path=path, kind=Kind.FILE, mode=0o755, origin=_ORIGIN, content=file)
             for path, file in guest.programs.items()}
    files |= {path: Entry(path=path, kind=Kind.FILE, mode=0o644, origin=_ORIGIN, content=text.encode())
              for path, text in guest.texts.items()}
    files["/dev/console"] = Entry(path="/dev/console", kind=Kind.NODE, mode=0o600, origin=_ORIGIN, device=(5, 1))
    folders = {str(parent) for path in files for parent in Path(path).parents if str(parent) != "/"}
    entries = [*(Entry(path=path, kind=Kind.FOLDER, mode=0o755, origin=_ORIGIN) for path in folders), *files.values()]
    with target.open("wb") as out:
        out.writelines(write_cpio(sorted(entries, key=lambda entry: entry.path), 0))


def boot(guest: Guest, *, machine: Machine | None = None, cmdline: str = "", limit_s: float = 30) -> list[str]:
    """Every line of the console. The guest ends by itself; one that does not is killed and is an error."""
    with scratch_folder() as folder:
        initrd = folder / "initrd"
        write_initrd(guest, initrd)
        base = machine or Machine()
        full = Machine(kernel=guest.kernel, initrd=initrd, cmdline=f"{CMDLINE} {cmdline}".strip(),
                       memory_mib=base.memory_mib, cpus=base.cpus, devices=base.devices, extra=base.extra)
        return run_guest(make_argv(full, find_qemu().program, Accel.TCG), limit_s)


def run_guest(argv: Sequence[str], limit_s: float) -> list[str]:
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          start_new_session=True) as child:
        try:
            out = _await_output(child, limit_s)
        except BaseException as err:
            host = Host(starved_s=starved_s(child.pid), load=read_load())
            child.send_signal(signal.SIGKILL)
            rest, _ = child.communicate()
            if isinstance(err, subprocess.TimeoutExpired):
                tail = "\n".join(_lines(rest)[-10:])
                raise LabError(f"the guest did not power off within {limit_s:g} s{host.note(err.timeout)}",
                               f"see its last lines:\n{tail}") from err
            raise
    return _lines(out)


def _await_output(child: subprocess.Popen[bytes], limit_s: float) -> bytes:
    """All that it said. Its time stands still while it waits for a processor."""
    started_s = time.monotonic()
    while True:
        try:
            return child.communicate(timeout=LOOK_S)[0]
        except subprocess.TimeoutExpired as err:
            seconds = time.monotonic() - started_s
            if seconds - starved_s(child.pid) >= limit_s or seconds >= wall_limit_s(limit_s):
                raise subprocess.TimeoutExpired(err.cmd, seconds) from None


def _lines(raw: bytes) -> list[str]:
    """Without the time that the kernel puts before a record of its log."""
    return [_STAMP.sub("", line.strip("\r")) for line in raw.decode("utf-8", "backslashreplace").split("\n")]


def probe(functions: str, script: str, *, programs: Sequence[str] = (), texts: Mapping[str, str] | None = None,
          cmdline: str = "", machine: Machine | None = None, has_rdma: bool = False) -> list[str]:
    """The console of a machine that runs these probes; for functions see lab_machine.c and lab_keys.c.

    `has_rdma`: the kernel's modules below mlx5_ib.ko are in /lab, too.
    """
    shop, kernel = _prepare()
    modules = {**standins.build_modules(shop).files, **(standins.rdma_core(shop) if has_rdma else {})}
    guest = Guest(
        kernel=kernel,
        programs={**{program.path: standins.build_program(shop, program.source) for program in standins.PROGRAMS
                     if program.source in {"labinit", "prober", *programs}},
                  **{f"/lab/{name}.ko": path for name, path in modules.items()}},
        texts={"/lab/target": "/lab/prober\n", "/lab/script": script, TRANSPORTS: IMAGE_TEXTS[TRANSPORTS],
               "/lab/modules": f"/lab/lab_pci.ko fn={functions}\n", **(texts or {})},
    )
    return boot(guest, cmdline=cmdline, machine=machine)


def told(lines: Sequence[str], what: str) -> list[str]:
    """What the probes of one kind said, in order: the rest of every line `probe: WHAT`."""
    return [line.removeprefix(f"probe: {what}").strip(" :") for line in lines if line.startswith(f"probe: {what}")]
