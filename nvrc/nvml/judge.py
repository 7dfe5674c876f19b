# SPDX-License-Identifier: Apache-2.0
"""Which confidential mode the machine is in, from NVML's numbers, and whether that is the one that was demanded.

NVML tells the mode for the whole machine only. Evidence of a single GPU is its memory: the driver puts all of it under
protection when that GPU came up confidential, and none otherwise. A number without a known meaning, a GPU that does not
say, and GPUs that differ are errors: none of them is ever taken for on, nor for off. Numbers are those of nvml.h.
"""

from __future__ import annotations

from guest_cdi.lean.light import Enum, NamedTuple, Sequence
from nvrc.nvml.answers import CcMemory, CcSystem
from nvrc.params.table import asked
from nvrc.params.values import CcMode
from nvrc.vocabulary.errors import NvrcError

NOT_TOLD = -1
_ENVIRONMENTS = {0: "unavailable", 1: "simulation", 2: "production"}
_SWITCH = {0: "off", 1: "on"}
_MULTI_GPU = {NOT_TOLD: "none", 0: "none", 1: "protected PCIe", 2: "NVLink encryption"}
# For the report only: what the host's CPU is, the CPU's own attestation has to tell.
_CPUS = {NOT_TOLD: "not told", 0: "none", 1: "SEV", 2: "TDX", 3: "SEV-SNP", 4: "SEV-SNP with vTOM"}
_CAPABLE = {NOT_TOLD: "not told", 0: "not capable", 1: "capable"}
SIMULATION, PRODUCTION = 1, 2
PROTECTED_PCIE, NVLINK_ENCRYPTION = 1, 2
INCAPABLE = 0


class Mode(Enum):
    OFF = "off"
    ON = "on"
    PPCIE = "ppcie"
    DEVTOOLS = "devtools"

    @property
    def is_trusted(self) -> bool:
        """Whether work may rely on it."""
        return self in (Mode.ON, Mode.PPCIE)


class Confidential(NamedTuple):
    """The mode that all GPUs agree on; `why` says what it was read from."""

    mode: Mode
    why: str


def judge(system: CcSystem | None, gpus: Sequence[CcMemory], labels: dict[int, str], wanted: CcMode) -> Confidential:
    found = read_mode(system, gpus, labels)
    check_demand(found, wanted)
    return found


def read_mode(system: CcSystem | None, gpus: Sequence[CcMemory], labels: dict[int, str]) -> Confidential:
    if system is None:
        return Confidential(Mode.OFF, "NVML: not supported on this machine")
    _check_known(system)
    mode = _decide(system)
    _check_gpus(mode, gpus, labels)
    return Confidential(mode, _text(system))


def check_demand(found: Confidential, wanted: CcMode) -> None:
    if wanted is CcMode.ANY or wanted.value == found.mode.value:
        return
    what = f"{asked('cc', wanted)}, but the GPUs are in mode {found.mode.value} ({found.why})"
    is_feigned = found.mode is Mode.DEVTOOLS and wanted is not CcMode.OFF
    raise NvrcError("E_CC_DEVTOOLS" if is_feigned else "E_CC_MISMATCH", what)


def _check_known(system: CcSystem) -> None:
    known = (("environment", system.environment, _ENVIRONMENTS), ("ccFeature", system.feature, _SWITCH),
             ("devToolsMode", system.devtools, _SWITCH), ("multiGpuMode", system.multi_gpu, _MULTI_GPU),
             ("gpusCaps", system.gpus, _CAPABLE))
    strange = [f"{name} {value}" for name, value, meanings in known if value not in meanings]
    if strange:
        raise NvrcError("E_CC_UNKNOWN", f"NVML reports {', '.join(strange)}, values that this program does not know")


def _decide(system: CcSystem) -> Mode:
    """Developer tools first: the driver reports the feature as on together with them."""
    if system.devtools:
        return Mode.DEVTOOLS
    _check_contradictions(system)
    if system.multi_gpu == PROTECTED_PCIE:
        # Drivers differ in whether the feature counts as on as well; verifiers accept both.
        return Mode.PPCIE
    return Mode.ON if system.feature else Mode.OFF


def _check_contradictions(system: CcSystem) -> None:
    """Protection that is claimed needs hardware that can do it, and no simulation of it."""
    is_claimed = bool(system.feature) or system.multi_gpu in (PROTECTED_PCIE, NVLINK_ENCRYPTION)
    is_unreal = system.environment == SIMULATION or (system.feature and system.environment != PRODUCTION)
    is_partial = system.multi_gpu == NVLINK_ENCRYPTION and not system.feature
    if is_claimed and (is_unreal or is_partial or system.gpus == INCAPABLE):
        raise NvrcError("E_CC_UNKNOWN", f"NVML contradicts itself: {_text(system)}, GPUs {_CAPABLE[system.gpus]}")


def _check_gpus(mode: Mode, gpus: Sequence[CcMemory], labels: dict[int, str]) -> None:
    odd = [f"{labels[gpu.number]}: {gpu.protected_kib} KiB" for gpu in gpus if gpu.protected_kib < NOT_TOLD]
    if odd:
        raise NvrcError("E_CC_UNKNOWN", f"NVML reports a size of memory that cannot be: {', '.join(odd)}")
    silent = [labels[gpu.number] for gpu in gpus if gpu.protected_kib == NOT_TOLD]
    if silent and mode is not Mode.OFF:
        raise NvrcError("E_CC_UNKNOWN", f"mode {mode.value}, but NVML does not report protected memory on "
                                        f"{', '.join(silent)}")
    guarded = [labels[gpu.number] for gpu in gpus if gpu.protected_kib > 0]
    open_ = [labels[gpu.number] for gpu in gpus if gpu.protected_kib == 0]
    _check_agreement(mode, guarded, open_)


def _check_agreement(mode: Mode, guarded: Sequence[str], open_: Sequence[str]) -> None:
    """`guarded`: GPUs whose memory is protected; `open_`: those where none is."""
    if guarded and open_:
        raise NvrcError("E_CC_DISAGREE", f"memory is protected on {', '.join(guarded)} and not on {', '.join(open_)}")
    if mode is Mode.ON and open_:
        raise NvrcError("E_CC_DISAGREE", f"NVML reports confidential mode, but no memory of it on {', '.join(open_)}")
    if mode is Mode.OFF and guarded:
        raise NvrcError("E_CC_DISAGREE", f"NVML reports no confidential mode, but memory is protected on "
                                         f"{', '.join(guarded)}")


def _text(system: CcSystem) -> str:
    return (f"NVML: environment {_ENVIRONMENTS[system.environment]}, feature {_SWITCH[system.feature]}, "
            f"developer tools {_SWITCH[system.devtools]}, multi-GPU {_MULTI_GPU[system.multi_gpu]}, "
            f"CPU {_CPUS.get(system.cpu, system.cpu)}")
