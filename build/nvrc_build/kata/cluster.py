# SPDX-License-Identifier: Apache-2.0
"""What the cluster is told: a RuntimeClass, values for kata-deploy's Helm chart, and a Pod to try it with.

A custom runtime (`customRuntimes` of the chart) is a copy of a class with a drop-in of its own: upgrades of Kata keep
it, and the class itself stays as it was. The chart takes the handler from a line `handler:` of the RuntimeClass's text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import yaml

from nvrc_build.ground.errors import WrongCallError
from nvrc_build.kata.classes import KataClass, Tee
from nvrc_build.kata.timeouts import Machine

# Names of Kubernetes objects: RFC 1123 labels. Container images: as far as a YAML text is safe with them.
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_MEMORY = re.compile(r"[1-9][0-9]{0,9}(Mi|Gi|Ti)")
_IMAGE = re.compile(r"[a-z0-9][A-Za-z0-9._/:@-]{0,254}")
GPU_IMAGE = "nvcr.io/nvidia/k8s/cuda-sample:vectoradd-cuda12.5.0-ubuntu22.04"
CPU_IMAGE = "docker.io/library/busybox:1.37"
GPU_MEMORY, CPU_MEMORY = "16Gi", "256Mi"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """`runtime_class`: the name of a RuntimeClass, Kata's own or a custom one. Empty texts: the class's default."""

    runtime_class: str
    machine: Machine
    image: str = ""
    memory: str = ""


def write_pod(kata: KataClass, workload: Workload) -> str:
    image = workload.image or (GPU_IMAGE if kata.has_gpus else CPU_IMAGE)
    memory = workload.memory or (GPU_MEMORY if kata.has_gpus else CPU_MEMORY)
    _check(image, _IMAGE, "container image", "give --pod-image REGISTRY/NAME:TAG")
    _check(memory, _MEMORY, "amount of memory", "give --memory like 16Gi")
    limits = {"memory": memory}
    for name, count in (("pgpu", workload.machine.gpus), ("nvswitch", workload.machine.nvswitches)):
        limits |= {f"nvidia.com/{name}": str(count)} if count else {}
    container: dict[str, object] = {"name": "workload", "image": image, "resources": {"limits": limits}}
    if not workload.image and not kata.has_gpus:
        container["command"] = ["uname", "-a"]
    return _dump({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"{workload.runtime_class}-test"},
                  "spec": {"runtimeClassName": workload.runtime_class, "restartPolicy": "Never",
                           "containers": [container]}})


def write_runtime_class(kata: KataClass, name: str) -> str:
    check_name(name)
    return _dump({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, "handler": name,
                  "overhead": {"podFixed": {"memory": kata.overhead_memory, "cpu": kata.overhead_cpu}},
                  "scheduling": {"nodeSelector": kata.node_selector()}})


def write_values(kata: KataClass, name: str, drop_in: str) -> str:
    runtime: dict[str, object] = {"baseConfig": kata.shim, "dropIn": _Block(drop_in),
                                  "runtimeClass": _Block(write_runtime_class(kata, name))}
    runtime |= {"containerd": {"snapshotter": kata.snapshotter}} if kata.snapshotter else {}
    runtime |= {"crio": {"pullType": "guest-pull"}} if kata.tee is not Tee.NONE else {}
    return _dump({"customRuntimes": {"enabled": True, "runtimes": {name.removeprefix("kata-"): runtime}}})


def check_name(name: str) -> None:
    _check(name, _LABEL, "name of a RuntimeClass", "give --name 1 to 63 small letters, digits and '-'")
    if not name.startswith("kata-"):
        raise WrongCallError(f"{name!r} is not a name of a RuntimeClass of Kata", "give --name kata-...")


def default_name(kata: KataClass) -> str:
    return f"kata-nvrc-{kata.shim.removeprefix('qemu-')}"


def _check(text: str, pattern: re.Pattern[str], what: str, remedy: str) -> None:
    if not pattern.fullmatch(text):
        raise WrongCallError(f"{text!r} is not valid as {what}", remedy)


class _Block(str):
    """Text that stays as it is, line by line."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    """Knows _Block."""


_Dumper.add_representer(_Block, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", str(text), "|"))


def _dump(document: dict[str, object]) -> str:
    return str(yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=1000))
