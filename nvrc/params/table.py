# SPDX-License-Identifier: Apache-2.0
"""THE table of kernel parameters: one row each, and nothing else knows a name.

The parser, the checker, the policy, the hints, `nvrc params` and docs/kernel-parameters.md all read these rows. A
default is not repeated here: it is the default of the row's field in Settings.
"""

from __future__ import annotations

from guest_cdi.lean.light import Enum, NamedTuple
from nvrc.params import values
from nvrc.params.extension import VERITY
from nvrc.params.mig import LAYOUT
from nvrc.params.settings import Settings
from nvrc.params.values import (
    BOOLEAN,
    GPU_COUNT,
    MODULE_OPTIONS,
    Kind,
    ModeClaim,
    ReadyState,
    Value,
    choice,
    number,
    read_number,
    text,
)
from nvrc.vocabulary.errors import NvrcError

# Stands in a name for the part that the command line chooses.
WILD = "<name>"
DEFAULTS = Settings()


class Sensitivity(Enum):
    """What a hostile value could do at worst; the measure for deciding what a policy should bound."""

    DIAGNOSTIC = "diagnostic"
    AVAILABILITY = "availability"
    TRUST = "trust"


DIAGNOSTIC, AVAILABILITY, TRUST = Sensitivity


class Param(NamedTuple):
    """`step`: who reads it, steps and other parts of PID 1 by name, as a test finds them in the sources."""

    name: str
    field: str
    kind: Kind
    step: str
    sensitivity: Sensitivity
    help: str
    more: str = ""
    aliases: tuple[str, ...] = ()
    since: str = "0.1"

    @property
    def readers(self) -> tuple[str, ...]:
        return tuple(self.step.split(", "))

    @property
    def is_pattern(self) -> bool:
        return WILD in self.name

    @property
    def ends(self) -> tuple[str, str]:
        """What a pattern's name has before and after the part that the command line chooses."""
        head, _, tail = self.name.partition(WILD)
        return head, tail

    @property
    def default(self) -> Value:
        value: Value = None if self.is_pattern else getattr(DEFAULTS, self.field)
        return value


_LOG = choice(values.LogLevel, {"": values.LogLevel.OFF, "0": values.LogLevel.OFF}, hide=("0",))
_MODE = choice(ModeClaim, {"nvswitch-nvl4": ModeClaim.SERVICE_NVL4, "nvswitch-nvl5": ModeClaim.SERVICE_NVL5},
               hide=("nvswitch-nvl4", "nvswitch-nvl5"))
_READY = choice(ReadyState, {"enabled": ReadyState.READY, "disabled": ReadyState.NOT_READY})
_SECONDS = number(1, 3600, "seconds")
_PORT = Kind("port, 1 to 65535", lambda given: read_number(given, 1, 65535), is_number=True)
_GPU_CLOCK, _MEMORY_CLOCK, _POWER = number(1, 10_000, "MHz"), number(1, 50_000, "MHz"), number(1, 10_000, "watts")
_CLAIM = ("A claim to compare with the machine, never an override: a mismatch is a warning, and ends the boot with "
          "nvrc.strict=on.")

