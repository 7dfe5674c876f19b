# SPDX-License-Identifier: Apache-2.0
"""What hosts say when a pod's VM does not come up: words of kubelet, containerd, the runtimes and QEMU. Data, and one
search. What PID 1 itself says in the agent's place, nvrc.vocabulary.transcript reads.

The words are those that people met in events and logs; a row says which party can act on them. What explains more
stands above what follows from it.
"""

from __future__ import annotations

from guest_cdi.lean.light import NamedTuple
from nvrc.vocabulary.errors import AUTHOR, HOST, PLATFORM


class HostSign(NamedTuple):
    """`words` must all be there, in one line."""

    name: str
    words: tuple[str, ...]
    cause: str
    remedy: str
    who: str


SEE_CONSOLE = ("get the VM's console: set enable_debug = true in [hypervisor.qemu] and [runtime] of the class, start "
               "the pod again and give the runtime's log to nvrc doctor")

HOST_SIGNS: tuple[HostSign, ...] = (
    HostSign("drop-in", ("error decoding file", "toml:"),
             "a file in the runtime's config.d folder is not TOML; the runtime reads every file in it",
             "keep only drop-ins in that folder: no Pod, no backup file", HOST),
    HostSign("no-file", ("failed to create shim task", ".toml: file /", "does not exist"),
             "the runtime's configuration names a file that this node does not have",
             "copy the image's files to that path on every node of the class, or correct the path in its config.d",
             HOST),
    HostSign("no-syslog", ("Unix syslog delivery error",),
             "the runtime found no syslog on the node, and does not start without one",
             "run journald or a syslog daemon there: /dev/log, /var/run/syslog or /var/run/log must be its socket",
             HOST),
    HostSign("no-handler", ("no runtime for", "is configured"),
             "containerd on this node does not have the runtime that the pod's class names",
             "install the runtime class on the node, or select nodes that have it", HOST),
    HostSign("no-class", ("RuntimeClass", "not found"),
             "the cluster has no runtime class of the name that the pod gives",
             "correct runtimeClassName; kubectl get runtimeclass lists what there is", AUTHOR),
    HostSign("admission", ("UnexpectedAdmissionError",),
             "kubelet could not allocate the devices that the pod asks for",
             "create the pod again; if that does not help, read the log of the device plugin on the node", HOST),
    HostSign("pod-resources", ("PodResources API Get method disabled",),
             "the runtime asks kubelet which devices the pod has, and kubelet does not answer that question",
             "switch kubelet's feature gate KubeletPodResourcesGet on (it is on from Kubernetes 1.34) and restart "
             "kubelet",
             HOST),
    HostSign("no-gpu-free", ("Insufficient nvidia.com/",), "no node has as many free GPUs as the pod asks for",
             "ask for fewer, wait for a node, or see with kubectl describe node why the GPUs are not offered", AUTHOR),
    HostSign("outer-cdi", ("unresolvable CDI devices", "nvidia.com/pgpu"),
             "the node's CDI document does not have the device that the pod was given",
             "check /var/run/cdi on the node: the device plugin writes nvidia.com-pgpu.yaml", HOST),
    HostSign("guest-cdi", ("failed to inject devices after CDI timeout",),
             "the container asks for a device that the guest's CDI document does not have",
             "compare the device's name with /var/run/cdi/nvidia.yaml in the guest: nvrc.gpus, nvrc.mig and the "
             "runtime decide the names", PLATFORM),
    HostSign("block-driver", ("waiting for uevent",),
             "the guest kernel has no driver for a disk that the runtime attached",
             "put the driver into the image (virtio_blk, or virtio_scsi and sd_mod), or set block_device_driver of the "
             "class",
             PLATFORM),
    HostSign("dma-limit", ("vfio_register_ram_discard_listener",),
             "the host's limit of DMA mappings is too low for this VM",
             "raise dma_entry_limit of the module vfio_iommu_type1 on the node", HOST),
    HostSign("create-timeout", ("CreateContainerRequest timed out",),
             "the agent runs but did not create the container in time",
             "raise create_container_timeout of the class when the image is large; else read the agent's lines", HOST),
    HostSign("dead-agent", ("CheckRequest timed out",), "the agent in the VM no longer answers the runtime",
             f"read the end of the VM's console: memory, a kernel panic or a lost GPU; to have it, {SEE_CONSOLE}",
             PLATFORM),
    HostSign("dead-agent-word", ("Dead agent",), "the agent in the VM no longer answers the runtime",
             f"read the end of the VM's console: memory, a kernel panic or a lost GPU; to have it, {SEE_CONSOLE}",
             PLATFORM),
    HostSign("no-agent", ("timed out connecting to", "vsock"),
             "the guest never reached the agent, and nothing in it said why",
             SEE_CONSOLE, HOST),
    HostSign("kubelet-limit", ("stream terminated by RST_STREAM", "CANCEL"),
             "kubelet gave up before the VM was ready or the runtime had told why it was not",
             "raise runtimeRequestTimeout of kubelet above dial_timeout of the class, or lower dial_timeout", HOST),
)


def find_sign(text: str) -> HostSign | None:
    return next((row for row in HOST_SIGNS if all(word in text for word in row.words)), None)
