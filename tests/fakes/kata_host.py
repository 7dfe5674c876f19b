# SPDX-License-Identifier: Apache-2.0
"""A recorded Kata host as a folder: two H100 and a switch bound to vfio-pci, kubelet, containerd 2.2, Kata 4.1. All is well with it.

Tests take one thing away or change it. `node` is what kubectl tells of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

GPUS, SWITCH = ("0000:18:00.0", "0000:2a:00.0"), "0000:3b:00.0"
PORTS = {"0000:18:00.0": "0000:17:01.0", "0000:2a:00.0": "0000:29:01.0", "0000:3b:00.0": "0000:3a:01.0"}
CLASSES = "/opt/kata/share/defaults/kata-containers"
GO, RUST = f"{CLASSES}/runtimes/qemu-nvidia-gpu", f"{CLASSES}/runtime-rs/runtimes/qemu-nvidia-gpu-snp-runtime-rs"
GO_CONFIG, RUST_CONFIG = f"{GO}/configuration-qemu-nvidia-gpu.toml", f"{RUST}/configuration-qemu-nvidia-gpu-snp-runtime-rs.toml"
IMAGE = "/opt/kata/share/kata-containers/kata.img"
BLOCK, START = 4096, 64
SALT = "00ff" * 16


@dataclass
class KataHost:
    root: Path
    node: dict[str, object] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        return self.root / name.lstrip("/")

    def put(self, name: str, text: str | bytes = "") -> Path:
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def replace(self, name: str, old: str, new: str) -> None:
        text = self.path(name).read_text()
        assert old in text, f"{name} has no {old!r}"
        self.put(name, text.replace(old, new))

    def link(self, name: str, target: str) -> None:
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    def remove(self, name: str) -> None:
        path = self.path(name)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()

    def label(self, **labels: str) -> None:
        metadata = self.node["metadata"]
        assert isinstance(metadata, dict)
        metadata["labels"] |= {f"nvidia.com/{name.replace('_', '.')}": value for name, value in labels.items()}

    def node_json(self) -> bytes:
        return json.dumps(self.node).encode()


def config_with(capability: int) -> bytes:
    """PCI configuration with one extended capability."""
    return bytes(256) + (1 << 16 | capability).to_bytes(4, "little") + bytes(4096 - 260)


def make_host(root: Path) -> KataHost:
    host = KataHost(root)
    _machine(host)
    for number, bdf in enumerate((*GPUS, SWITCH)):
        _device(host, bdf, number)
    _kubernetes(host)
    _kata(host)
    return host


def _machine(host: KataHost) -> None:
    host.put("/proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu svm sse\n")
    host.put("/proc/modules", "vfio_pci 16384 2 - Live 0x0\nkvm_amd 4096 1 - Live 0x0\n")
    host.put("/proc/sys/kernel/osrelease", "6.17.4-generic\n")
    for name in ("kvm", "vhost-vsock", "iommu"):
        host.put(f"/dev/{name}")
    host.put("/sys/module/kvm_amd/parameters/sev_snp", "Y\n")
    host.put("/sys/module/vfio_iommu_type1/parameters/dma_entry_limit", "4194304\n")


def _device(host: KataHost, bdf: str, number: int) -> None:
    is_gpu = bdf in GPUS
    port, group = PORTS[bdf], str(40 + number)
    real = f"/sys/devices/pci0000:{port[5:7]}/{port}/{bdf}"
    for name, text in (("vendor", "0x10de"), ("device", "0x2330" if is_gpu else "0x22a3"),
                       ("class", "0x030200" if is_gpu else "0x068000"), ("power_state", "D0"), ("d3cold_allowed", "0")):
        host.put(f"{real}/{name}", f"{text}\n")
    host.link(f"/sys/bus/pci/devices/{bdf}", f"../../../devices/pci0000:{port[5:7]}/{port}/{bdf}")
    host.link(f"/sys/bus/pci/devices/{port}", f"../../../devices/pci0000:{port[5:7]}/{port}")
    host.put(f"{real}/../config", config_with(0x000D))
    host.path("/sys/bus/pci/drivers/vfio-pci").mkdir(parents=True, exist_ok=True)
    host.link(f"{real}/driver", "../../../../bus/pci/drivers/vfio-pci")
    host.put(f"/sys/kernel/iommu_groups/{group}/devices/{bdf}")
    host.link(f"{real}/iommu_group", f"../../../../kernel/iommu_groups/{group}")
    host.put(f"{real}/vfio-dev/vfio{number}/dev", "511:0\n")
    host.put(f"/dev/vfio/devices/vfio{number}")
    if is_gpu:
        os.truncate(host.put(f"{real}/resource0"), 16 << 20)
        set_register(host, bdf, 0x1182CC, 1)


def set_register(host: KataHost, bdf: str, offset: int, value: int) -> None:
    with host.path(f"/sys/bus/pci/devices/{bdf}/resource0").open("r+b") as stream:
        stream.seek(offset)
        stream.write(value.to_bytes(4, "little"))


def _kubernetes(host: KataHost) -> None:
    host.put("/var/lib/kubelet/config.yaml", "kind: KubeletConfiguration\nruntimeRequestTimeout: 20m0s\n"
             "featureGates:\n  RuntimeClassInImageCriApi: true\n  KubeletPodResourcesGet: true\n")
    host.put("/var/lib/kubelet/pod-resources/kubelet.sock")
    devices = "".join(f'- name: "{number}"\n  containerEdits:\n    deviceNodes:\n    - path: /dev/vfio/devices/vfio{number}\n'
                      for number in range(3))
    host.put("/var/run/cdi/nvidia.com-pgpu.yaml", f"cdiVersion: 0.5.0\nkind: nvidia.com/pgpu\ndevices:\n{devices}")
    host.put("/etc/containerd/config.toml", 'version = 3\nimports = ["/opt/kata/containerd/config.d/*.toml"]\n'
             "[plugins.\"io.containerd.cri.v1.runtime\"]\nenable_cdi = true\n")
    runtimes = "".join(
        f'[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.{name}]\nruntime_type = "io.containerd.{name}.v2"\n'
        f'runtime_path = "/opt/kata/{shim}bin/containerd-shim-kata-v2"\nprivileged_without_host_devices = true\n'
        f'pod_annotations = ["io.katacontainers.*"]\n'
        f'[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.{name}.options]\nConfigPath = "{config}"\n'
        for name, shim, config in (("kata-qemu-nvidia-gpu", "", GO_CONFIG),
                                   ("kata-qemu-nvidia-gpu-snp-runtime-rs", "runtime-rs/", RUST_CONFIG)))
    host.put("/opt/kata/containerd/config.d/kata-deploy.toml", runtimes)
    host.node = {"kind": "Node", "metadata": {"labels": {
        "nvidia.com/cc.mode": "on", "nvidia.com/cc.mode.state": "on", "nvidia.com/cc.ready.state": "true",
        "nvidia.com/gpu.workload.config": "vm-passthrough"}},
        "status": {"nodeInfo": {"containerRuntimeVersion": "containerd://2.2.1", "kubeletVersion": "v1.34.2"}}}


def _kata(host: KataHost) -> None:
    host.put("/opt/kata/VERSION", "4.1.0\n")
    host.put("/opt/kata/versions.yaml", "assets:\n  hypervisor:\n    qemu:\n      version: v10.1.2\nexternals:\n  ovmf:\n"
             "    sev:\n      version: edk2-stable202511\n    x86_64:\n      version: edk2-stable202511\n")
    for name in ("bin/qemu-system-x86_64", "share/kata-containers/vmlinuz", "share/ovmf/AMDSEV.fd"):
        host.put(f"/opt/kata/{name}", "x")
    top = bytes(range(256)) * 16
    image = bytearray(START * 512 + BLOCK)
    image[510:512] = b"\x55\xaa"
    image[446 + 24:446 + 28] = START.to_bytes(4, "little")
    image[START * 512:] = top
    host.put(IMAGE, bytes(image))
    line = (f"root_hash={hashlib.sha256(bytes.fromhex(SALT) + top).hexdigest()},salt={SALT},data_blocks=2,"
            f"data_block_size=4096,hash_block_size={BLOCK}")
    common = ('[hypervisor.qemu]\npath = "/opt/kata/bin/qemu-system-x86_64"\nkernel = "/opt/kata/share/kata-containers/vmlinuz"\n'
              f'image = "{IMAGE}"\nkernel_verity_params = "{line}"\ncold_plug_vfio = "root-port"\npcie_root_port = 8\n'
              'kernel_params = "cgroup_no_v1=all"\ndefault_memory = 8192\nenable_numa = false\n')
    host.put(GO_CONFIG, f'{common}[agent.kata]\ndial_timeout = 1200\n[runtime]\nvfio_mode = "guest-kernel"\n'
             "enable_vcpus_pinning = false\n")
    host.put(RUST_CONFIG, f'{common}sev_snp_guest = true\nconfidential_guest = true\nfirmware = "/opt/kata/share/ovmf/AMDSEV.fd"\n'
             '[agent.kata]\nreconnect_timeout_ms = 45000\n[runtime]\nname = "virt_container"\n')
    host.put(f"{RUST}/config.d/50-nvrc.toml", "[agent.kata]\nreconnect_timeout_ms = 1300000\n")