PARAMS: tuple[Param, ...] = (
    # How the init itself behaves
    Param("nvrc.log", "log", _LOG, "boot", DIAGNOSTIC,
          "Lowest level of messages that reach the console",
          "Empty and 0 mean off. Changes what is printed, never what happens: step lines, warnings about the command "
          "line and the verdict are printed at any level. trace also tells which modules PID 1 loaded. The kernel's "
          "rate limit on messages from user space is lifted at every level."),
    Param("nvrc.strict", "strict", BOOLEAN, "parameters, topology, ready-state, supervise", AVAILABILITY,
          "Refuse what would otherwise be a warning",
          "With it the boot ends on everything for which 'nvrc params check' exits 1, on a claim that does not match, "
          "a TEE that does not say whether it has initdata, a ready state that is unavailable, and a helper such as "
          "DCGM that does not come up; and the VM ends with a daemon that its GPUs depend on. Old names are "
          "accepted."),
    Param("nvrc.report", "report", choice(values.ReportTo), "verdict", DIAGNOSTIC,
          "Where the boot report goes besides /run/nvrc/boot.json",
          "console prints it after the verdict as well, in lines that nvrc report joins, for hosts that cannot see "
          "into the guest. "
          "It names GPUs by UUID and shows the parameters: leave it at file where the host must not know them."),
    Param("nvrc.farewell", "farewell", BOOLEAN, "ending", DIAGNOSTIC,
          "Tell the runtime why there is no agent, and containers why the VM ends",
          "A boot that fails answers the runtime in the agent's place, with the console's verdict, which becomes the "
          "event of the pod. A later failure that PID 1 decides itself goes into termination messages that are still "
          "empty. See pod-events.md. Neither tells the host more than the console does."),
    Param("nvrc.agent.pidns", "agent_pidns", BOOLEAN, "parameters, agent, supervise", AVAILABILITY,
          "Run the agent as PID 1 of a PID namespace of its own",
          "kata-agent mounts, chooses its cgroup driver and powers off by asking whether it is PID 1. off starts it as "
          "an ordinary child, for agents that do not ask."),
    Param("nvrc.agent.early", "agent_early", BOOLEAN, "parameters", TRUST,
          "Start the agent while the GPUs attach",
          "Sandbox, images and containers without GPUs come meanwhile; a container with GPUs starts when PID 1 has "
          "them all, see gpu-bring-up.md. No effect in a TEE, where a confidential mode or attestation is asked for, "
          "with nvrc.mig, with nvrc.gpus=min:N and on cgroup v1."),
    Param("nvrc.lockdown.root", "lockdown_root", BOOLEAN, "lock-modules", TRUST,
          "Remount an initramfs root read-only before the agent starts",
          "A root from a verified disk is read-only already. Leave it off where the agent creates mount points on the "
          "root."),
    Param("nvrc.lockdown.kexec", "lockdown_kexec", BOOLEAN, "lock-modules", TRUST,
          "End the boot if loading another kernel with kexec cannot be forbidden",
          "Every boot writes kernel.kexec_load_disabled where the kernel has it, and nothing can undo that. With on, a "
          "kernel without that switch ends the boot."),
    Param("nvrc.lockdown.kernel", "lockdown_kernel", BOOLEAN, "lock-modules", TRUST,
          "Keep programs out of the kernel's memory and of the registers of devices, root's included",
          "It is the kernel's own lockdown, at integrity. Not given, it is in force where the kernel has it; on ends "
          "the boot of a kernel without it; off is for pods whose programs drive devices by files of /sys, without "
          "VFIO. See hardening.md."),
    # What the author believes about the machine
    Param("nvrc.mode", "claimed_mode", _MODE, "topology", AVAILABILITY,
          "The kind of machine this is expected to be",
          "gpu covers every machine with GPUs, with or without switches. The old values nvswitch-nvl4 and "
          f"nvswitch-nvl5 mean servicevm-nvl4 and servicevm-nvl5. {_CLAIM}"),
    Param("nvrc.fabricmanager", "claimed_fabricmanager", BOOLEAN, "topology", AVAILABILITY,
          "Whether a fabric manager is expected to run in this VM", _CLAIM),
    Param("nvrc.fm.mode", "claimed_fm_mode", choice(values.FabricMode), "topology", AVAILABILITY,
          "The fabric mode that is expected: 0 GPUs and switches, 1 switches only (service VM)", _CLAIM),
    Param("nvrc.fm.rail.policy", "claimed_rail_policy", choice(values.RailPolicy), "topology", AVAILABILITY,
          "The partition rail policy that is expected: greedy on NVL4, symmetric on NVL5", _CLAIM),
    Param("nvrc.gpus", "gpus", GPU_COUNT,
          "parameters, topology, modules, persistenced, gpu-settings, fabric-check, cdi, ready-state", TRUST,
          "How many GPUs must come up, or the boot ends",
          "all: every GPU on the PCI bus. N: exactly N on the bus, all up. min:N: at least N up, each that is not is "
          "left out of the CDI document with a warning. 0 to 128. A GPU is up when the driver lists it, "
          "nvidia-persistenced has attached it, NVIDIA's library answers for it and it has its device node."),
    Param("nvrc.cc", "cc", choice(values.CcMode), "parameters, cc-check", TRUST,
          "The confidential mode that every GPU must be in, or the boot ends",
          "any accepts what all GPUs agree on. Developer tools mode and a mode that cannot be read never count as on."),
    # What is done to the GPUs
    Param("nvrc.ready", "ready", choice(values.ReadyRule), "parameters, ready-state, attest", TRUST,
          "When PID 1 tells confidential GPUs to accept work",
          "srs follows nvrc.smi.srs: verified when that is 1, never otherwise. never leaves it to attestation, "
          "whatever nvrc.smi.srs says. verified: after count, mode and attach were checked. attested: after that, when "
          "evidence of exactly these GPUs was accepted; until then no container gets one. always: unchecked."),
    Param("nvrc.cc.key_rotation", "key_rotation_bits", number(50, 65, "bits"), "ready-state", TRUST,
          "Have confidential GPUs change their session keys at this advantage of an attacker",
          "Set before the ready state, as the driver refuses it afterwards, and read back. Without confidential mode "
          "it is a note in the report."),
    Param("nvrc.smi.srs", "ready_state", _READY, "parameters, ready-state", TRUST,
          "Ask for the GPU ready state: 1 ready, 0 not ready",
          "Without confidential mode there is no such state, and the request is a note in the report.",
          aliases=("nvrc.nvidia_smi_srs",)),
    Param("nvrc.ready.revoke", "ready_revoke", choice(values.RevokeRule), "supervise", TRUST,
          "What takes the ready state of confidential GPUs back while the machine runs",
          "gpu-lost: a GPU fell off the bus. fabric-lost: fabric manager or subnet manager ended. any: these, a fault "
          "of a GPU, and every other daemon that GPUs depend on. The driver then refuses new work, running work goes "
          "on, and nothing sets the state again: the VM has to be replaced."),
    Param("nvrc.uvm.persistence.mode", "uvm_persistence", BOOLEAN, "persistenced", AVAILABILITY,
          "Keep the unified memory driver initialised between clients", aliases=("nvrc.uvm_persistence_mode",)),
    Param("nvrc.uvm.options", "uvm_options", MODULE_OPTIONS, "modules", TRUST,
          "Options for the nvidia-uvm module",
          "Names and values hold letters, digits and _; values also . : + -"),
    Param("nvrc.smi.lgc", "gpu_clock_mhz", _GPU_CLOCK, "gpu-settings", AVAILABILITY,
          "Lock the graphics clock of all GPUs", aliases=("nvrc.nvidia_smi_lgc",)),
    Param("nvrc.smi.lmc", "memory_clock_mhz", _MEMORY_CLOCK, "gpu-settings", AVAILABILITY,
          "Lock the memory clock of all GPUs", aliases=("nvrc.smi.lmcd",)),
    Param("nvrc.smi.pl", "power_limit_w", _POWER, "gpu-settings", AVAILABILITY,
          "Set the power limit of all GPUs"),
    Param("nvrc.mig", "mig", LAYOUT, "parameters, gpu-settings", AVAILABILITY,
          "Cut GPUs into MIG instances",
          "all:1g.10gb*7 cuts every GPU into seven; 0:3g.40gb,4g.40gb;1:off cuts GPU 0 in two and switches MIG off on "
          "GPU 1; 0-3:2g.20gb*3 names a range. A number beats all. Profiles are named as the driver names them."),
    Param("nvrc.dcgm", "dcgm", BOOLEAN, "parameters, dcgm", AVAILABILITY,
          "Start the DCGM host engine and exporter where the image has them"),
    Param("nvrc.verity.corruption", "verity_corruption", choice(values.Corruption), "extensions", TRUST,
          "What the kernel does when an extension image fails verification after it was mounted",
          "panic ends the VM, restart reboots it, io-error lets the reading program fail and the VM run on."),
    # What others are told while the machine runs
    Param("nvrc.metrics", "metrics_port", _PORT,
          "parameters, device-nodes, gpu-settings, agent, verdict, supervise", TRUST,
          "Serve metrics of this VM on a TCP port of the pod's address",
          "A process of its own is started when the machine is ready, see metrics.md. All containers of the pod and "
          "all programs that reach its address can read them: they name GPUs by UUID and serial number. With nvrc.dcgm "
          "not 9400, which is dcgm-exporter's."),
    Param("nvrc.status.vsock", "status_port", _PORT, "agent", TRUST,
          "Answer the host with the live status on a vsock port",
          "nvrc status --vm on the host reads it: verdict, services, GPUs with UUID, warnings. Read-only, for the host "
          "alone. Not the agent's port, 1024."),
    # Deadlines
    Param("nvrc.timeout.extensions", "timeout_extensions_s", _SECONDS, "extensions", AVAILABILITY,
          "Wait for the disks of extensions that the command line names"),
    Param("nvrc.timeout.modules", "timeout_modules_s", _SECONDS, "modules", AVAILABILITY,
          "Wait for the driver to list every GPU after its modules are in"),
    Param("nvrc.timeout.fabric", "timeout_fabric_s", _SECONDS, "fabric, fabric-check", AVAILABILITY,
          "Wait for the fabric manager, and after the attach for the GPUs to register with the fabric"),
    Param("nvrc.timeout.nvlsm", "timeout_nvlsm_s", _SECONDS, "fabric", AVAILABILITY,
          "Wait for the subnet manager of NVL5 machines"),
    Param("nvrc.timeout.persistenced", "timeout_persistenced_s", _SECONDS, "persistenced", AVAILABILITY,
          "Wait for the next GPU to attach", "Starts over with every GPU that attaches; see nvrc.timeout.per_gpu."),
    Param("nvrc.timeout.nvml", "timeout_nvml_s", _SECONDS,
          "promise, gpu-settings, cc-check, fabric-check, links, cdi, ready-state, attest, supervise", AVAILABILITY,
          "Wait for the worker that calls NVIDIA's library",
          "Holds for each of gpu-settings, cc-check, cdi and ready-state."),
    Param("nvrc.timeout.per_gpu", "timeout_per_gpu_s", number(0, 3600, "seconds"),
          "modules, promise, fabric, persistenced, gpu-settings, cc-check, fabric-check, links, cdi, ready-state, "
          "attest, supervise", AVAILABILITY,
          "Added for each GPU to the deadlines of modules, fabric, persistenced and nvml"),
    Param("nvrc.timeout.command", "timeout_command_s", _SECONDS, "extensions, modules, lock-modules, dcgm",
          AVAILABILITY,
          "Wait for a program that a step runs to its end"),
    Param("nvrc.timeout.attest", "timeout_attest_s", _SECONDS, "attest", AVAILABILITY,
          "Wait until evidence of the GPUs was accepted, with nvrc.ready=attested",
          "The agent waits for as long as agent.cdi_timeout says before it gives a container up that asks for a GPU."),
    Param("nvrc.timeout.boot", "timeout_boot_s", _SECONDS, "boot, promise", DIAGNOSTIC,
          "Warn when the whole boot takes longer",
          "The host gives up by itself later; this line says who was slow. With nvrc.agent.early the VM ends when the "
          "GPUs are not up that long after they were promised to containers, which wait for them."),
    Param("nvrc.timeout.agent_stop", "timeout_agent_stop_s", _SECONDS, "supervise", AVAILABILITY,
          "Wait for the agent when the VM is told to stop, before it is killed"),
    Param("nvrc.timeout.services_stop", "timeout_services_stop_s", _SECONDS, "supervise, ending", AVAILABILITY,
          "Wait for the daemons when the VM is told to stop, before they are killed"),
    Param("nvrc.timeout.farewell", "timeout_farewell_s", number(0, 3600, "seconds"), "ending", AVAILABILITY,
          "Wait for the runtime to ask, when a boot has failed", "0 does not wait, as nvrc.farewell=off."),
    Param("nvrc.timeout.host_end", "timeout_host_end_s", number(0, 60, "seconds"), "ending", AVAILABILITY,
          "Leave the host time to end the VM, when the agent has powered off",
          "Kata's runtime ends QEMU itself once the sandbox is destroyed, and its clean-up fails when the VM was "
          "quicker. A host that only waits for the VM pays the whole time; a stop signal cuts it short. 0 powers off "
          "at once."),
    # Written by the runtime
    Param(f"kata.extension.{WILD}.verity_params", "extensions", VERITY, "parameters, extensions, agent", TRUST,
          "The dm-verity items of an extension image; without them it is never mounted",
          "All five items are needed; root_hash and salt are hexadecimal. The name is that of the disk serial "
          "extension-<name>. The same name with different items ends the boot, and so does a bare key."),
)

