# SPDX-License-Identifier: Apache-2.0
"""Everything the command line can decide, typed, with what holds when it says nothing. One field per parameter."""

from __future__ import annotations

from guest_cdi.lean.light import dataclass
from nvrc.params.extension import Extension
from nvrc.params.mig import MigLayout
from nvrc.params.module_options import ModuleOption
from nvrc.params.values import (
    CcMode,
    Corruption,
    CountRule,
    FabricMode,
    GpuCount,
    LogLevel,
    ModeClaim,
    ModuleOptions,
    RailPolicy,
    ReadyRule,
    ReadyState,
    ReportTo,
    RevokeRule,
)

EVERY_GPU = GpuCount(CountRule.ALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """None means "not asked for": the hardware or the driver keeps its own."""

    log: LogLevel = LogLevel.OFF
    strict: bool = False
    report: ReportTo = ReportTo.FILE
    farewell: bool = True
    agent_pidns: bool = True
    agent_early: bool = False
    lockdown_root: bool = False
    lockdown_kexec: bool = False
    lockdown_kernel: bool | None = None

    claimed_mode: ModeClaim | None = None
    claimed_fabricmanager: bool | None = None
    claimed_fm_mode: FabricMode | None = None
    claimed_rail_policy: RailPolicy | None = None

    gpus: GpuCount = EVERY_GPU
    cc: CcMode = CcMode.ANY
    ready: ReadyRule = ReadyRule.SRS
    ready_state: ReadyState | None = None
    key_rotation_bits: int | None = None
    ready_revoke: RevokeRule = RevokeRule.NEVER
    uvm_persistence: bool = True
    uvm_options: ModuleOptions | None = None
    gpu_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    power_limit_w: int | None = None
    mig: MigLayout | None = None
    dcgm: bool = False
    verity_corruption: Corruption = Corruption.PANIC
    metrics_port: int | None = None
    status_port: int | None = None

    timeout_extensions_s: int = 5
    timeout_modules_s: int = 30
    timeout_fabric_s: int = 300
    timeout_nvlsm_s: int = 60
    timeout_persistenced_s: int = 120
    timeout_nvml_s: int = 60
    timeout_per_gpu_s: int = 10
    timeout_command_s: int = 120
    timeout_attest_s: int = 90
    timeout_boot_s: int = 600
    timeout_agent_stop_s: int = 10
    timeout_services_stop_s: int = 5
    timeout_farewell_s: int = 10
    timeout_host_end_s: int = 2

    # Parameters that are somebody else's as well: the runtime writes them, and the kernel or the agent reads them too.
    extensions: tuple[Extension, ...] = ()
    cgroup_v2: bool = False
    agent_has_config: bool = False
    module_options: tuple[ModuleOption, ...] = ()

    @property
    def is_attested(self) -> bool:
        """Whether the ready state, and every GPU, is held back until evidence was accepted."""
        return self.ready is ReadyRule.ATTESTED

    @property
    def ready_rule(self) -> ReadyRule:
        """`ready` with the answer of `nvrc.smi.srs` filled in; never SRS."""
        if self.ready is not ReadyRule.SRS:
            return self.ready
        return ReadyRule.VERIFIED if self.ready_state is ReadyState.READY else ReadyRule.NEVER
