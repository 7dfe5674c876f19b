# SPDX-License-Identifier: Apache-2.0
"""A hostile container (tenant.c) in a machine of the lab, with the configuration that Kata's runtime hands to its agent."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from nvrc_build.after.contents import read_cpio
from nvrc_build.supply import compile as compiler
from nvrc_build.tree.tree import Origin, Tree
from nvrc_lab.ground.places import checkout
from nvrc_lab.kit import standins
from nvrc_lab.kit.archives import join_archives
from nvrc_lab.kit.image import BootFiles
from nvrc_lab.kit.kit import find_kit
from nvrc_lab.scenario.values import Scenario

PROGRAM = "/tenant"
SAYS = "tenant: "
# What containerd gives a container that asks for nothing.
CAPABILITIES = ("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
                "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE")
EVERY = (*CAPABILITIES, "CAP_DAC_READ_SEARCH", "CAP_LINUX_IMMUTABLE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_IPC_LOCK",
         "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT",
         "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_LEASE", "CAP_AUDIT_CONTROL",
         "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON",
         "CAP_BPF", "CAP_CHECKPOINT_RESTORE")
_MASKED = ("/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
           "/proc/sched_debug", "/sys/firmware", "/proc/scsi")
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_KEPT = ["nosuid", "noexec", "nodev"]
_CONFIG = "/lab/bundle/plain.json"
ENGINE = "/lab/engine"
LINKS = ("engine", "crun", "bundle", "container")  # of /lab


def make_config(words: tuple[str, ...], *, is_privileged: bool = False) -> str:
    """No network namespace, as the pod's is the guest's; no list of system calls, as Kata's agent is told of none."""
    capabilities = EVERY if is_privileged else CAPABILITIES
    access = "rw" if is_privileged else "ro"
    linux: dict[str, object] = {
        "cgroupsPath": "/kubepods/tenant",
        "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "cgroup")],
        "resources": {"devices": [{"allow": is_privileged, "access": "rwm"}]},
    }
    if not is_privileged:
        linux |= {"maskedPaths": _MASKED, "readonlyPaths": _READ_ONLY}
    return json.dumps({
        "ociVersion": "1.0.2",
        "process": {"user": {"uid": 0, "gid": 0}, "args": [PROGRAM, *words], "cwd": "/", "env": ["PATH=/"],
                    "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities), "noNewPrivileges": False},
        "root": {"path": "rootfs"},
        "hostname": "tenant",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": _KEPT},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*_KEPT, access]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": [*_KEPT, "relatime", access]},
        ],
        "linux": linux,
    })


def with_tenant(scenario: Scenario, *words: str, is_privileged: bool = False) -> Scenario:
    """`words`: what of it (tenant.c)."""
    return replace(scenario, files={**scenario.files, _CONFIG: make_config(words, is_privileged=is_privileged)})


def add_tenant(files: BootFiles, folder: Path) -> BootFiles:
    """The image, with the program in the root of the lab's container."""
    shop, work, tree = standins.open_workshop(checkout()), folder / "tenant", Tree()
    work.mkdir()
    compiler.compile_static((Path(__file__).with_suffix(".c"),), work, root=shop.root)
    tree.add_file(f"/lab/bundle/rootfs{PROGRAM}", work / "program", Origin(slice="tenant"), mode=0o755)
    join_archives([files.initrd], tree, folder / "initrd")
    return BootFiles(kernel=files.kernel, initrd=folder / "initrd")


def bundle_tree(folder: Path) -> Tree:
    """All that runs it, as an extension holds it; a root that has LINKS finds it there."""
    places = checkout()
    tree, origin, shop = Tree(), Origin(slice="tenant"), standins.open_workshop(places)
    for path, mode, data in read_cpio(find_kit(places, ["container"])["container"].read_bytes()):
        name = path.removeprefix("/lab")
        if name == path or not name or name == _CONFIG.removeprefix("/lab"):
            continue
        if stat.S_ISLNK(mode):
            tree.add_link(name, data.decode(), origin)
        elif stat.S_ISREG(mode):
            tree.add_file(name, data, origin, stat.S_IMODE(mode))
        else:
            tree.add_folder(name, origin)
    work = folder / "tenant"
    work.mkdir()
    compiler.compile_static((Path(__file__).with_suffix(".c"),), work, root=shop.root)
    tree.add_file(f"/bundle/rootfs{PROGRAM}", work / "program", origin, 0o755)
    tree.add_file(_CONFIG.removeprefix("/lab"), make_config(()).encode(), origin)
    tree.add_file("/container", b"none\n", origin)
    return tree


def read_answers(lines: tuple[str, ...]) -> Mapping[str, str]:
    """Try to `done`, or why it was refused."""
    told: dict[str, str] = {}
    for line in lines:
        _, is_told, text = line.partition(SAYS)
        name, _, answer = text.partition(" ")
        if is_told:
            told[name] = answer
    return told
