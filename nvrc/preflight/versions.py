# SPDX-License-Identifier: Apache-2.0
"""Versions of Kata, QEMU and firmware, from what Kata installs beside them, or from the program itself."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nvrc.preflight.host import Host
from nvrc.preflight.kata import classes, component, kata_version
from nvrc.preflight.row import Judgement, bad, good, unknown, unused, warning

KATA_NEEDED, QEMU_NEEDED = (4, 0), (10, 1)
# Kata's own names of the builds; a TEE without a row of its own uses the common one.
FIRMWARE = {"snp": ("sev", "x86_64"), "tdx": ("tdx", "x86_64")}
GOOD_FIRMWARE = "edk2-stable202511"


def _number(text: str | None) -> tuple[int, int] | None:
    found = re.search(r"(\d{1,6})\.(\d{1,6})", text or "")
    return (int(found[1]), int(found[2])) if found else None


def judge_kata(host: Host) -> Iterator[Judgement]:
    text = kata_version(host)
    version = _number(text)
    if version is None:
        yield unknown("/opt/kata/VERSION is missing")
    else:
        yield (
            good(f"Kata is {text}")
            if version >= KATA_NEEDED
            else warning(f"Kata is {text}; drop-ins and classes of this guest are for 4.0 and newer")
        )


def judge_qemu(host: Host) -> Iterator[Judgement]:
    programs = sorted({str(one.hypervisor.get("path")) for one in classes(host) if one.hypervisor.get("path")})
    told = {program: text.splitlines()[0] for program in programs if (text := host.version_of(program))}
    told = told or {name: text for name in ("qemu",) if (text := component(host, "assets", "hypervisor", "qemu"))}
    if not told:
        yield unknown("neither QEMU itself nor /opt/kata/versions.yaml tells its version")
        return
    old = {name: text for name, text in told.items() if (_number(text) or (0, 0)) < QEMU_NEEDED}
    yield from (
        warning(f"{name} is {text}; several confidential GPUs in a VM require 10.1 or newer")
        for name, text in old.items()
    )
    if not old:
        yield good("; ".join(f"{name} is {text}" for name, text in told.items()))


def judge_firmware(host: Host) -> Iterator[Judgement]:
    tees = sorted({one.tee for one in classes(host) if one.tee})
    if not tees:
        yield unused("no class of this host starts confidential VMs")
        return
    for tee in tees:
        version = next((text for name in FIRMWARE[tee] if (text := component(host, "externals", "ovmf", name))), None)
        if version is None:
            yield unknown(f"/opt/kata/versions.yaml does not tell the firmware for {tee.upper()}")
        elif tee == "tdx" and version > GOOD_FIRMWARE:
            yield bad(f"the firmware for TDX is {version}, with which guests time out on vsock; {GOOD_FIRMWARE} works")
        elif version < GOOD_FIRMWARE:
            yield warning(f"the firmware for {tee.upper()} is {version}; {GOOD_FIRMWARE} is what NVIDIA tests with")
        else:
            yield good(f"the firmware for {tee.upper()} is {version}")
