# SPDX-License-Identifier: Apache-2.0
"""The runtime classes of Kata 4.1 that take a guest of ours: what each class's own configuration says, a row each.

From the Makefiles and configuration-*.toml.in of both runtimes and the Helm chart of kata-deploy. A drop-in replaces
scalars and lists whole, so whoever writes one has to know what was there. Classes with another hypervisor, another
processor or a shared test policy (coco-dev) have no row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from nvrc.vocabulary.nearmiss import closest
from nvrc_build.ground.errors import WrongCallError


class Runtime(Enum):
    GO = "Go"
    RUST = "Rust"


class Tee(Enum):
    NONE = ""
    SNP = "snp"
    TDX = "tdx"


@dataclass(frozen=True, slots=True, kw_only=True)
class KataClass:
    """`shim`: kata-deploy's name, the baseConfig of a custom runtime. `extensions`: the class's own list."""

    shim: str
    runtime: Runtime
    tee: Tee
    has_gpus: bool
    kernel_params: str
    extensions: tuple[str, ...]
    overhead_memory: str
    overhead_cpu: str
    snapshotter: str

    @property
    def name(self) -> str:
        return f"kata-{self.shim}"

    @property
    def pulls_in_guest(self) -> bool:
        """The guest takes container images itself: the classes of a TEE."""
        return self.tee is not Tee.NONE

    @property
    def folder(self) -> str:
        """Where the class's configuration lies below kata-deploy's /opt/kata/share/defaults/kata-containers."""
        return f"{'runtime-rs/' if self.runtime is Runtime.RUST else ''}runtimes/{self.shim}"

    def node_selector(self) -> dict[str, str]:
        labels = {"katacontainers.io/kata-runtime": "true"}
        if self.has_gpus:
            labels["nvidia.com/cc.ready.state"] = "false" if self.tee is Tee.NONE else "true"
        return labels | _TEE_LABELS[self.tee]


_TEE_LABELS: Mapping[Tee, dict[str, str]] = {
    Tee.NONE: {}, Tee.SNP: {"amd.feature.node.kubernetes.io/snp": "true"},
    Tee.TDX: {"intel.feature.node.kubernetes.io/tdx": "true"},
}
# What the runtimes' arch/ says for every class of this processor that says nothing else.
_PLAIN = "cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1"
_NVIDIA = "cgroup_no_v1=all pci=realloc pci=nocrs pci=assign-busses"
_NVIDIA_TEE = f"{_NVIDIA} nvrc.smi.srs=1"
_RS = "-runtime-rs"


def _nvidia_gpu(tee: Tee, runtime: Runtime) -> KataClass:
    is_rust, is_tee = runtime is Runtime.RUST, tee is not Tee.NONE
    return KataClass(
        shim=f"qemu-nvidia-gpu{'-' + tee.value if is_tee else ''}{_RS if is_rust else ''}",
        runtime=runtime, tee=tee, has_gpus=True, kernel_params=_NVIDIA_TEE if is_tee else _NVIDIA,
        extensions=(("gpu", "coco") if is_tee else ("gpu",)) if is_rust else (),
        overhead_memory="10240Mi", overhead_cpu="1.0",
        snapshotter="nydus" if is_tee else "erofs" if is_rust else "")


def _cpu(shim: str, tee: Tee, runtime: Runtime, kernel_params: str) -> KataClass:
    is_rust, is_tee = runtime is Runtime.RUST, tee is not Tee.NONE
    return KataClass(
        shim=f"{shim}{'-' + tee.value if is_tee else ''}{_RS if is_rust else ''}",
        runtime=runtime, tee=tee, has_gpus=False, kernel_params=kernel_params,
        extensions=("coco",) if is_rust and is_tee else (), overhead_memory="2048Mi" if is_tee else "320Mi",
        overhead_cpu="1.0" if is_tee else "250m", snapshotter="nydus" if is_tee else "")


CLASSES: Mapping[str, KataClass] = {row.name: row for row in (
    *(_nvidia_gpu(tee, runtime) for runtime in Runtime for tee in Tee),
    *(_cpu("qemu-nvidia-cpu", Tee.NONE, runtime, _NVIDIA) for runtime in Runtime),
    *(_cpu("qemu", tee, runtime, _PLAIN) for runtime in Runtime for tee in Tee),
)}


def find_class(name: str) -> KataClass:
    found = CLASSES.get(name)
    if found is None:
        near = closest(name, CLASSES)
        raise WrongCallError(f"runtime class {name!r} is unknown",
                             f"did you mean {near}?" if near else f"there are: {', '.join(CLASSES)}")
    return found
