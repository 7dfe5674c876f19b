# SPDX-License-Identifier: Apache-2.0
"""The codes a failure can carry, one row each, and the one exception of the boot path.

A code is an interface: it appears in the verdict line, in the report and in pod events, and is never reused.
docs/failure-codes.md is generated from this table.
"""

from __future__ import annotations

from typing import NamedTuple

PLATFORM = "platform engineer"
AUTHOR = "pod author"
HOST = "host operator"
VENDOR = "bug report"


class FailureCode(NamedTuple):
    code: str
    step: str
    meaning: str
    remedy: str
    who: str


CODES: tuple[FailureCode, ...] = (
    FailureCode("E_INTERNAL", "any", "an exception nobody expected inside PID 1",
                "report it with the console log; the line names file and line number", VENDOR),
    FailureCode("E_STEP_DEADLINE", "any", "a step did not finish within its deadline",
                "read the last console lines for what it waited for; raise the step's timeout parameter", PLATFORM),
    FailureCode("E_MOUNT", "filesystems", "a file system could not be mounted",
                "check that the kernel has the file system and that the mount point exists in the image", PLATFORM),
    FailureCode("E_RUN_FULL", "any", "nothing can be written below /run",
                "give the VM more memory, or find what filled /run", PLATFORM),
    FailureCode("E_JOURNAL", "journal", "/dev/log could not be bound or a log sysctl refused its value",
                "check that /dev is writable and nothing else in the image binds /dev/log", PLATFORM),
    FailureCode("E_PARAMETERS", "parameters", "a kernel parameter is malformed, denied by policy, or unknown under strict",
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
    FailureCode("E_NVML_CRASH", "gpu-settings", "the worker process that runs NVIDIA's library died",
                "the library crashed: check that it belongs to the loaded kernel module, and report it to NVIDIA", VENDOR),
    FailureCode("E_NVML_HANG", "gpu-settings", "NVIDIA's library did not answer in time",
                "the driver is wedged: read the kernel's NVRM and Xid lines, and reset the GPU from the host", HOST),
    FailureCode("E_LOCK_MODULES", "lock-modules", "module loading could not be disabled",
                "the guest kernel needs CONFIG_MODULES with the modules_disabled sysctl", PLATFORM),
    FailureCode("E_AGENT_MISSING", "identity", "the agent is not in the image or is not executable",
                "put an executable kata-agent at /usr/bin/kata-agent", PLATFORM),
    FailureCode("E_AGENT_EXEC", "agent", "the agent could not be started",
                "the message carries the kernel's reason; check architecture and loader of the binary", PLATFORM),
    FailureCode("E_AGENT_EXIT", "supervise", "the agent ended by itself",
                "read the agent's own last lines on the console", PLATFORM),
    FailureCode("E_AGENT_STOP", "supervise", "the agent ignored the request to stop and was killed",
                "none needed when the VM was going down; otherwise report it to the agent's project", PLATFORM),
)

BY_CODE = {row.code: row for row in CODES}


class NvrcError(Exception):
    """A failure with a stable code: what failed, where, and what to do about it, on one console line.

    `details` are shown as lines of their own before it, where one line has no room for every mistake.
    """

    def __init__(self, code: str, what: str, hint: str = "", details: tuple[str, ...] = ()) -> None:
        super().__init__(what)
        self.code = code
        self.what = what
        self.hint = hint or BY_CODE[code].remedy
        self.details = details

    def __str__(self) -> str:
        return f"{self.what} ({self.code}): {self.hint}"
