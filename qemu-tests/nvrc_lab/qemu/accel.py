# SPDX-License-Identifier: Apache-2.0
"""KVM or emulation: decided once for each boot of this machine and each QEMU, then remembered.

/dev/kvm may exist and be of no use: absent rights, or a KVM on which guests hang. So a tiny guest (probe.py) is run on
it with a time limit. The answer and its reason are printed with every boot of the lab.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nvrc_lab.qemu import kvm_probe as probe
from nvrc_lab.qemu.machine import Accel, Machine, make_argv
from nvrc_lab.qemu.qemu import Qemu

LIMIT_S = 3.0
KVM_DEVICE = Path("/dev/kvm")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

# What running the probe gave: the exit status, or None when the time limit ended it.
Runner = Callable[[tuple[str, ...], float], int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    accel: Accel
    reason: str


def choose_accel(qemu: Qemu, cache: Path, *, run: Runner | None = None, device: Path = KVM_DEVICE,
                 boot_id: Path = BOOT_ID) -> Choice:
    if not device.exists():
        return Choice(accel=Accel.TCG, reason=f"there is no {device}")
    if not os.access(device, os.R_OK | os.W_OK):
        return Choice(accel=Accel.TCG, reason=f"{device} is not open to this user; the group kvm usually has it")
    key = f"{boot_id.read_text(encoding='ascii').strip()} {qemu.program} {qemu.version[0]}.{qemu.version[1]}"
    known = _recall(cache, key)
    if known is not None:
        return known
    choice = _judge(device, run_probe(qemu, Accel.KVM, run or run_limited))
    _remember(cache, key, choice)
    return choice


def _judge(device: Path, status: int | None) -> Choice:
    if status == probe.STATUS:
        return Choice(accel=Accel.KVM, reason=f"{device} ran a 64-bit guest")
    how = f"still hung after {LIMIT_S:g} s" if status is None else f"did not get to its end (QEMU's status: {status})"
    return Choice(accel=Accel.TCG, reason=f"{device} exists but does not work: a tiny 64-bit guest {how}")


def run_probe(qemu: Qemu, accel: Accel, run: Runner) -> int | None:
    with tempfile.TemporaryDirectory(prefix="nvrc-probe-") as folder:
        firmware = Path(folder) / "probe.bin"
        firmware.write_bytes(probe.make_firmware())
        machine = Machine(firmware=firmware, memory_mib=16, devices=(probe.DEVICE,))
        return run(make_argv(machine, qemu.program, accel), LIMIT_S)


def run_limited(argv: tuple[str, ...], limit_s: float) -> int | None:
    """A QEMU that even SIGKILL cannot end at once (stuck in the kernel) is left to the kernel: nothing waits for it."""
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             start_new_session=True)
    try:
        return child.wait(limit_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if child.poll() is None:
            child.kill()
            try:
                child.wait(1.0)
            except subprocess.TimeoutExpired:
                child.returncode = -9


def _recall(cache: Path, key: str) -> Choice | None:
    try:
        known: object = json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    match known:
        case {"key": str(found), "accel": str(name), "reason": str(reason)} if found == key:
            return next((Choice(accel=accel, reason=reason) for accel in Accel if accel.value == name), None)
    return None


def _remember(cache: Path, key: str, choice: Choice) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"key": key, "accel": choice.accel.value, "reason": choice.reason}, indent=1)
    partial = cache.with_name(f"{cache.name}.{os.getpid()}")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(cache)
