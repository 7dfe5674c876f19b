# SPDX-License-Identifier: Apache-2.0
"""Every fixed path of the guest on one page: the file contract between image, init and agent."""

AGENT = "/usr/bin/kata-agent"
POLICY = "/etc/nvrc/policy.toml"
HOSTNAME = "/etc/hostname"

RUN = "/run/nvrc"
REPORT = "/run/nvrc/boot.json"
STATUS = "/run/nvrc/status.json"
CONTROL = "/run/nvrc/control.sock"
SYSLOG = "/run/syslog.log"

DEV_LOG = "/dev/log"
KMSG = "/dev/kmsg"
CMDLINE = "/proc/cmdline"
FILESYSTEMS = "/proc/filesystems"
KEXEC_DISABLED = "/proc/sys/kernel/kexec_load_disabled"
MODULES_DISABLED = "/proc/sys/kernel/modules_disabled"
PRINTK_DEVKMSG = "/proc/sys/kernel/printk_devkmsg"
CTRL_ALT_DEL = "/proc/sys/kernel/ctrl-alt-del"

PCI_DEVICES = "/sys/bus/pci/devices"
CGROUP = "/sys/fs/cgroup"

EXTENSIONS = "/run/kata-extensions"
GPU_EXTENSION = "/run/kata-extensions/gpu"
FIRMWARE = "/lib/firmware/nvidia"
LDCONFIG = "/sbin/ldconfig"
LD_CACHE = "/etc/ld.so.cache"
OSRELEASE = "/proc/sys/kernel/osrelease"
PROC_DEVICES = "/proc/devices"
NVIDIA_PROC = "/proc/driver/nvidia"
CDI_SPEC = "/var/run/cdi/nvidia.yaml"
