# SPDX-License-Identifier: Apache-2.0
"""What a host needs to run an image: a drop-in for Kata's runtime configuration and a Pod that uses it.

Keys are those of the [hypervisor.qemu] section (configuration-qemu-nvidia-gpu*.toml); a drop-in in config.d/ sets them
and leaves the rest to the class. The runtime itself puts the extensions' parameters on the kernel command line. Both
files are parsed again and checked before they are written.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from nvrc_build.ground.errors import BuildError
from nvrc_build.output.verity import parse_parameters
from nvrc_build.papers.inventory import Inventory

# Runtime classes, and whether the class boots a base image with extensions (runtime-rs) or one image with everything.
CLASSES: Mapping[str, bool] = {
    "kata-qemu-nvidia-gpu": False,
    "kata-qemu-nvidia-gpu-snp": False,
    "kata-qemu-nvidia-gpu-tdx": False,
    "kata-qemu-nvidia-gpu-runtime-rs": True,
    "kata-qemu-nvidia-gpu-snp-runtime-rs": True,
    "kata-qemu-nvidia-gpu-tdx-runtime-rs": True,
    "kata-qemu-nvidia-cpu": True,
}
# What the classes' own configurations pass (Makefiles of both runtimes): a drop-in's kernel_params takes their place.
_CLASS_PARAMETERS = "cgroup_no_v1=all pci=realloc pci=nocrs pci=assign-busses"
_CONFIDENTIAL_PARAMETERS = f"{_CLASS_PARAMETERS} nvrc.smi.srs=1"
_EXTENSION_NAME = re.compile(r"[A-Za-z0-9_-]{1,10}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    name: str
    image: Path
    parameters: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KataConfig:
    drop_in: str
    pod: str


def read_parameters(image: Inventory) -> str:
    line = (image.folder / "verity.txt").read_text(encoding="ascii").strip()
    parse_parameters(line)
    return line


def write_config(image: Inventory, runtime_class: str, *, kernel: Path | None = None,
                 extensions: tuple[Extension, ...] = (), kernel_params: str = "") -> KataConfig:
    if runtime_class not in CLASSES:
        raise BuildError(f"runtime class {runtime_class!r} is unknown", f"there are: {', '.join(CLASSES)}")
    if extensions and not CLASSES[runtime_class]:
        raise BuildError(f"runtime class {runtime_class} takes no extensions", "use a -runtime-rs class, or one image")
    if '"' in kernel_params or "\n" in kernel_params:
        raise BuildError("kernel parameters with a quote or a line break cannot be passed on", "leave them out")
    rows = _boot_rows(image, kernel)
    rows |= {"kernel_params": f"{class_parameters(runtime_class)} {kernel_params}"} if kernel_params else {}
    drop_in = "[hypervisor.qemu]\n" + "".join(f"{key} = {_quote(value)}\n" for key, value in rows.items())
    drop_in += "".join(_extension_table(row) for row in extensions)
    config = KataConfig(drop_in=drop_in, pod=_pod(image, runtime_class))
    validate(config)
    return config


def class_parameters(runtime_class: str) -> str:
    is_confidential = {"snp", "tdx"} & set(runtime_class.split("-"))
    return _CONFIDENTIAL_PARAMETERS if is_confidential else _CLASS_PARAMETERS


def _boot_rows(image: Inventory, kernel: Path | None) -> dict[str, str]:
    """Image or initrd, never both: the runtime refuses a configuration with two."""
    folder = image.folder.resolve()
    chosen = kernel.resolve() if kernel is not None else folder / "vmlinuz"
    rows = {"kernel": str(chosen)} if kernel is not None or chosen.is_file() else {}
    if image.format == "disk":
        return {**rows, "image": str(folder / "disk.img"), "initrd": "", "rootfs_type": image.filesystem,
                "kernel_verity_params": read_parameters(image)}
    return {**rows, "initrd": str(folder / "initrd"), "image": ""}


def _quote(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _extension_table(row: Extension) -> str:
    if not _EXTENSION_NAME.fullmatch(row.name):
        raise BuildError(f"extension name {row.name!r} does not fit",
                         "1 to 10 letters, digits, '-' or '_': the disk's serial has 20 bytes")
    return (f"\n[[hypervisor.qemu.guest_extension_images]]\nname = {_quote(row.name)}\n"
            f"path = {_quote(str(row.image))}\nverity_params = {_quote(row.parameters)}\n")


def _pod(image: Inventory, runtime_class: str) -> str:
    gpu = {} if runtime_class.endswith("-cpu") else {"resources": {"limits": {"nvidia.com/pgpu": "1"}}}
    document = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"nvrc-{image.image}"},
        "spec": {
            "runtimeClassName": runtime_class, "restartPolicy": "Never",
            "containers": [{"name": "workload", "image": "cuda-vectoradd", "imagePullPolicy": "IfNotPresent", **gpu}],
        },
    }
    return str(yaml.safe_dump(document, sort_keys=False))


def validate(config: KataConfig) -> None:
    """Both documents parse, and say what their reader needs."""
    findings = []
    try:
        hypervisor = tomllib.loads(config.drop_in)["hypervisor"]["qemu"]
        if bool(hypervisor.get("image")) == bool(hypervisor.get("initrd")):
            findings.append("the drop-in needs exactly one of image and initrd")
        for key in ("kernel", "image", "initrd"):
            if hypervisor.get(key) and not Path(hypervisor[key]).is_file():
                findings.append(f"the drop-in's {key} {hypervisor[key]} does not exist")
        if hypervisor.get("kernel_verity_params"):
            parse_parameters(hypervisor["kernel_verity_params"])
        for row in hypervisor.get("guest_extension_images", ()):
            parse_parameters(row["verity_params"])
            if not Path(row["path"]).is_file():
                findings.append(f"extension {row['name']}: {row['path']} does not exist")
    except (tomllib.TOMLDecodeError, KeyError, BuildError) as wrong:
        findings.append(f"the drop-in cannot be read back: {wrong}")
    pod = yaml.safe_load(config.pod)
    if pod.get("kind") != "Pod" or pod["spec"].get("runtimeClassName") not in CLASSES:
        findings.append("the Pod does not name a runtime class")
    if findings:
        raise BuildError("the Kata configuration is not good", findings=tuple(findings))
