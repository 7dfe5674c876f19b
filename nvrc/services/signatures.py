# SPDX-License-Identifier: Apache-2.0
"""What lines of the driver, its daemons and the agent mean: cause, remedy, and who has to act. Data, and one search.

The rows come from NVIDIA's open sources (kernel modules, nvidia-persistenced) and from public reports of people who
met the line. They explain a failure that was found otherwise; a line alone is never the reason to end a boot.
docs/failure-signatures.md is generated from this table.
"""

from __future__ import annotations

from guest_cdi.lean.light import TYPE_CHECKING, Iterable, NamedTuple, Sequence
from nvrc.vocabulary.errors import AUTHOR, HOST, PLATFORM, NvrcError

if TYPE_CHECKING:
    from typing import Literal

    from nvrc.vocabulary.errors import Code

KERNEL, PERSISTENCED, FABRIC, LOADER = "kernel", "nvidia-persistenced", "fabric manager", "any program"
DCGM, AGENT, ATTESTATION, WORKLOAD = "DCGM", "kata-agent", "attestation agent", "workload"


class Signature(NamedTuple):
    """`words` must all be there, in one line or in several. An empty `code` leaves the step its own."""

    name: str
    source: str
    words: tuple[str, ...]
    code: Code | Literal[""]
    cause: str
    remedy: str
    who: str

    @property
    def advice(self) -> str:
        return f"{self.cause}: {self.remedy}"


SPENT = "a confidential GPU attaches once between two resets, and this one had its attach or lost its secure session"
RESET = "reset it from the host; look for a program that opened it before nvidia-persistenced, or killed that"
CRYPTO = ("enable CRYPTO AEAD, AKCIPHER, SKCIPHER, HASH, HMAC, ECC, ECDH, ECDSA, RSA, KPP, GCM, SHA512 and the X.509 "
          "parser in the guest kernel")
APERTURE = "give the VM a larger 64-bit MMIO window; a B200 needs 256 GiB for one of its BARs"
MATCH = "take the kernel modules, libraries, daemons and firmware from one driver release"

