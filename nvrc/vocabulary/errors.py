# SPDX-License-Identifier: Apache-2.0
"""The codes a failure can carry, one row each, and the one exception of the boot path.

A code is an interface: it appears in the verdict line, in the report and in pod events, and is never reused.
docs/failure-codes.md is generated from this table.
"""

from __future__ import annotations

from guest_cdi.lean.coded import AUTHOR, HOST, PLATFORM, VENDOR, CodedError, FailureCode
from guest_cdi.lean.light import TYPE_CHECKING, cast
from nvrc.vocabulary.trouble import Trouble

# The row and the words for who acts are shared with guest_cdi's codes; nvrc takes them from here.
__all__ = ("AUTHOR", "BY_CODE", "CDI_PREFIX", "CODES", "HOST", "PLATFORM", "VENDOR", "FailureCode", "NvrcError",
           "find_code", "known_code", "make_trouble")

if TYPE_CHECKING:
    from typing import Literal

    from guest_cdi.lean.errors import CdiCode

    # What may be raised: one name a row, so that a code that has none is found before it is run.
    Code = Literal[
        "E_INTERNAL", "E_INITRD", "E_INIT_EXEC", "E_STEP_DEADLINE", "E_MOUNT", "E_RUN_FULL", "E_JOURNAL", "E_HARDENING",
        "E_PARAMETERS", "E_POLICY", "E_INITDATA", "E_INITDATA_BINDING", "E_IDENTITY", "E_LOOPBACK",
        "E_TOPOLOGY", "E_PCI_READ", "E_MODE_MISMATCH", "E_NVML_LIBRARY", "E_NVML", "E_GPU_NVML", "E_GPU_COUNT",
        "E_GPU_IDENTITY", "E_GPU_SETTING", "E_MIG", "E_CC_UNKNOWN", "E_CC_DEVTOOLS", "E_CC_MISMATCH",
        "E_CC_DISAGREE", "E_CC_SWITCH", "E_READY_STATE", "E_KEY_ROTATION", "E_ATTEST_UNREACHABLE",
        "E_ATTEST_TIMEOUT", "E_ATTEST_REFUSED", "E_ATTEST_EVIDENCE", "E_NVML_CRASH", "E_NVML_HANG",
        "E_NVML_DOCUMENT", "E_EXTENSION_DEVICE", "E_EXTENSION_PARAMS", "E_EXTENSION_LAYOUT", "E_VERITY",
        "E_EXTENSION_MOUNT", "E_EXTENSION_LIBS", "E_MODULE_TREE", "E_MODULE_CONFIG", "E_MODULE_MISSING",
        "E_MODULE_COMPRESSION", "E_MODULE_SIGNATURE", "E_MODULE_VERSION", "E_MODULE_SYMBOL", "E_MODULE_DEVICE",
        "E_MODULE_OPTIONS", "E_MODULE_LOAD", "E_GPU_PROBE", "E_DEVICE_NODES", "E_LOCK_MODULES", "E_TEE_DRIVER",
        "E_NIC_VPD", "E_NIC_DRIVER", "E_NIC_NAME", "E_NIC_NODE", "E_NIC_GID", "E_AGENT_MISSING", "E_CGROUP",
        "E_AGENT_EXEC", "E_AGENT_EARLY", "E_BOOT_OVERDUE", "E_AGENT_EXIT", "E_AGENT_STOP", "E_FABRIC_CONFIG",
        "E_FABRIC_START", "E_FABRIC_STALL",
        "E_FABRIC_STATE", "E_FABRIC_CLIQUE", "E_NVLINK_COUNT", "E_TOPOLOGY_FILE", "E_NVLSM",
        "E_PERSISTENCED_START", "E_PERSISTENCED_STALL", "E_GPU_ATTACH", "E_DRIVER_VERSION", "E_DCGM",
        "E_READY_REVOKED", "E_MEMORY", "E_METRICS",
        "E_SERVICE_LOST", "E_GPU_LOST", "E_GPU_FAULT",
    ] | CdiCode

