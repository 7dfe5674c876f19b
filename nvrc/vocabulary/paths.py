# SPDX-License-Identifier: Apache-2.0
"""Every fixed path of the guest on one page: the file contract between image, init and agent."""

AGENT = "/usr/bin/kata-agent"
POLICY_FOLDER = "/etc/nvrc"
POLICY = "/etc/nvrc/policy.toml"
LAST = "/usr/lib/nvrc/last"  # behind all else in an initrd; nvrc/first.c looks for it
METRICS = "/usr/lib/nvrc-metrics/nvrc-metrics"
HOSTNAME = "/etc/hostname"

RUN = "/run/nvrc"
REPORT = "/run/nvrc/boot.json"
STATUS = "/run/nvrc/status.json"
CONTROL = "/run/nvrc/control.sock"
SYSLOG = "/run/syslog.log"

DEV_LOG = "/dev/log"
DEV_LOG_GROUP = 64910  # may write to it after the hand-over; the other group of all programs that PID 1 confines
KMSG = "/dev/kmsg"
VSOCK = "/dev/vsock"
CMDLINE = "/proc/cmdline"
CPUINFO = "/proc/cpuinfo"
FILESYSTEMS = "/proc/filesystems"
OWN_STATUS = "/proc/self/status"
KEXEC_DISABLED = "/proc/sys/kernel/kexec_load_disabled"
MODULES_DISABLED = "/proc/sys/kernel/modules_disabled"
LOCKDOWN = "/sys/kernel/security/lockdown"
PRINTK_DEVKMSG = "/proc/sys/kernel/printk_devkmsg"
SYSRQ = "/proc/sysrq-trigger"
CTRL_ALT_DEL = "/proc/sys/kernel/ctrl-alt-del"

PCI_DEVICES = "/sys/bus/pci/devices"
VIRTIO_DEVICES = "/sys/bus/virtio/devices"
CGROUP = "/sys/fs/cgroup"
CGROUPS = "/proc/cgroups"

# kata-agent makes it with its first sandbox; /run is one and the same in its namespaces and in ours.
SANDBOX = "/run/kata-containers"

EXTENSIONS = "/run/kata-extensions"
GPU_EXTENSION = "/run/kata-extensions/gpu"
FIRMWARE = "/lib/firmware/nvidia"
LDCONFIG = "/sbin/ldconfig"
LDCONFIG_HOME = "/run/nvrc-ldconfig"
LD_CACHE = "/etc/ld.so.cache"
OSRELEASE = "/proc/sys/kernel/osrelease"
PROC_DEVICES = "/proc/devices"
PROC_MISC = "/proc/misc"
NVIDIA_CONTROL = "/dev/nvidiactl"
NVIDIA_PROC = "/proc/driver/nvidia"
CDI_FOLDER = "/var/run/cdi"
CDI_SPEC = "/var/run/cdi/nvidia.yaml"
CDI_RUN = "/run/cdi"
GPUS_FOLDER = "/run/nvrc/gpus"  # containers that wait have it at the same place (nvrc/await.c)
GPUS_READY = "/run/nvrc/gpus/ready"  # PID 1's word, for which they wait
AWAIT, AWAIT_INSIDE = "/usr/lib/nvrc/await", "/run/nvrc/await"
CDI_HELD = "/run/nvrc/cdi-held.yaml"  # no place that the agent reads
ATTESTATION_AGENT = "/run/confidential-containers/attestation-agent/attestation-agent.sock"
VERIFIER_HOME = "/run/nvrc-verifier"

FABRIC_CONFIG = "/run/fabricmanager.cfg"
FABRIC_RUN = "/run/nvidia-fabricmanager"
FABRIC_FOLDER = "/var/run/nvidia-fabricmanager"  # as the daemons write it
SUBNET_SOCKET = "/run/nvrc/nvidia-fabricmanager/fm_sm_ipc.socket"  # where theirs is for PID 1
INFINIBAND = "/sys/class/infiniband"
INFINIBAND_NODES = "/dev/infiniband"
TOPOLOGY_FILES = "/etc/nvrc/topology"
TOPOLOGY_HOME = "/run/nvidia-topologyd"
TOPOLOGY_FILE = "/run/nvidia-topologyd/virtualTopology.xml"
PERSISTENCED_HOME = "/run/nvidia-persistenced"
PERSISTENCED_PID = "/run/nvrc/nvidia-persistenced/nvidia-persistenced.pid"  # as PID 1 sees its own folder
HOSTENGINE_HOME = "/run/nv-hostengine"
HOSTENGINE_PID = "/run/nv-hostengine/nv-hostengine.pid"
EXPORTER_HOME = "/run/dcgm-exporter"
DCGM_COUNTERS = "/etc/dcgm-exporter/default-counters.csv"
GPU_PROC = "/proc/driver/nvidia/gpus"