# The first row whose words are all there counts, so what explains more stands above what follows from it.
SIGNATURES: tuple[Signature, ...] = (
    Signature("out-of-memory", KERNEL, ("Out of memory: Killed process",), "",
              "the VM ran out of memory and the kernel killed a process", "give the VM more memory", PLATFORM),
    Signature("initrd-cut", KERNEL, ("Initramfs unpacking failed: write error",), "E_INITRD",
              "the kernel has no room for all of the initrd, which may take half of the VM's memory",
              "give the VM more memory", PLATFORM),
    Signature("kernel-crypto", KERNEL, ("libspdm expects LKCA but found stubs",), "E_GPU_ATTACH",
              "the guest kernel lacks crypto that the secure session with the GPU needs", CRYPTO, PLATFORM),
    Signature("kernel-crypto-backend", KERNEL, ("SPDM cannot boot without proper crypto backend",), "E_GPU_ATTACH",
              "the guest kernel lacks crypto that the secure session with the GPU needs", CRYPTO, PLATFORM),
    Signature("cc-cpu", KERNEL, ("CPU does not support confidential compute",), "E_GPU_ATTACH",
              "the GPU is in confidential mode and the VM is not confidential",
              "start a confidential VM, or switch the GPU's confidential mode off on the host", HOST),
    Signature("cc-gpu", KERNEL, ("GPU does not support confidential compute",), "E_GPU_ATTACH",
              "this GPU or its firmware has no confidential mode", "pass a GPU that has it, or update its VBIOS", HOST),
    Signature("no-firmware", KERNEL, ("No firmware image found",), "E_GPU_ATTACH",
              "the GPU's GSP firmware of this driver release is not below /lib/firmware/nvidia",
              "put gsp_*.bin of the same release into the image", PLATFORM),
    Signature("fsp-boot", KERNEL, ("Timeout while polling for FSP boot complete",), "E_GPU_ATTACH",
              "the GPU's own security processor did not finish its start",
              "power-cycle the GPU; if it stays, its firmware or the GPU is broken", HOST),
    Signature("cc-fatal", KERNEL, ("ConfCompute: Fatal error hit!",), "E_READY_REVOKED",
              "the driver lost the secure session with a GPU and revoked the ready state of all",
              "replace the VM: the driver does not set the state again before its modules are loaded again", HOST),
    Signature("off-the-bus", KERNEL, ("has fallen off the bus",), "", "the GPU no longer answers on PCIe",
              "check power, link and the host's AER log; the host has to reset or replace it", HOST),
    Signature("gsp-timeout", KERNEL, ("waiting for RPC response from GPU", "GSP"), "",
              "the GPU's system processor stopped answering (Xid 119)", "reset the GPU from the host", HOST),
    Signature("attach-spent", KERNEL, ("RmInitAdapter failed! (0x22:0x56:", "Cannot attach gpu"), "E_GPU_ATTACH",
              SPENT, RESET, HOST),
    Signature("attach-spent-status", KERNEL, ("RmInitAdapter failed! (0x22:0x56:",), "E_GPU_ATTACH", SPENT, RESET,
              HOST),
    Signature("nvlink-training", KERNEL, ("RmInitAdapter failed! (0x22:0x3f:", "SXid"), "E_GPU_ATTACH",
              "the NVLinks between GPUs and switches could not be trained",
              "set PPCIE mode, and pass all GPUs and all NVSwitches of the board to this VM", HOST),
    Signature("nvlink-training-status", KERNEL, ("RmInitAdapter failed! (0x22:0x3f:",), "E_GPU_ATTACH",
              "the NVLinks of the GPU could not be trained",
              "set PPCIE mode, and pass all GPUs and all NVSwitches of the board to this VM", HOST),
    Signature("gsp-unsupported", KERNEL, ("GSP offload -- GPU not supported",), "E_GPU_ATTACH",
              f"follows from a failed attach and is not a driver mismatch; {SPENT}", RESET, HOST),
    Signature("attach-refused", KERNEL, ("Cannot attach gpu",), "E_GPU_ATTACH", SPENT, RESET, HOST),
    Signature("bar-missing", KERNEL, ("BAR", "is 0M @ 0x0"), "",
              "the GPU's memory has no room in the guest's address space", APERTURE, HOST),
    Signature("bridge-window", KERNEL, ("no compatible bridge window",), "",
              "a BAR does not fit below its PCI bridge", APERTURE, HOST),
    Signature("open-modules", KERNEL, ("requires use of the NVIDIA open kernel modules",), "",
              "the closed kernel modules do not drive this GPU", "build the image with the open kernel modules",
              PLATFORM),
    Signature("old-driver", KERNEL, ("is not supported by the", "driver release"), "",
              "the driver release does not know this GPU", "build the image with a release that lists the GPU",
              PLATFORM),
    Signature("api-mismatch", KERNEL, ("API mismatch: the client",), "E_DRIVER_VERSION",
              "a program's NVIDIA library and the loaded kernel module are of different releases", MATCH, PLATFORM),
    Signature("other-driver", KERNEL, ("probe routine was not called for",), "",
              "another kernel driver holds a GPU", "keep nouveau, nvidiafb and vfio-pci out of the guest kernel",
              PLATFORM),
    Signature("probe-failed", KERNEL, ("probe routine failed for",), "", "the driver refused a GPU when it found it",
              "read the NVRM lines before it; usually the MMIO window, or a GPU that was not reset", HOST),
    Signature("no-gpu", KERNEL, ("No NVIDIA GPU found",), "", "the driver found no GPU that it can drive",
              "check what is passed to the VM: a GPU that reads all ones has fallen off the bus", HOST),
    Signature("adapter-failed", KERNEL, ("RmInitAdapter failed!",), "E_GPU_ATTACH",
              "the driver could not initialise the GPU", "read the NVRM lines before it; reset the GPU from the host",
              HOST),

    Signature("no-room", LOADER, ("No space left on device",), "E_RUN_FULL",
              "there is no room below /run, or in the root of an initramfs",
              "give the VM more memory, or find what filled it", PLATFORM),

    Signature("persistenced-driver", PERSISTENCED, ("Failed to query NVIDIA devices",), "E_PERSISTENCED_START",
              "the nvidia module is not loaded, or /dev/nvidia* is missing or closed to it",
              "read the modules and device-nodes steps before it", PLATFORM),
    Signature("persistenced-none", PERSISTENCED, ("Unable to find any NVIDIA devices",), "E_PERSISTENCED_START",
              "the driver lists no GPU", "read the kernel's NVRM lines", HOST),
    Signature("persistenced-library", PERSISTENCED, ("Failed to open libnvidia-cfg.so.1",), "E_PERSISTENCED_START",
              "libnvidia-cfg.so.1 or a library it needs is not in the image",
              "add it; nvidia-persistenced opens it at run time, so no dependency list names it", PLATFORM),
    Signature("persistenced-symbol", PERSISTENCED, ("Failed to load symbol",), "E_PERSISTENCED_START",
              "libnvidia-cfg.so.1 is of another release than nvidia-persistenced", MATCH, PLATFORM),
    Signature("persistenced-rpc", PERSISTENCED, ("Failed to create RPC service",), "E_PERSISTENCED_START",
              "libtirpc found no transport", "add /etc/netconfig to the image", PLATFORM),
    Signature("persistenced-rpc-version", PERSISTENCED, ("Failed to register RPC",), "E_PERSISTENCED_START",
              "libtirpc could not register the service", "use the libtirpc the daemon was built with", PLATFORM),
    Signature("persistenced-folder", PERSISTENCED, ("Unable to access /var/run/nvidia-persistenced",),
              "E_PERSISTENCED_START", "the daemon cannot write its folder",
              "make /var/run a link to /run in the image", PLATFORM),
    Signature("persistenced-twice", PERSISTENCED, ("Failed to lock PID file",), "E_PERSISTENCED_START",
              "another nvidia-persistenced is running", "start none from elsewhere in the image", PLATFORM),
    Signature("persistenced-pid-file", PERSISTENCED, ("Failed to open PID file",), "E_PERSISTENCED_START",
              "the daemon cannot write its PID file", "make /var/run a link to /run in the image", PLATFORM),
    Signature("uvm-fabric", PERSISTENCED, ("Could not Enable UVM Persistence mode because", "NVLink fabric is no"), "",
              "the NVLink fabric was not up when the GPU attached",
              "start the fabric manager before nvidia-persistenced",
              PLATFORM),

    Signature("fabric-topology", FABRIC, ("failed to open fabric topology file",), "E_FABRIC_CONFIG",
              "TOPOLOGY_FILE_PATH does not lead to the board's topology files",
              "ship the topology files with the driver, where the configuration says", PLATFORM),
    Signature("fabric-item", FABRIC, ("fabric manager config file item:", "has an invalid value"), "E_FABRIC_CONFIG",
              "an item holds a path that is missing or read-only, or a value this release does not know",
              "correct the item in the stock fabricmanager.cfg of the image", PLATFORM),
    Signature("fabric-config", FABRIC, ("failed to open fabric manager config file",), "E_FABRIC_CONFIG",
              "the configuration cannot be read", "leave /run readable to root", PLATFORM),
    Signature("fabric-switches", FABRIC, ("NV_WARN_NOTHING_TO_DO",), "E_FABRIC_START",
              "no NVSwitch is visible, or on NVLink 5 the subnet manager does not run",
              "pass all NVSwitches or management functions of the board to this VM", HOST),
    Signature("fabric-loopback", FABRIC, ("failed to bind to 127.0.0.1",), "E_FABRIC_START",
              "the loopback interface is down, or the port is taken", "start no second fabric manager", PLATFORM),
    Signature("fabric-release", FABRIC, ("interface version", "match with driver version"), "E_FABRIC_START",
              "the fabric manager is of another release than the driver", MATCH, PLATFORM),
    Signature("nscq-library", FABRIC, ("NSCQ_RC_WARNING",), "",
              "libnvidia-nscq cannot talk to the NVSwitches", MATCH, PLATFORM),

    Signature("library-missing", LOADER, ("error while loading shared libraries:",), "",
              "a library that the program needs is not in the image", "add it, or rebuild with the closure check on",
              PLATFORM),
    Signature("dcgm-account", DCGM, ("failed to find the service account",), "E_DCGM",
              "the image has no account for the host engine", "add nvidia-dcgm to /etc/passwd of the image", PLATFORM),
    Signature("dcgm-counters", DCGM, ("Could not read metrics file",), "E_DCGM",
              "the exporter's counters file is missing",
              "add /etc/dcgm-exporter/default-counters.csv to the image", PLATFORM),

    Signature("cgroup-version", KERNEL, ("cgroup: Unknown subsys name",), "E_CGROUP",
              "the agent mounts cgroup version 1, which the kernel does not have",
              "add cgroup_no_v1=all to kernel_params", PLATFORM),
    Signature("agent-policy", AGENT, ("Failed to initialize agent policy",), "",
              "the agent was built with policies, and cannot use the one of the image",
              "build the image with nvrc-image, which puts /etc/kata-opa/default-policy.rego into it", PLATFORM),
    Signature("cdi-names", AGENT, ("unresolvable CDI devices nvidia.com/pgpu",), "",
              "a device name of the host's CDI document came into the guest",
              "write the host's document for nvidia.com/pgpu, and let the runtime translate it", HOST),
    Signature("cdi-unresolved", AGENT, ("unresolvable CDI devices",), "",
              "the container asks for devices that the guest's CDI document does not have",
              "compare the names with /var/run/cdi/nvidia.yaml", AUTHOR),
    Signature("cdi-none", AGENT, ("no CDI annotations, no devices to inject",), "",
              "the runtime passed no devices for the container", "request the GPU as a resource of the pod", AUTHOR),
    Signature("broker-unnamed", ATTESTATION, ("kbs token config not configured in config file",), "E_ATTEST_REFUSED",
              "the attestation agent knows no key broker",
              "give the pod's initdata an aa.toml with token_configs.kbs", AUTHOR),
    Signature("broker-refuses", ATTESTATION, ("KBS attest unauthorized",), "E_ATTEST_REFUSED",
              "the verifier behind the key broker did not take the evidence",
              "read its log: which signature, certificate or version it refuses", PLATFORM),
    Signature("broker-far", ATTESTATION, ("RCAR handshake failed", "reqwest::Error"), "E_ATTEST_REFUSED",
              "the guest does not reach the key broker",
              "check the address in aa.toml, its name's resolution and its certificate from the pod's network",
              PLATFORM),
    Signature("cuda-802", WORKLOAD, ("system not yet initialized",), "",
              "CUDA error 802: the fabric is down, or confidential GPUs are not in ready state",
              "see the fabric manager's state, then the ready state (nvrc.ready)", PLATFORM),
)


def explain(lines: Iterable[str]) -> Signature | None:
    """The row that explains these lines best; None when no row knows any of them."""
    text = "\n".join(lines)
    return next((row for row in SIGNATURES if all(word in text for word in row.words)), None)


def enrich(error: NvrcError, lines: Sequence[str]) -> NvrcError:
    """The error with what the lines explain about it in place of the general advice."""
    found = explain(lines)
    if found is None:
        return error
    at = error.trouble
    return NvrcError(found.code or error.code, error.what, found.advice, error.details, gpu=at.gpu, uuid=at.uuid,
                     service=at.service, path=at.path)
