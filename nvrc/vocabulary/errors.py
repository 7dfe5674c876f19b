# SPDX-License-Identifier: Apache-2.0
"""The codes a failure can carry, one row each, and the one exception of the boot path.

A code is an interface: it appears in the verdict line, in the report and in pod events, and is never reused.
docs/failure-codes.md is generated from this table.
"""

from __future__ import annotations

from guest_cdi.lean.coded import AUTHOR, HOST, PLATFORM, VENDOR, CodedError, FailureCode

# The row and the words for who acts are shared with guest_cdi's codes; nvrc takes them from here.
__all__ = ("AUTHOR", "BY_CODE", "CDI_PREFIX", "CODES", "HOST", "PLATFORM", "VENDOR", "FailureCode", "NvrcError",
           "find_code")

CODES: tuple[FailureCode, ...] = (
    FailureCode("E_INTERNAL", "any", "an exception nobody expected inside PID 1",
                "report it with the console log; the line names file and line number", VENDOR),
    FailureCode("E_INIT_EXEC", "first", "the first program could not execute the frozen init",
                "errno 2: the image lacks the program or its loader; errno 5: the root disk cannot be read; "
                "rebuild the image", PLATFORM),
    FailureCode("E_STEP_DEADLINE", "any", "a step did not finish within its deadline",
                "read the last console lines for what it waited for; raise the step's timeout parameter", PLATFORM),
    FailureCode("E_MOUNT", "filesystems", "a file system could not be mounted",
                "check that the kernel has the file system and that the mount point exists in the image", PLATFORM),
    FailureCode("E_RUN_FULL", "any", "nothing can be written below /run",
                "give the VM more memory, or find what filled /run", PLATFORM),
    FailureCode("E_JOURNAL", "journal", "/dev/log could not be bound or a log sysctl refused its value",
                "check that /dev is writable and nothing else in the image binds /dev/log", PLATFORM),
    FailureCode("E_HARDENING", "hardening", "a protection of the kernel is missing or refused its value",
                "drop the sysctl.* word that holds it on the command line, or correct the guest kernel", PLATFORM),
    FailureCode("E_PARAMETERS", "parameters",
                "a kernel parameter is malformed, denied by policy, or unknown under strict",
                "run 'nvrc params check' on the command line; every mistake is listed at once", AUTHOR),
    FailureCode("E_POLICY", "parameters", "the policy file baked into the image cannot be used",
                "fix /etc/nvrc/policy.toml in the image and rebuild it", PLATFORM),
    FailureCode("E_IDENTITY", "identity", "host name or identity files could not be set",
                "check /etc/hostname in the image", PLATFORM),
    FailureCode("E_LOOPBACK", "loopback", "the loopback interface could not be brought up",
                "the guest kernel needs CONFIG_NET and CONFIG_INET", PLATFORM),
    FailureCode("E_TOPOLOGY", "topology", "the PCI devices match no supported machine",
                "compare the list in the message with docs/topologies.md and fix the devices passed to the VM", HOST),
    FailureCode("E_PCI_READ", "topology", "a PCI attribute could not be read",
                "an I/O error on config space or VPD: check the device on the host", HOST),
    FailureCode("E_MODE_MISMATCH", "topology", "the machine is not the one that the command line asserts",
                "correct or drop nvrc.mode, nvrc.fabricmanager or nvrc.fm.* on the command line", AUTHOR),
    FailureCode("E_NVML_LIBRARY", "gpu-settings", "NVIDIA's management library cannot be found or loaded",
                "put libnvidia-ml.so.1 of the driver into the image or the extension", PLATFORM),
    FailureCode("E_NVML", "gpu-settings", "NVIDIA's library refused a call that concerns the whole machine",
                "check that the driver is loaded, its nodes exist and nvidia-persistenced is up", PLATFORM),
    FailureCode("E_GPU_NVML", "gpu-settings", "NVIDIA's library refused a call about a GPU that must come up",
                "read the kernel's NVRM and Xid lines of that GPU and reset it from the host", HOST),
    FailureCode("E_GPU_COUNT", "gpu-settings", "not as many GPUs came up as nvrc.gpus demands",
                "the message names the missing bus ids: check them on the host, or correct nvrc.gpus", HOST),
    FailureCode("E_GPU_IDENTITY", "gpu-settings",
                "bus, driver, NVIDIA's library and CDI document do not speak of the same GPUs",
                "use a driver and a library of one release; no GPU of this VM can be trusted before that", PLATFORM),
    FailureCode("E_GPU_SETTING", "gpu-settings", "a clock or power limit could not be set, or did not read back",
                "the message names GPU, call and range: correct nvrc.smi.lgc, nvrc.smi.lmc or nvrc.smi.pl", AUTHOR),
    FailureCode("E_MIG", "gpu-settings", "the MIG layout of the command line could not be made",
                "correct nvrc.mig; the message names the GPU, what it refused and the profiles that it has", AUTHOR),
    FailureCode("E_CC_UNKNOWN", "cc-check", "the confidential mode could not be read or has a value that is not known",
                "use a driver and a library of one version; a mode that nobody can tell is not trusted", PLATFORM),
    FailureCode("E_CC_DEVTOOLS", "cc-check", "the GPUs are in developer tools mode, which is not confidential",
                "switch the GPUs' confidential mode from devtools to on, from the host", HOST),
    FailureCode("E_CC_MISMATCH", "cc-check", "the GPUs are not in the confidential mode that nvrc.cc demands",
                "set the mode of the GPUs on the host, or correct nvrc.cc", HOST),
    FailureCode("E_CC_DISAGREE", "cc-check", "the GPUs are not all in the same confidential mode",
                "set all GPUs of the VM to one mode on the host and reset them", HOST),
    FailureCode("E_READY_STATE", "ready-state", "the ready state of confidential GPUs could not be set or read back",
                "read the kernel's NVRM lines; a state that was revoked cannot be set again before a reset", HOST),
    FailureCode("E_NVML_CRASH", "gpu-settings", "the worker process that runs NVIDIA's library died",
                "the library crashed: check that it belongs to the loaded kernel module, and report it to NVIDIA",
                VENDOR),
    FailureCode("E_NVML_HANG", "gpu-settings", "NVIDIA's library did not answer in time",
                "the driver is wedged: read the kernel's NVRM and Xid lines, and reset the GPU from the host", HOST),
    FailureCode("E_EXTENSION_DEVICE", "extensions", "an extension's disk is missing, there twice, or one too many",
                "attach exactly one disk with serial extension-<name> for each extension of the command line", HOST),
    FailureCode("E_EXTENSION_PARAMS", "extensions", "an extension's disk is there, the command line does not name it",
                "add kata.extension.<name>.verity_params with the five items, or detach the disk", AUTHOR),
    FailureCode("E_EXTENSION_LAYOUT", "extensions", "an extension's disk does not hold what its parameters describe",
                "it needs partition 1 with the data and partition 2 with the hash tree, both large enough: attach the "
                "disk that the parameters were made for", HOST),
    FailureCode("E_VERITY", "extensions", "dm-verity could not be set up over an extension, or its data do not verify",
                "use the root hash and salt that were made with this disk image; else the image is damaged", HOST),
    FailureCode("E_EXTENSION_MOUNT", "extensions", "a verified extension could not be mounted",
                "the image in partition 1 must be EROFS, and the guest kernel needs CONFIG_EROFS_FS", PLATFORM),
    FailureCode("E_EXTENSION_LIBS", "extensions", "the GPU extension's firmware or libraries could not be made known",
                "the base image needs /lib/firmware/nvidia, /etc/ld.so.cache and /sbin/ldconfig", PLATFORM),
    FailureCode("E_MODULE_TREE", "modules", "the indexes of a kernel module tree cannot be used",
                "run depmod for the tree when the image is built", PLATFORM),
    FailureCode("E_MODULE_CONFIG", "modules", "a file in modprobe.d cannot be read or asks for a shell command",
                "use options and softdep lines; the image has no shell for install lines", PLATFORM),
    FailureCode("E_MODULE_MISSING", "modules", "a module is neither in the kernel nor in a tree for this kernel",
                "build kernel, image and GPU extension from one set: the tree must be that of this kernel", PLATFORM),
    FailureCode("E_MODULE_COMPRESSION", "modules", "a module file cannot be unpacked",
                "ship modules uncompressed, or a kernel with CONFIG_MODULE_DECOMPRESS for this compression", PLATFORM),
    FailureCode("E_MODULE_SIGNATURE", "modules", "a module is not signed as this kernel demands",
                "sign the modules with the key built into the kernel, and do not strip or recompress them afterwards",
                PLATFORM),
    FailureCode("E_MODULE_VERSION", "modules", "a module was built for another kernel",
                "build kernel, image and GPU extension from one set", PLATFORM),
    FailureCode("E_MODULE_SYMBOL", "modules", "a module needs a symbol that is nowhere",
                "a module it needs is missing or of another version: run depmod, or build all from one set", PLATFORM),
    FailureCode("E_MODULE_DEVICE", "modules", "a driver found no device that it can drive",
                "check which devices the host passed to the VM, and that this driver version supports them", HOST),
    FailureCode("E_MODULE_OPTIONS", "modules", "a module refused its parameters",
                "check nvrc.uvm.options, <module>.<parameter> on the command line, and options in modprobe.d", AUTHOR),
    FailureCode("E_MODULE_LOAD", "modules", "a module could not be loaded",
                "the message carries the kernel's reason", PLATFORM),
    FailureCode("E_GPU_PROBE", "modules", "the driver is loaded but does not list every GPU of the bus",
                "read the kernel's NVRM lines about the missing bus ids; a GPU that stays away needs a reset", HOST),
    FailureCode("E_DEVICE_NODES", "device-nodes", "the driver's device nodes could not be made",
                "the driver did not register what its node needs, or /dev has something else in its place", PLATFORM),
    FailureCode("E_LOCK_MODULES", "lock-modules", "module loading could not be disabled",
                "the guest kernel needs CONFIG_MODULES with the modules_disabled sysctl", PLATFORM),
    FailureCode("E_TEE_DRIVER", "lock-modules", "a confidential guest has no device to prove that it is one",
                "build the image so that it serves the need that the message names, or use a kernel with the driver "
                "built in", PLATFORM),
    FailureCode("E_AGENT_MISSING", "identity", "the agent is not in the image or is not executable",
                "put an executable kata-agent at /usr/bin/kata-agent", PLATFORM),
    FailureCode("E_CGROUP", "agent", "the agent would mount cgroups that the kernel does not have",
                "add cgroup_no_v1=all to kernel_params", PLATFORM),
    FailureCode("E_AGENT_EXEC", "agent", "the agent could not be started",
                "the message carries the kernel's reason; check architecture and loader of the binary", PLATFORM),
    FailureCode("E_AGENT_EXIT", "supervise", "the agent ended by itself",
                "read the agent's own last lines on the console", PLATFORM),
    FailureCode("E_AGENT_STOP", "supervise", "the agent ignored the request to stop and was killed",
                "none needed when the VM was going down; otherwise report it to the agent's project", PLATFORM),
    FailureCode("E_FABRIC_CONFIG", "fabric", "the fabric manager's configuration cannot be used",
                "each item that is named must hold a path of this image; the stock file comes with the driver",
                PLATFORM),
    FailureCode("E_FABRIC_START", "fabric", "the fabric manager ended before it was ready, whatever its exit status",
                "read its last lines; all GPUs and switches of the board must be in this VM", HOST),
    FailureCode("E_FABRIC_STALL", "fabric", "the fabric manager did not become ready in time",
                "read its last lines; raise nvrc.timeout.fabric if it was still at work", HOST),
    FailureCode("E_NVLSM", "fabric", "the NVLink subnet manager has no port to work on, ended, or did not become ready",
                "pass all four management functions to this VM, with the subnet manager enabled on one of them", HOST),
    FailureCode("E_PERSISTENCED_START", "persistenced", "nvidia-persistenced did not come up",
                "its own lines say why; the image needs its libraries, /etc/netconfig and a writable /var/run",
                PLATFORM),
    FailureCode("E_PERSISTENCED_STALL", "persistenced", "no GPU got further for as long as one may take to attach",
                "the GPU that is named is wedged: reset it from the host before the VM starts again", HOST),
    FailureCode("E_GPU_ATTACH", "persistenced", "a GPU could not be attached",
                "read the kernel's NVRM lines for that bus id; reset the GPU from the host", HOST),
    FailureCode("E_DRIVER_VERSION", "persistenced",
                "the loaded kernel module and the driver's libraries are of different releases",
                "the message or the kernel's line names both: build image and GPU extension from one driver release",
                PLATFORM),
    FailureCode("E_DCGM", "dcgm", "the DCGM host engine or exporter could not be started",
                "install both with the nvidia-dcgm account and the counters file, or drop nvrc.dcgm", PLATFORM),
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


class NvrcError(CodedError):
    """A failure of the init; without a hint, that of its code's row.

    `details` are shown as lines of their own before it, where one line has no room for every mistake.
    """

    def __init__(self, code: str, what: str, hint: str = "", details: tuple[str, ...] = ()) -> None:
        super().__init__(code, what, hint or BY_CODE[code].remedy)
        self.details = details