CODES: tuple[FailureCode, ...] = (
    FailureCode("E_INTERNAL", "any", "an unexpected exception inside PID 1",
                "report it with the console log; the line names file and line number", VENDOR),
    FailureCode("E_INITRD", "first", "the kernel did not unpack all of the initrd",
                "give the VM more memory: the kernel unpacks an initrd into half of it; errno 5: the root disk cannot "
                "be read", PLATFORM),
    FailureCode("E_INIT_EXEC", "first", "the first program could not execute the frozen init",
                "rebuild the image; errno 2: the image lacks the program or its loader; errno 5: the root disk cannot "
                "be read", PLATFORM),
    FailureCode("E_STEP_DEADLINE", "any", "a step did not finish within its deadline",
                "read the last console lines for what it waited for; raise the step's timeout parameter", PLATFORM),
    FailureCode("E_MOUNT", "filesystems", "a file system could not be mounted",
                "check that the kernel has the file system and that the mount point exists in the image", PLATFORM),
    FailureCode("E_RUN_FULL", "any", "nothing can be written below /run",
                "give the VM more memory, or find what filled /run", PLATFORM),
    FailureCode("E_JOURNAL", "journal", "/dev/log could not be bound or a log sysctl refused its value",
                "check that /dev is writable and nothing else in the image binds /dev/log", PLATFORM),
    FailureCode("E_HARDENING", "hardening", "a protection of the kernel is missing or refused its value",
                "remove the sysctl.* word that sets it from the command line, or correct the guest kernel", PLATFORM),
    FailureCode("E_PARAMETERS", "parameters",
                "a kernel parameter is malformed, denied by policy, or unknown under strict",
                "run 'nvrc params check' on the command line; every mistake is listed at once", AUTHOR),
    FailureCode("E_POLICY", "parameters", "the policy file baked into the image cannot be used",
                "fix /etc/nvrc/policy.toml in the image and rebuild it", PLATFORM),
    FailureCode("E_INITDATA", "parameters", "the initdata disk of the pod cannot be used",
                "run 'nvrc initdata check' on the annotation, and attach one initdata disk, as the runtime makes it",
                AUTHOR),
    FailureCode("E_INITDATA_BINDING", "parameters", "the TEE was not started with the initdata that its disk has",
                "start the VM with the digest of the initdata that is attached, as Kata's runtime does", HOST),
    FailureCode("E_IDENTITY", "identity", "host name or identity files could not be set",
                "check /etc/hostname in the image", PLATFORM),
    FailureCode("E_LOOPBACK", "loopback", "the loopback interface could not be brought up",
                "build the guest kernel with CONFIG_NET and CONFIG_INET", PLATFORM),
    FailureCode("E_TOPOLOGY", "topology", "the PCI devices match no supported machine",
                "compare the list in the message with docs/topologies.md and fix the devices passed to the VM", HOST),
    FailureCode("E_PCI_READ", "topology", "a PCI attribute could not be read",
                "check the device on the host: its config space or VPD had an I/O error", HOST),
    FailureCode("E_MODE_MISMATCH", "topology", "the machine is not the one that the command line asserts",
                "correct or drop nvrc.mode, nvrc.fabricmanager or nvrc.fm.* on the command line", AUTHOR),
    FailureCode("E_NVML_LIBRARY", "gpu-settings", "NVIDIA's management library cannot be found or loaded",
                "put libnvidia-ml.so.1 of the driver into the image or the extension", PLATFORM),
    FailureCode("E_NVML", "gpu-settings", "NVIDIA's library refused a call that concerns the whole machine",
                "check that the driver is loaded, its nodes exist and nvidia-persistenced is up", PLATFORM),
    FailureCode("E_GPU_NVML", "gpu-settings", "NVIDIA's library refused a call about a GPU that must come up",
                "read the kernel's NVRM and Xid lines of that GPU and reset it from the host", HOST),
    FailureCode("E_GPU_COUNT", "gpu-settings", "not as many GPUs came up as nvrc.gpus requires",
                "check the bus ids that the message names on the host, or correct nvrc.gpus", HOST),
    FailureCode("E_GPU_IDENTITY", "gpu-settings",
                "bus, driver, NVIDIA's library and CDI document do not describe the same GPUs",
                "use a driver and a library of one release; no GPU of this VM can be trusted before that", PLATFORM),
    FailureCode("E_GPU_SETTING", "gpu-settings", "a clock or power limit could not be set, or did not read back",
                "correct nvrc.smi.lgc, nvrc.smi.lmc or nvrc.smi.pl; the message names GPU, call and range", AUTHOR),
    FailureCode("E_MIG", "gpu-settings", "the MIG layout of the command line could not be made",
                "correct nvrc.mig; the message names the GPU, what it refused and the profiles that it has", AUTHOR),
    FailureCode("E_CC_UNKNOWN", "cc-check", "the confidential mode could not be read or has a value that is not known",
                "use a driver and a library of one version; an unknown mode is never trusted", PLATFORM),
    FailureCode("E_CC_DEVTOOLS", "cc-check", "the GPUs are in developer tools mode, which is not confidential",
                "switch the GPUs' confidential mode from devtools to on, from the host", HOST),
    FailureCode("E_CC_MISMATCH", "cc-check", "the GPUs are not in the confidential mode that nvrc.cc requires",
                "set the mode of the GPUs on the host, or correct nvrc.cc", HOST),
    FailureCode("E_CC_DISAGREE", "cc-check", "the GPUs are not all in the same confidential mode",
                "set all GPUs of the VM to one mode on the host and reset them", HOST),
    FailureCode("E_CC_SWITCH", "cc-check", "the NVSwitches do not confirm protected PCIe mode",
                "set PPCIE mode on every GPU and NVSwitch of the board on the host, reset them, and pass all of them "
                "to this VM; the image needs libnvidia-nscq of the driver's release", HOST),
    FailureCode("E_READY_STATE", "ready-state", "the ready state of confidential GPUs could not be set or read back",
                "read the kernel's NVRM lines; a state that was revoked cannot be set again before a reset", HOST),
    FailureCode("E_KEY_ROTATION", "ready-state", "the threshold of key rotation could not be set or read back",
                "use a driver with key rotation, or drop nvrc.cc.key_rotation; a GPU that is ready needs a reset",
                PLATFORM),
    FailureCode("E_ATTEST_UNREACHABLE", "attest", "no attestation agent answers, or no network leads to its broker",
                "build the image with guest components, or give the extension coco; read the agent's lines about them",
                PLATFORM),
    FailureCode("E_ATTEST_TIMEOUT", "attest", "attestation took longer than nvrc.timeout.attest",
                "check from the guest's network that the key broker answers; raise nvrc.timeout.attest", PLATFORM),
    FailureCode("E_ATTEST_REFUSED", "attest", "a verifier did not accept the evidence of this guest",
                "read the verifier's log; compare its reference values with those of this image and driver", PLATFORM),
    FailureCode("E_ATTEST_EVIDENCE", "attest", "evidence is not of exactly the GPUs of this VM",
                "use an attestation agent that supports these GPUs; reset GPUs that are missing from the host", HOST),
    FailureCode("E_NVML_CRASH", "gpu-settings", "the worker process that runs NVIDIA's library died",
                "check that the library belongs to the loaded kernel module, and report its crash to NVIDIA",
                VENDOR),
    FailureCode("E_NVML_HANG", "gpu-settings", "NVIDIA's library did not answer in time",
                "read the kernel's NVRM and Xid lines, and reset the GPU from the host", HOST),
    FailureCode("E_NVML_DOCUMENT", "cdi", "the CDI document names what containers must not be given",
                "use a driver whose files lie where the message does not complain; else report it: code in the "
                "worker with NVIDIA's library did what it must not", VENDOR),
    FailureCode("E_EXTENSION_DEVICE", "extensions",
                "an extension disk is missing, attached twice, or not named on the command line",
                "attach exactly one disk with serial extension-<name> for each extension of the command line", HOST),
    FailureCode("E_EXTENSION_PARAMS", "extensions", "an extension disk is attached that the command line does not name",
                "add kata.extension.<name>.verity_params with the five items, or detach the disk", AUTHOR),
    FailureCode("E_EXTENSION_LAYOUT", "extensions", "the content of an extension disk differs from its parameters",
                "attach the disk that the parameters were made for: partition 1 has the data, partition 2 the hash "
                "tree, both large enough", HOST),
    FailureCode("E_VERITY", "extensions", "dm-verity could not be set up over an extension, or its data do not verify",
                "use the root hash and salt that were made with this disk image; else the image is damaged", HOST),
    FailureCode("E_EXTENSION_MOUNT", "extensions", "a verified extension could not be mounted",
                "put an EROFS image into partition 1, and build the guest kernel with CONFIG_EROFS_FS", PLATFORM),
    FailureCode("E_EXTENSION_LIBS", "extensions", "the GPU extension's firmware or libraries could not be registered",
                "add /lib/firmware/nvidia, /etc/ld.so.cache and /sbin/ldconfig to the base image", PLATFORM),
    FailureCode("E_MODULE_TREE", "modules", "the indexes of a kernel module tree cannot be used",
                "run depmod for the tree when the image is built", PLATFORM),
    FailureCode("E_MODULE_CONFIG", "modules", "a file in modprobe.d cannot be read or asks for a shell command",
                "use options and softdep lines; the image has no shell for install lines", PLATFORM),
    FailureCode("E_MODULE_MISSING", "modules", "a module is neither in the kernel nor in a tree for this kernel",
                "build kernel, image and GPU extension from one set: the tree must be that of this kernel", PLATFORM),
    FailureCode("E_MODULE_COMPRESSION", "modules", "a module file cannot be unpacked",
                "ship modules uncompressed, or a kernel with CONFIG_MODULE_DECOMPRESS for this compression", PLATFORM),
    FailureCode("E_MODULE_SIGNATURE", "modules", "a module is not signed as this kernel requires",
                "sign the modules with the key built into the kernel, and do not strip or recompress them afterwards",
                PLATFORM),
    FailureCode("E_MODULE_VERSION", "modules", "a module was built for another kernel",
                "build kernel, image and GPU extension from one set", PLATFORM),
    FailureCode("E_MODULE_SYMBOL", "modules", "a module needs a symbol that is nowhere",
                "run depmod, or build all from one set: a module it needs is missing or of another version", PLATFORM),
    FailureCode("E_MODULE_DEVICE", "modules", "a driver found no device that it can drive",
                "check which devices the host passed to the VM, and that this driver version supports them", HOST),
    FailureCode("E_MODULE_OPTIONS", "modules", "a module refused its parameters",
                "check nvrc.uvm.options, <module>.<parameter> on the command line, and options in modprobe.d", AUTHOR),
    FailureCode("E_MODULE_LOAD", "modules", "a module could not be loaded",
                "read the kernel's reason in the message", PLATFORM),
    FailureCode("E_GPU_PROBE", "modules", "the driver is loaded but does not list every GPU of the bus",
                "read the kernel's NVRM lines about the missing bus ids; a GPU that stays missing needs a reset", HOST),
    FailureCode("E_DEVICE_NODES", "device-nodes", "the driver's device nodes could not be made",
                "check /dev for something else in their place; else the driver did not register what its node needs",
                PLATFORM),
    FailureCode("E_LOCK_MODULES", "lock-modules", "module loading could not be disabled",
                "build the guest kernel with CONFIG_MODULES and the modules_disabled sysctl", PLATFORM),
    FailureCode("E_TEE_DRIVER", "lock-modules", "a confidential guest has no device to prove that it is one",
                "build the image so that it serves the need that the message names, or use a kernel with the driver "
                "built in", PLATFORM),
    FailureCode("E_NIC_VPD", "nics", "a network function's VPD does not answer, so that it may manage NVLink switches",
                "check the function on the host; it is withheld from containers, and everything else goes on", HOST),
    FailureCode("E_NIC_DRIVER", "nics", "a network function is not driven by mlx5_core",
                "build the image so that it serves the need rdma, or use a kernel with mlx5 built in; else read the "
                "kernel's mlx5_core lines", PLATFORM),
    FailureCode("E_NIC_NAME", "nics", "two network functions have one name",
                "check which functions the host passed to the VM; both are withheld from containers", HOST),
    FailureCode("E_NIC_NODE", "nics", "the device node of a network function's verbs is missing or something else",
                "make /dev a devtmpfs, and find what makes device nodes in this image", PLATFORM),
    FailureCode("E_NIC_GID", "nics", "an RDMA device has no GID, so that no connection can be made by it",
                "set the MAC address (RoCE) or the GUID (InfiniBand) of the virtual function on the host before it is "
                "bound to vfio-pci; check that the port is up", HOST),
    FailureCode("E_AGENT_MISSING", "identity", "the agent is not in the image or is not executable",
                "put an executable kata-agent at /usr/bin/kata-agent", PLATFORM),
    FailureCode("E_CGROUP", "agent", "the agent would mount cgroups that the kernel does not have",
                "add cgroup_no_v1=all to kernel_params", PLATFORM),
    FailureCode("E_AGENT_EXEC", "agent", "the agent could not be started",
                "check architecture and loader of the binary; the message carries the kernel's reason", PLATFORM),
    FailureCode("E_AGENT_EARLY", "promise", "the agent cannot start before these GPUs attach, or should not have",
                "drop nvrc.agent.early; it is for machines without confidential mode and MIG, on cgroup v2", PLATFORM),
    FailureCode("E_BOOT_OVERDUE", "any", "the GPUs that containers wait for were not up within nvrc.timeout.boot",
                "read which step was running; raise nvrc.timeout.boot if the attach takes that long", PLATFORM),
    FailureCode("E_AGENT_EXIT", "supervise", "the agent exited without a request to stop",
                "read the agent's own last lines on the console", PLATFORM),
    FailureCode("E_AGENT_STOP", "supervise", "the agent ignored the request to stop and was killed",
                "report it to the agent's project, unless the VM was shutting down", PLATFORM),
    FailureCode("E_FABRIC_CONFIG", "fabric", "the fabric manager's configuration cannot be used",
                "correct each item that is named to a path of this image; the stock file comes with the driver",
                PLATFORM),
    FailureCode("E_FABRIC_START", "fabric", "the fabric manager exited before it was ready, with any exit status",
                "read its last lines; all GPUs and switches of the board must be in this VM", HOST),
    FailureCode("E_FABRIC_STALL", "fabric", "the fabric manager did not become ready in time",
                "read its last lines; raise nvrc.timeout.fabric if it was still working", HOST),
    FailureCode("E_FABRIC_STATE", "fabric-check",
                "a GPU is not registered with the NVLink fabric; CUDA would report 802",
                "read the fabric manager's lines, on the host where it runs there: its partition must hold exactly "
                "these GPUs; raise nvrc.timeout.fabric if the state is in progress", HOST),
    FailureCode("E_FABRIC_CLIQUE", "fabric-check", "the GPUs are in several cliques, between which there is no NVLink",
                "pass GPUs of one partition to the VM, or expect peers to be reached over PCIe", HOST),
    FailureCode("E_NVLINK_COUNT", "links", "a GPU has fewer active NVLinks than its board must have",
                "read the fabric manager's and the kernel's lines about that link; the GPU or a switch needs service",
                HOST),
    FailureCode("E_TOPOLOGY_FILE", "places",
                "the image's topology file for this board is damaged or contradicts the bus",
                "correct the file below /etc/nvrc/topology in the image; until then NCCL is shown the guest's own bus",
                PLATFORM),
    FailureCode("E_NVLSM", "fabric", "the NVLink subnet manager has no port to work on, ended, or did not become ready",
                "pass all four management functions to this VM, with the subnet manager enabled on one of them", HOST),
    FailureCode("E_PERSISTENCED_START", "persistenced", "nvidia-persistenced did not come up",
                "read its own lines; the image needs its libraries, /etc/netconfig and a writable /var/run",
                PLATFORM),
    FailureCode("E_PERSISTENCED_STALL", "persistenced", "no GPU made progress for as long as one may take to attach",
                "reset the GPU that is named from the host before the next start of the VM", HOST),
    FailureCode("E_GPU_ATTACH", "persistenced", "a GPU could not be attached",
                "read the kernel's NVRM lines for that bus id; reset the GPU from the host", HOST),
    FailureCode("E_DRIVER_VERSION", "persistenced",
                "the loaded kernel module and the driver's libraries are of different releases",
                "build image and GPU extension from one driver release; the message or the kernel's line names both",
                PLATFORM),
    FailureCode("E_DCGM", "dcgm", "the DCGM host engine or exporter could not be started",
                "install both with the counters file, or drop nvrc.dcgm", PLATFORM),
    FailureCode("E_READY_REVOKED", "supervise", "confidential GPUs accept no new work any more",
                "replace the VM: the driver does not set the state again before its modules are loaded again", HOST),
    FailureCode("E_MEMORY", "supervise", "the guest runs out of memory",
                "give the pod more memory: what the VM has beside the containers' limits is for init, agent and driver",
                AUTHOR),
    FailureCode("E_METRICS", "supervise", "the process that serves metrics could not be started, or ended for good",
                "if another program has the port, name a free one with nvrc.metrics=PORT; if the program is missing, "
                "build the image with the slice metrics; nvrc.log=info shows its own lines",
                PLATFORM),
    FailureCode("E_SERVICE_LOST", "supervise", "a daemon that the GPUs depend on ended",
                "read its last lines; running work may go on, new work will fail: replace the VM", PLATFORM),
    FailureCode("E_GPU_LOST", "supervise", "a GPU fell off the bus while the VM ran",
                "check the GPU and its link on the host; the VM has to be replaced", HOST),
    FailureCode("E_GPU_FAULT", "supervise", "the driver reported a fault that takes a GPU out of service",
                "look up the Xid number; the GPU needs a reset from the host, or service", HOST),
)

