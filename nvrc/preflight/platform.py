# SPDX-License-Identifier: Apache-2.0
"""What the host's processor and kernel must offer: virtualisation, IOMMU, vsock, a trusted execution environment."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nvrc.preflight.host import Host
from nvrc.preflight.kata import classes
from nvrc.preflight.row import Judgement, bad, good, unknown, unused, warning

RELEASE = "/proc/sys/kernel/osrelease"
TEE_KERNEL = (6, 17)
SNP, TDX = "/sys/module/kvm_amd/parameters/sev_snp", "/sys/module/kvm_intel/parameters/tdx"
NO_DEV = "this copy of a host has no /dev"
ON = ("Y", "1", "y")


def judge_virtualisation(host: Host) -> Iterator[Judgement]:
    text = host.text("/proc/cpuinfo")
    if text is None:
        yield unknown("/proc/cpuinfo is missing")
    elif not re.search(r"^flags\s*:.*\b(vmx|svm)\b", text, re.MULTILINE):
        yield bad("the processor offers neither vmx nor svm: the firmware has it off, or this is a VM itself")
    elif not host.exists("/dev"):
        yield unknown(NO_DEV)
    elif not host.exists("/dev/kvm"):
        yield bad("/dev/kvm is missing: the module kvm_intel or kvm_amd is not loaded")
    else:
        yield good("the processor virtualises, and /dev/kvm exists")


def judge_vsock(host: Host) -> Iterator[Judgement]:
    if not host.exists("/dev"):
        yield unknown(NO_DEV)
        return
    yield (
        good("/dev/vhost-vsock exists")
        if host.exists("/dev/vhost-vsock")
        else bad("/dev/vhost-vsock is missing, over which the runtime talks to the agent")
    )


def judge_iommu(host: Host) -> Iterator[Judgement]:
    if not host.exists("/sys/kernel"):
        yield unknown("/sys/kernel is missing")
        return
    groups = len(host.listing("/sys/kernel/iommu_groups"))
    yield good(f"{groups} IOMMU groups") if groups else bad("the kernel has no IOMMU group: the IOMMU is off")


def judge_iommufd(host: Host) -> Iterator[Judgement]:
    if not host.exists("/dev"):
        yield unknown(NO_DEV)
        return
    yield (
        good("/dev/iommu exists")
        if host.exists("/dev/iommu")
        else warning("/dev/iommu is missing; the device plugin falls back to groups, in which a device is not alone")
    )


def judge_tee(host: Host) -> Iterator[Judgement]:
    wanted = sorted({tee for one in classes(host) if (tee := one.tee)})
    if not wanted:
        yield unused("no class of this host starts confidential VMs")
        return
    has = {"snp": host.text(SNP) in ON, "tdx": host.text(TDX) in ON}
    if any(has[tee] for tee in wanted):
        yield good(f"the host starts {' and '.join(tee.upper() for tee in has if has[tee])} VMs")
    else:
        yield warning(
            f"classes for {' and '.join(tee.upper() for tee in wanted)} are installed, but neither {SNP} nor {TDX} is Y"
        )


def judge_kernel(host: Host) -> Iterator[Judgement]:
    text = host.text(RELEASE)
    found = re.match(r"(\d{1,6})\.(\d{1,6})", text or "")
    if found is None:
        yield unknown(f"{RELEASE} is missing")
        return
    is_tee = any(host.text(path) in ON for path in (SNP, TDX))
    release = int(found[1]), int(found[2])
    if is_tee and release < TEE_KERNEL:
        yield warning(f"the host's kernel is {text}; several confidential GPUs in a VM require 6.17 or newer")
    else:
        yield good(f"the host's kernel is {text}")


def judge_eager_accept(host: Host) -> Iterator[Judgement]:
    large = [one for one in classes(host) if one.tee == "tdx" and one.number("default_memory") >= 64 << 10]
    yield from (
        warning(
            f"class {one.name} starts VMs of {one.number('default_memory')} MiB; a firmware that accepts all "
            "memory at once is silent for minutes"
        )
        for one in large
    )
    if not large:
        yield (
            good("no class has VMs of 64 GiB or more by default under TDX")
            if _has_tdx(host)
            else unused("no class uses TDX")
        )


def _has_tdx(host: Host) -> bool:
    return any(one.tee == "tdx" for one in classes(host))
