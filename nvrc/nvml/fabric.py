# SPDX-License-Identifier: Apache-2.0
"""What each GPU says of the NVLink fabric that it registers with. Child side.

By nvmlDeviceGetGpuFabricInfoV or by its predecessor where the driver is older. A
GPU without a fabric, and a driver that knows none of the questions, are answers, not failures.
"""

from __future__ import annotations

from ctypes import byref

from guest_cdi.lean.light import Mapping
from guest_cdi.nvml import RefusedError, ask
from nvrc.nvml.answers import FabricState, indices
from nvrc.nvml.session import FUNCTION_NOT_FOUND, INVALID_ARGUMENT, NOT_SUPPORTED, Session
from nvrc.nvml.worker import Value

ARGUMENT_VERSION_MISMATCH = 25


def read_states(session: Session, given: Mapping[str, Value]) -> list[FabricState]:
    return [_read(session, index) for index in indices(given["gpus"])]


def _read(session: Session, index: int) -> FabricState:
    library, device = session.library, session.device(index)
    for question, answer in ((library.nvmlDeviceGetGpuFabricInfoV, library.c_nvmlGpuFabricInfo_v2_t),
                             (library.nvmlDeviceGetGpuFabricInfo, library.c_nvmlGpuFabricInfo_t)):
        info = answer()
        try:
            ask(question, device, byref(info))
        except RefusedError as err:
            if err.code == NOT_SUPPORTED:
                return FabricState(index, 0, 0, 0, "")
            if err.code not in (FUNCTION_NOT_FOUND, ARGUMENT_VERSION_MISMATCH, INVALID_ARGUMENT):
                raise
        else:
            return FabricState(index, info.state, info.status, info.cliqueId, bytes(info.clusterUuid).hex())
    return FabricState(index, -1, 0, 0, "")
