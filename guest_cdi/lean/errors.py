# SPDX-License-Identifier: Apache-2.0
"""The codes a guest_cdi failure can carry, one row each, and the one exception of the package.

A code is an interface: scripts, boot reports and pod events match on it, so it is never reused. The table in
docs/guest-cdi.md is made from these rows. It lies on the ground floor because PID 1 tells these failures, and loads no
generator for it.
"""

from __future__ import annotations

from guest_cdi.lean.coded import AUTHOR, HOST, PLATFORM, VENDOR, CodedError, FailureCode
from guest_cdi.lean.light import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Literal

    # What may be raised: one name a row, so that a code that has none is found before it is run.
    CdiCode = Literal[
        "E_CDI_INTERNAL", "E_CDI_USAGE", "E_CDI_READ", "E_CDI_NAME_ENCODING", "E_CDI_DRIVER_ROOT",
        "E_CDI_NVML_LIBRARY", "E_CDI_NVML", "E_CDI_NO_GPU", "E_CDI_NO_DEVICE", "E_CDI_GPU", "E_CDI_GPU_NODE",
        "E_CDI_MIG_CAPABILITY", "E_CDI_DEVICE_ID", "E_CDI_DRIVER_VERSION", "E_CDI_DRIVER_MISMATCH",
        "E_CDI_LIBCUDA", "E_CDI_LIBRARY", "E_CDI_LDCACHE", "E_CDI_LINK_LOOP", "E_CDI_HOOK_PATH",
        "E_CDI_INVALID", "E_CDI_PUBLISH", "E_CDI_INJECT", "E_CDI_BUNDLE", "E_CDI_HOOK_STATE",
        "E_CDI_HOOK_ROOT", "E_CDI_HOOK_KERNEL", "E_CDI_HOOK_LDCONFIG", "E_CDI_HOOK_LDCACHE", "E_CDI_HOOK",
    ]

CODES: tuple[FailureCode, ...] = (
    FailureCode("E_CDI_INTERNAL", "any", "an unexpected exception inside guest-cdi",
                "report it with the message; it names file and line number", VENDOR),
    FailureCode("E_CDI_USAGE", "any", "the command line or an option value is not valid",
                "run the command with --help; the message names the option and the accepted values", AUTHOR),
    FailureCode("E_CDI_READ", "any", "a file that is needed exists but cannot be read",
                "check the file's mode and the medium it is on", PLATFORM),
    FailureCode("E_CDI_NAME_ENCODING", "generate", "a driver file has a name that is not UTF-8",
                "rename or remove the file; a CDI document is text and cannot name it", PLATFORM),
    FailureCode("E_CDI_DRIVER_ROOT", "generate", "the driver root is not a directory",
                "mount the driver image first, or correct --driver-root", PLATFORM),
    FailureCode("E_CDI_NVML_LIBRARY", "generate", "libnvidia-ml.so.1 cannot be found or loaded",
                "install the driver's user space, or name the file with --nvml-library", PLATFORM),
    FailureCode("E_CDI_NVML", "generate", "NVML refused a call that concerns the whole machine",
                "check that the nvidia module is loaded, the nodes exist and nvidia-persistenced is up", PLATFORM),
    FailureCode("E_CDI_NO_GPU", "generate", "there is no GPU to describe",
                "check that the GPU is passed to this machine and bound to the nvidia driver", HOST),
    FailureCode("E_CDI_NO_DEVICE", "generate", "the machine has no device of the mode that was asked for",
                "check that the device is passed to this machine and that its driver is loaded", HOST),
    FailureCode("E_CDI_GPU", "generate", "NVML refused a call about one GPU",
                "read the kernel log for that GPU; --keep-going describes the others", HOST),
    FailureCode("E_CDI_GPU_NODE", "generate", "a visible GPU has no device node",
                "create the node, or correct --dev-root; --keep-going describes the others", PLATFORM),
    FailureCode("E_CDI_MIG_CAPABILITY", "generate", "a MIG device lacks its capability entry or capability node",
                "create the node under /dev/nvidia-caps with the number that mig-minors lists", PLATFORM),
    FailureCode("E_CDI_DEVICE_ID", "generate", "--device-id names no device of this machine",
                "use an index, a UUID, all or none; the message lists what exists", AUTHOR),
    FailureCode("E_CDI_DRIVER_VERSION", "generate", "the driver version cannot be determined",
                "install a complete driver; the message lists the directories searched", PLATFORM),
    FailureCode("E_CDI_DRIVER_MISMATCH", "generate", "kernel module and user space are of different driver versions",
                "build the image with one driver version; the message names both", PLATFORM),
    FailureCode("E_CDI_LIBCUDA", "generate", "libcuda of the running driver is missing",
                "add the compute libraries to the image or driver root; the message lists the directories searched",
                PLATFORM),
    FailureCode("E_CDI_LIBRARY", "generate", "a driver library is not a usable ELF file",
                "reinstall the driver; the message names the file and what is wrong with it", PLATFORM),
    FailureCode("E_CDI_LDCACHE", "generate", "the ld.so.cache of the driver root is damaged",
                "run ldconfig in the image again", PLATFORM),
    FailureCode("E_CDI_LINK_LOOP", "generate", "symbolic links that a driver file is reached through form a loop",
                "repair the link that the message names", PLATFORM),
    FailureCode("E_CDI_HOOK_PATH", "generate", "the hook program is missing or not executable",
                "put it into the image or name it with --nvidia-cdi-hook-path", PLATFORM),
    FailureCode("E_CDI_INVALID", "validate", "the document breaks a rule of CDI",
                "run guest-cdi validate on it; every finding has file, place and rule", PLATFORM),
    FailureCode("E_CDI_PUBLISH", "generate", "the document could not be written; the previous one is untouched",
                "free space or make the directory writable; the message carries the kernel's reason", PLATFORM),
    FailureCode("E_CDI_INJECT", "inject", "a device cannot be applied to the container",
                "regenerate the document; the message names the device and what it lacks", PLATFORM),
    FailureCode("E_CDI_BUNDLE", "inject", "the OCI bundle cannot be used",
                "point --bundle at a directory with a readable config.json", AUTHOR),
    FailureCode("E_CDI_HOOK_STATE", "hook", "the OCI state on standard input or the bundle it names is not usable",
                "run the hook from an OCI runtime; it passes the state", PLATFORM),
    FailureCode("E_CDI_HOOK_ROOT", "hook", "the container root cannot be used, or a path would leave it",
                "inspect the container image; the path in the message escapes or is not a directory", AUTHOR),
    FailureCode("E_CDI_HOOK_KERNEL", "hook", "the kernel lacks a call that confines the hook to the container",
                "run hooks on Linux 5.14 or later", PLATFORM),
    FailureCode("E_CDI_HOOK_LDCONFIG", "hook", "this machine has no usable ldconfig",
                "put a static ldconfig into the image or name it with --ldconfig-path", PLATFORM),
    FailureCode("E_CDI_HOOK_LDCACHE", "hook", "ldconfig failed in the container",
                "inspect the container image; the message carries ldconfig's own words", AUTHOR),
    FailureCode("E_CDI_HOOK", "hook", "a hook could not do its work",
                "read the file and the kernel's reason in the message", PLATFORM),
)

BY_CODE = {row.code: row for row in CODES}


class CdiError(CodedError):
    """A failure of this package; without a hint, that of its code's row."""

    code: CdiCode

    def __init__(self, code: CdiCode, what: str, hint: str = "") -> None:
        super().__init__(code, what, hint or BY_CODE[code].remedy)
