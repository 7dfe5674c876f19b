# SPDX-License-Identifier: Apache-2.0
"""Texts that the lab's kit puts into a guest: configuration as the packages ship it, and an OCI container's."""

from __future__ import annotations

from collections.abc import Mapping

LIBRARIES = "/usr/lib/x86_64-linux-gnu"
FABRIC_CONFIG = """\
# Stock configuration of the fabric manager, as its package ships it.
LOG_LEVEL=4
LOG_FILE_NAME=/var/log/fabricmanager.log
LOG_USE_SYSLOG=1
DAEMONIZE=1
BIND_INTERFACE_IP=127.0.0.1
FABRIC_MODE=0
FABRIC_MODE_RESTART=0
TOPOLOGY_FILE_PATH=/usr/share/nvidia/nvswitch
DATABASE_PATH=/usr/share/nvidia/nvswitch
"""
IMAGE_TEXTS: Mapping[str, str] = {
    "/etc/netconfig": "udp        tpi_clts      v     inet     udp     -       -\n",
    "/etc/passwd": "root:x:0:0:root:/root:/nonexistent\nnobody:x:65534:65534:nobody:/nonexistent:/nonexistent\n"
                   "nvidia-dcgm:x:999:999::/nonexistent:/nonexistent\n",
    "/etc/dcgm-exporter/default-counters.csv": "DCGM_FI_DEV_GPU_TEMP, gauge, GPU temperature (in C).\n",
}
DRIVER_TEXTS: Mapping[str, str] = {
    "/usr/share/nvidia/nvswitch/fabricmanager.cfg": FABRIC_CONFIG,
    "/usr/share/nvidia/nvswitch/dgxh100_hgxh100_topology": "stand-in topology\n",
    "/usr/share/nvidia/nvlsm/nvlsm.conf": "# stand-in subnet manager configuration\n",
}
CONTAINER_CONFIG = {
    "ociVersion": "1.0.2",
    "process": {"user": {"uid": 0, "gid": 0}, "args": ["/look", LIBRARIES], "cwd": "/", "env": ["PATH=/"]},
    "root": {"path": "rootfs"},
    "hostname": "lab",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
    ],
    "linux": {
        "cgroupsPath": "/kubepods/lab",
        "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")],
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
    },
}
# For a container that is given nothing: a program that needs nothing.
PLAIN_CONFIG = {**CONTAINER_CONFIG, "process": {"user": {"uid": 0, "gid": 0}, "args": ["/look-plain"], "cwd": "/",
                                                "env": ["PATH=/"]}}