_OURS, _EXTENSION = "nvrc", "kata.extension."
_BY_NAME = {name: row for row in PARAMS if not row.is_pattern for name in (row.name, *row.aliases)}
_PATTERNS = tuple(row for row in PARAMS if row.is_pattern)
_BY_FIELD: dict[str, Param] = {}
for _row in PARAMS:
    if not hasattr(DEFAULTS, _row.field):
        raise NvrcError("E_INTERNAL", f"the row {_row.name} has no field {_row.field} in nvrc/params/settings.py",
                        "add the field with its default")
    _BY_FIELD[_row.field] = _row


def find(key: str) -> Param | None:
    """The row that a key belongs to, under its own name, an old one, or by pattern."""
    return _BY_NAME.get(key) or next((row for row in _PATTERNS if _fits(key, *row.ends)), None)


def row_of(field: str) -> Param:
    """The row of a field of Settings: whoever prints a parameter has its name and unit from here."""
    return _BY_FIELD[field]


def asked(field: str, value: Value) -> str:
    """`nvrc.gpus=min:2`, as it would be on the line."""
    return f"{row_of(field).name}={text(value)}"


def is_ours(key: str) -> bool:
    """Whether a name lies where only this program reads, known or not."""
    lowered = key.lower()
    after = lowered[len(_OURS):len(_OURS) + 1]
    return lowered.startswith(_EXTENSION) or (lowered.startswith(_OURS) and not after.isalnum())


def wild_part(row: Param, key: str) -> str:
    """What stands in the place of `<name>`."""
    head, tail = row.ends
    return key[len(head):len(key) - len(tail)]


def _fits(key: str, head: str, tail: str) -> bool:
    return key.startswith(head) and key.endswith(tail) and len(key) >= len(head) + len(tail)
