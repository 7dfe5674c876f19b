# SPDX-License-Identifier: Apache-2.0
"""What NVIDIA's library says about confidential computing, in numbers that confidential.py explains. Child side."""

from __future__ import annotations

import ctypes
from types import ModuleType

from guest_cdi.lean.light import Callable, Mapping, ParamSpec, TypeVar
from guest_cdi.nvml import RefusedError, ask
from nvrc.confidential.evidence import leaf_of
from nvrc.nvml.answers import CcMemory, CcSystem, Certificate, indices
from nvrc.nvml.session import FUNCTION_NOT_FOUND, NOT_SUPPORTED, Session
from nvrc.nvml.worker import Value

P = ParamSpec("P")
T = TypeVar("T")

NOT_TOLD = -1
# Hardware, or a driver, without the feature. Everything else that is refused stays unknown, and ends the boot.
_WITHOUT = frozenset({NOT_SUPPORTED, FUNCTION_NOT_FOUND})


def read_mode(session: Session, given: Mapping[str, Value]) -> dict[str, Value]:
    """`system` is null where there is no confidential computing at all, and then GPUs are not asked for it."""
    nvml = session.library
    system = _read_system(nvml)
    if system is None:
        return {"system": None, "gpus": []}
    return {"system": system, "gpus": [_read_memory(session, index) for index in indices(given["gpus"])]}


def read_certificates(session: Session, given: Mapping[str, Value]) -> list[Certificate]:
    return [_read_certificate(session, index) for index in indices(given["gpus"])]


def _read_certificate(session: Session, index: int) -> Certificate:
    told = ask(session.library.nvmlDeviceGetConfComputeGpuCertificate, session.device(index))
    return Certificate(index, leaf_of(bytes(told.attestationCertChain[:told.attestationCertChainSize])))


def _read_system(nvml: ModuleType) -> CcSystem | None:
    state = _unless_without(nvml.nvmlSystemGetConfComputeState)
    if state is None:
        return None
    capabilities = _unless_without(nvml.nvmlSystemGetConfComputeCapabilities)
    cpu, gpus = (capabilities.cpuCaps, capabilities.gpusCaps) if capabilities else (NOT_TOLD, NOT_TOLD)
    return CcSystem(state.environment, state.ccFeature, state.devToolsMode, _read_multi_gpu(nvml), cpu, gpus)


def _read_multi_gpu(nvml: ModuleType) -> int:
    """Drivers before 550 do not know the question: there is no such mode with them."""
    settings = nvml.c_nvmlSystemConfComputeSettings_v1_t()

    def nvmlSystemGetConfComputeSettings() -> int:  # noqa: N802 - the name goes into the message
        # nvidia-ml-py hands out the return code here instead of raising, and does not take the address.
        code = nvml.nvmlSystemGetConfComputeSettings(ctypes.byref(settings))
        if code != nvml.NVML_SUCCESS:
            raise nvml.NVMLError(code)
        return int(settings.multiGpuMode)

    told = _unless_without(nvmlSystemGetConfComputeSettings)
    return NOT_TOLD if told is None else told


def _read_memory(session: Session, index: int) -> CcMemory:
    memory = _unless_without(session.library.nvmlDeviceGetConfComputeMemSizeInfo, session.device(index))
    if memory is None:
        return CcMemory(index, NOT_TOLD)
    return CcMemory(index, memory.protectedMemSizeKib)


def _unless_without(call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T | None:
    try:
        return ask(call, *arguments, **named)
    except RefusedError as err:
        if err.code not in _WITHOUT:
            raise
        return None
