# SPDX-License-Identifier: Apache-2.0
"""Kata on this host: its classes as they are merged, and whether a VM with GPUs can come up under them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nvrc.params.parse import Settings, parse
from nvrc.preflight.containerd import kata_runtimes
from nvrc.preflight.devices import devices
from nvrc.preflight.host import Host, dig, table
from nvrc.preflight.kata_merge import Merged, merge, misfits
from nvrc.preflight.row import Judgement, bad, good, unknown, unused, warning
from nvrc.vocabulary.digits import is_number
from nvrc.vocabulary.errors import NvrcError

DEFAULTS = "/opt/kata/share/defaults/kata-containers"
SHIMS = tuple(
    f"{folder}/containerd-shim-kata-v2"
    for folder in ("/opt/kata/bin", "/opt/kata/runtime-rs/bin", "/usr/local/bin", "/usr/bin")
)
DEEPEST = 4
START_S, START_TEE_S, SLOWEST_GPU_S = 60, 180, 35
NO_CLASS = "no class of this host has GPUs"
FILES = ("path", "kernel", "image", "initrd", "firmware")
SECTOR, MOST_SECTORS = 512, 1 << 40


@dataclass(frozen=True, slots=True)
class Class:
    name: str
    path: str
    is_rust: bool
    merged: Merged

    @property
    def hypervisor(self) -> Mapping[str, object]:
        return next((table(row) for row in table(self.merged.table.get("hypervisor")).values()), {})

    @property
    def agent(self) -> Mapping[str, object]:
        return next((table(row) for row in table(self.merged.table.get("agent")).values()), {})

    @property
    def runtime(self) -> Mapping[str, object]:
        return table(self.merged.table.get("runtime"))

    @property
    def has_gpus(self) -> bool:
        return "nvidia-gpu" in self.name or self.hypervisor.get("cold_plug_vfio", "no-port") != "no-port"

    @property
    def tee(self) -> str:
        if self.hypervisor.get("sev_snp_guest") is True:
            return "snp"
        if self.hypervisor.get("confidential_guest") is True:
            return "tdx"
        return ""

    def number(self, name: str) -> int:
        value = self.hypervisor.get(name)
        return value if type(value) is int else 0


def is_kata_host(host: Host) -> bool:
    return bool(host.exists("/opt/kata") or kata_runtimes(host) or any(map(host.exists, SHIMS)))


def classes(host: Host) -> tuple[Class, ...]:
    """Those that containerd knows; where it knows none, those that are installed."""
    known = kata_runtimes(host)
    places = {one.config: (name, one.is_rust) for name, one in known.items() if one.config}
    if not places:
        places = {path: (_name_of(path), "/runtime-rs/" in path) for path in _installed(host, DEFAULTS, DEEPEST)}
    found = []
    for path, (name, is_rust) in sorted(places.items()):
        merged = merge(host, path, is_rust=is_rust)
        if merged is not None:
            found.append(Class(name, path, is_rust, merged))
    return tuple(found)


def _name_of(path: str) -> str:
    return path.rpartition("/")[2].removeprefix("configuration-").removesuffix(".toml")


def _installed(host: Host, folder: str, depth: int) -> Iterator[str]:
    for name in host.listing(folder):
        path = f"{folder}/{name}"
        if name.startswith("configuration-") and name.endswith(".toml") and not host.is_link(path):
            yield path
        elif depth and name != "config.d" and not host.is_link(path):
            yield from _installed(host, path, depth - 1)


def judge_classes(host: Host) -> Iterator[Judgement]:
    lost = [
        f"containerd's runtime {name} names {one.config}, which {_lack(host, one.config)}"
        for name, one in kata_runtimes(host).items()
        if one.config and _lack(host, one.config)
    ]
    found = classes(host)
    lost += [f"class {one.name}: {misfit}" for one in found for misfit in misfits(one.hypervisor)]
    yield from map(bad, lost)
    if not found:
        yield bad(
            "no configuration of a Kata class was found: containerd names none, and there is none below " + DEFAULTS
        )
    elif not lost:
        yield good(f"{len(found)} classes: {', '.join(one.name for one in found)}")


def _lack(host: Host, path: str) -> str:
    if not host.exists(path):
        return "is missing"
    return "" if host.is_file(path) or path in host.refused else "is not a file"


def judge_drop_ins(host: Host) -> Iterator[Judgement]:
    found = classes(host)
    problems = [f"class {one.name}: {problem}" for one in found for problem in one.merged.problems]
    yield from (bad(problem) for problem in problems)
    if not found:
        yield unused("no Kata class")
    elif not problems:
        yield good(f"{sum(len(one.merged.drop_ins) for one in found)} drop-ins of {len(found)} classes are merged")


def judge_cold_plug(host: Host) -> Iterator[Judgement]:
    with_gpus = [one for one in classes(host) if one.has_gpus]
    if not with_gpus:
        yield warning(NO_CLASS)
        return
    plugged, is_good = len(devices(host)), True
    for one in with_gpus:
        for wrong in _wrong_plug(one, plugged):
            is_good = False
            yield wrong
    if is_good:
        yield good(f"{', '.join(one.name for one in with_gpus)}: cold plug on root ports, enough of them")


def _wrong_plug(one: Class, plugged: int) -> Iterator[Judgement]:
    port = one.hypervisor.get("cold_plug_vfio", "no-port")
    if port != "root-port":
        yield bad(f'class {one.name} has cold_plug_vfio = {port!r}; GPUs require "root-port"')
    if one.number("pcie_root_port") < plugged:
        yield warning(
            f"class {one.name} has pcie_root_port = {one.number('pcie_root_port')}; a pod with all {plugged} "
            "devices of this host needs as many"
        )
    mode = one.runtime.get("vfio_mode", "guest-kernel")
    if mode != "guest-kernel":
        yield bad(f'class {one.name} has vfio_mode = {mode!r}; the guest\'s driver requires "guest-kernel"')


def judge_timeouts(host: Host) -> Iterator[Judgement]:
    with_gpus = [one for one in classes(host) if one.has_gpus]
    if not with_gpus:
        yield unused(NO_CLASS)
        return
    gpus, is_good = max(1, sum(device.function.is_gpu for device in devices(host))), True
    for one in with_gpus:
        needed = budget_s(one, gpus)
        waits, name = dial_s(one)
        if waits < needed:
            is_good = False
            yield bad(f"class {one.name} waits {waits:g} s for the agent ({name}); {gpus} GPUs may take {needed:g} s")
    if is_good:
        yield good(f"every class with GPUs waits long enough for {gpus} GPUs")


def dial_s(one: Class) -> tuple[float, str]:
    name, divisor = ("reconnect_timeout_ms", 1000) if one.is_rust else ("dial_timeout", 1)
    value = one.agent.get(name)  # what is no whole number of 32 bits ends the runtime; `nan` is less than nothing
    return (value / divisor if type(value) is int and value < 1 << 32 else 0.0), name


def budget_s(one: Class, gpus: int) -> float:
    """As docs/deploy.md has it: the start of the VM, the whole boot, and the longest single deadline after that."""
    try:
        settings = parse(str(one.hypervisor.get("kernel_params", "")).encode()).settings
    except NvrcError:
        settings = Settings()
    longest = (
        max(settings.timeout_persistenced_s, settings.timeout_fabric_s)
        + (settings.timeout_per_gpu_s + SLOWEST_GPU_S) * gpus
    )
    return (START_TEE_S if one.tee else START_S) + settings.timeout_boot_s + longest


def judge_files(host: Host) -> Iterator[Judgement]:
    found = classes(host)
    lost = [
        (one, key, str(one.hypervisor[key]))
        for one in found
        for key in FILES
        if one.hypervisor.get(key) and not host.exists(str(one.hypervisor[key]))
    ]
    yield from (bad(f"class {one.name}: {key} = {path} is missing") for one, key, path in lost)
    if not found:
        yield unused("no Kata class")
    elif not lost:
        yield good(f"the files that {len(found)} classes name exist")


def judge_verity(host: Host) -> Iterator[Judgement]:
    judged = 0
    for one in classes(host):
        line, image = str(one.hypervisor.get("kernel_verity_params") or ""), str(one.hypervisor.get("image") or "")
        if not line or not image or one.hypervisor.get("initrd"):
            continue
        words = dict(word.partition("=")[::2] for word in line.split(","))
        judged += 1
        told = _root_hash(host, image, words)
        if told is None:
            yield unknown(f"class {one.name}: {image} has no hash tree that could be read in its second partition")
        elif told != words.get("root_hash"):
            yield bad(
                f"class {one.name}: {image} has root hash {told[:16]}..., kernel_verity_params says "
                f"{words.get('root_hash', '')[:16]}..."
            )
        else:
            yield good(f"class {one.name}: {image} has the root hash of kernel_verity_params")
    if not judged:
        yield unused("no class has kernel_verity_params and an image")


def _root_hash(host: Host, image: str, words: Mapping[str, str]) -> str | None:
    """Of the top block of the hash tree, which stands first in the partition; no superblock, as Kata writes it."""
    start = second_partition(host.block(image, 0, 34 * SECTOR) or b"")
    size = words.get("hash_block_size", "")
    salt = words.get("salt", "")
    if start is None or start > MOST_SECTORS or not is_number(size, 6) or not re.fullmatch("([0-9a-f]{2})*", salt):
        return None
    top = host.block(image, start * SECTOR, int(size))
    return hashlib.sha256(bytes.fromhex(salt) + top).hexdigest() if top and len(top) == int(size) else None


def second_partition(head: bytes) -> int | None:
    """Its first sector, by GPT or MBR."""
    if head[512:520] == b"EFI PART":
        entry = int.from_bytes(head[584:592], "little") * SECTOR + int.from_bytes(head[596:600], "little")
        start = int.from_bytes(head[entry + 32 : entry + 40], "little")
    elif head[510:512] == b"\x55\xaa":
        start = int.from_bytes(head[446 + 16 + 8 : 446 + 16 + 12], "little")
    else:
        return None
    return start or None


def judge_pinning(host: Host) -> Iterator[Judgement]:
    pinned = [
        one
        for one in classes(host)
        if one.runtime.get("enable_vcpus_pinning") is True and one.hypervisor.get("enable_numa") is True
    ]
    yield from (
        warning(
            f"class {one.name} has enable_numa and enable_vcpus_pinning: sandboxes share host processors "
            "(kata-containers#13539)"
        )
        for one in pinned
    )
    if not pinned:
        yield good("no class has NUMA and vCPU pinning together")


def judge_kata_manager(host: Host) -> Iterator[Judgement]:
    labels = host.labels
    if labels is not None and labels.get("nvidia.com/gpu.deploy.kata-manager") == "true":
        yield warning("the node is labelled for kata-manager, which the GPU operator has deprecated and ignores")
    elif host.listing("/opt/nvidia-gpu-operator/artifacts/runtimeclasses"):
        yield warning(
            "/opt/nvidia-gpu-operator/artifacts/runtimeclasses has classes of kata-manager, which is deprecated"
        )
    else:
        yield good("nothing of kata-manager is on this host")


def kata_version(host: Host) -> str | None:
    text = host.text("/opt/kata/VERSION")
    return text.splitlines()[0].strip() if text else None


def component(host: Host, *names: str) -> str | None:
    """A version of /opt/kata/versions.yaml."""
    document, _wrong = host.yaml("/opt/kata/versions.yaml")
    value = dig(document, *names, "version")
    return str(value) if value else None