BY_CODE = {row.code: row for row in CODES}
CDI_PREFIX = "E_CDI_"


def find_code(code: str) -> FailureCode | None:
    """The row of a code. Those of the CDI document are in that package's own table, loaded only when one is met."""
    if not code.startswith(CDI_PREFIX):
        return BY_CODE.get(code)
    from guest_cdi.lean.errors import BY_CODE as CDI_CODES

    return CDI_CODES.get(code)


def known_code(text: str) -> Code | None:
    """Text as a code, if it is one."""
    return cast("Code", text) if find_code(text) else None


def make_trouble(code: Code, what: str, hint: str = "", *, step: str = "", gpu: str = "", uuid: str = "",
                 service: str = "", path: str = "") -> Trouble:
    """Without a hint, that of the code's row."""
    row = None if hint else find_code(code)
    return Trouble(code=code, step=step, what=what, hint=row.remedy if row else hint, gpu=gpu, uuid=uuid,
                   service=service, path=path)


class NvrcError(CodedError):
    """A failure of the init, and the trouble that it is; without a hint, that of its code's row.

    `details` are told as remarks of their own before it, where one line has no room for every mistake.
    """

    code: Code

    def __init__(self, code: Code, what: str, hint: str = "", details: tuple[str, ...] = (), *, gpu: str = "",
                 uuid: str = "", service: str = "", path: str = "") -> None:
        self.trouble = make_trouble(code, what, hint, gpu=gpu, uuid=uuid, service=service, path=path)
        super().__init__(code, what, self.trouble.hint)
        self.details = details
