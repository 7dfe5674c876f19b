# SPDX-License-Identifier: Apache-2.0
"""Clocks and power of every GPU, set through NVIDIA's library and read back. Child side.

NVML tells the power limit exactly. Of a locked clock it tells only the clock that runs now, which follows the lock at
once on some GPUs and at the next load on others; so a clock is reported as read and never judged by it.
"""

from __future__ import annotations

from types import ModuleType

from guest_cdi.lean.light import Callable, Mapping
from guest_cdi.nvml import RefusedError, ask
from nvrc.nvml.answers import Applied, indices
from nvrc.nvml.session import FUNCTION_NOT_FOUND, INVALID_ARGUMENT, NOT_SUPPORTED, Handle, Session
from nvrc.nvml.worker import Value

_SILENT = frozenset({NOT_SUPPORTED, FUNCTION_NOT_FOUND})
NOT_TOLD = -1


class _UnfitError(Exception):
    """A value that the GPU does not take; the message has the range."""


def apply_settings(session: Session, given: Mapping[str, Value]) -> list[Applied]:
    """Every setting that is given, on every GPU of `gpus`; a failure of one does not keep the others from theirs."""
    return [_apply(session, index, name, value) for index in indices(given["gpus"])
            for name in SETTINGS if type(value := given.get(name)) is int]


def _apply(session: Session, index: int, name: str, value: int) -> Applied:
    try:
        return Applied(index, name, value, SETTINGS[name](session.library, session.device(index), value), "")
    except RefusedError as err:
        return Applied(index, name, value, NOT_TOLD, f"{err}; {err.remedy}" if err.remedy else str(err))
    except _UnfitError as err:
        return Applied(index, name, value, NOT_TOLD, str(err))


def _lock_memory_clock(nvml: ModuleType, device: Handle, mhz: int) -> int:
    def supported() -> list[int]:
        return ask(nvml.nvmlDeviceGetSupportedMemoryClocks, device)

    _lock(nvml.nvmlDeviceSetMemoryLockedClocks, device, mhz, supported)
    return _read_clock(nvml, device, nvml.NVML_CLOCK_MEM)


def _lock_graphics_clock(nvml: ModuleType, device: Handle, mhz: int) -> int:
    def supported() -> list[int]:
        memory = ask(nvml.nvmlDeviceGetSupportedMemoryClocks, device)
        return ask(nvml.nvmlDeviceGetSupportedGraphicsClocks, device, max(memory))

    _lock(nvml.nvmlDeviceSetGpuLockedClocks, device, mhz, supported)
    return _read_clock(nvml, device, nvml.NVML_CLOCK_GRAPHICS)


def _lock(call: Callable[[Handle, int, int], None], device: Handle, mhz: int,
          supported: Callable[[], list[int]]) -> None:
    try:
        ask(call, device, mhz, mhz)
    except RefusedError as err:
        if err.code != INVALID_ARGUMENT:
            raise
        clocks = supported()
        raise _UnfitError(f"{err}: the GPU has {min(clocks)} to {max(clocks)} MHz") from err


def _read_clock(nvml: ModuleType, device: Handle, clock: int) -> int:
    try:
        mhz: int = ask(nvml.nvmlDeviceGetClockInfo, device, clock)
    except RefusedError as err:
        if err.code not in _SILENT:
            raise
        return NOT_TOLD
    return mhz


def _limit_power(nvml: ModuleType, device: Handle, watts: int) -> int:
    low_mw, high_mw = ask(nvml.nvmlDeviceGetPowerManagementLimitConstraints, device)
    if not low_mw <= watts * 1000 <= high_mw:
        raise _UnfitError(f"{watts} W is not within the {-(-low_mw // 1000)} to {high_mw // 1000} W of this GPU")
    ask(nvml.nvmlDeviceSetPowerManagementLimit, device, watts * 1000)
    got_mw: int = ask(nvml.nvmlDeviceGetPowerManagementLimit, device)
    if got_mw != watts * 1000:
        raise _UnfitError(f"set to {watts} W, but nvmlDeviceGetPowerManagementLimit says {got_mw / 1000:g} W")
    return got_mw // 1000


# By field of Settings, in the order in which they are set.
SETTINGS: Mapping[str, Callable[[ModuleType, Handle, int], int]] = {
    "memory_clock_mhz": _lock_memory_clock,
    "gpu_clock_mhz": _lock_graphics_clock,
    "power_limit_w": _limit_power,
}
