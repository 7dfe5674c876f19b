# SPDX-License-Identifier: Apache-2.0
"""Reference values: what a verifier compares the evidence of a machine with, and how it is told.

Names and forms are those of Trustee's default policies (attestation-service/src/ear_token/ear_default_policy_*.rego):
digests in hex, as its verifiers write what a report says; lists where a policy asks `in`, single values where it asks
`==`. The file for its reference value service (RVPS) is a message of type `sample`. What only the host knows is named.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nvrc.vocabulary.console import printable
from nvrc.vocabulary.output import SCHEMA
from nvrc_build.after.measure import GUEST_FEATURES, Launch
from nvrc_build.after.tdx import Machine, Registers
from nvrc_build.ground.errors import BuildError, WrongCallError, reason
from nvrc_build.papers.inventory import Inventory, read_document
from nvrc_build.supply.apt import file_sha256

VERSION = 2
RVPS_FILE = "rvps-message.json"
# snp_guest_policy of Kata's classes: SMT allowed, and the bit that must be set.
GUEST_POLICY = 0x30000
_SMT_ALLOWED, _MUST_BE_SET, _MIGRATION, _DEBUG, _SINGLE_SOCKET = (1 << bit for bit in range(16, 21))
# What is measured for several shapes of a machine, and what each row of it is called.
_MEASURED = {"launch_measurement": "vCPUs", "rtmr_1": "memory"}
_SECTIONS = ("sev_snp", "tdx")
_LONGEST_LINE = 1000
_CLIENT = "kbs-client --url URL config --admin-token-file TOKEN"
_NVML = re.compile(r".*/libnvidia-ml\.so\.(\d+(?:\.\d+)+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostValue:
    """A value that the image does not decide. `flags` are kbs-client's."""

    name: str
    where: str
    flags: str = ""


_TCB = "of 'Reported TCB' in the output of: snphost show tcb"
HOST_VALUES = (
    HostValue(name="snp_bootloader", flags="--as-integer", where=f"'Boot Loader' {_TCB}"),
    HostValue(name="snp_microcode", flags="--as-integer", where=f"'Microcode' {_TCB}"),
    HostValue(name="snp_snp_svn", flags="--as-integer", where=f"'SNP' {_TCB}"),
    HostValue(name="snp_tee_svn", flags="--as-integer", where=f"'TEE' {_TCB}"),
    HostValue(name="snp_smt_enabled", flags="--as-bool --as-single-value",
              where="true if /sys/devices/system/cpu/smt/active is 1 on the host"),
    HostValue(name="snp_tsme_enabled", flags="--as-bool --as-single-value",
              where="TSME in the host's firmware setup; a report says it under platform info"),
)
TDX_HOST_VALUES = (
    HostValue(name="xfam", where="features of the host's processors that the class gives to guests: nvrc-image "
              "verify prints it of a guest's quote"),
)
GPU_HOST_VALUES = (
    HostValue(name="allowed_vbios_versions", where="nvidia-smi --query-gpu=vbios_version --format=csv,noheader in a VM "
              "with the GPU; compared with the claim x-nvidia-gpu-vbios-version"),
    HostValue(name="allowed_switch_bios_versions", where="for machines with NVSwitches: the claim "
              "x-nvidia-switch-bios-version of a switch's evidence"),
)


def policy_values(policy: int) -> dict[str, object]:
    """What a report says of the guest policy it was launched with (SEV-SNP ABI, guest policy)."""
    if policy & (_DEBUG | _MIGRATION) or not policy & _MUST_BE_SET or policy >= 1 << 26:
        raise WrongCallError(f"guest policy {policy:#x} cannot be used: bit 17 must be set, "
                             "bits 18 (migration) and 19 (debug) must not",
                             "give --guest-policy the class's snp_guest_policy")
    return {"snp_guest_abi_major": policy >> 8 & 0xFF, "snp_guest_abi_minor": policy & 0xFF,
            "snp_single_socket": bool(policy & _SINGLE_SOCKET), "snp_smt_allowed": bool(policy & _SMT_ALLOWED)}


def driver_versions(images: Iterable[Inventory]) -> tuple[str, ...]:
    """Of the NVML library that answers for the driver; an image whose driver is an extension has none of its own."""
    found = {match[1] for image in images for path in image.files if (match := _NVML.fullmatch(path))}
    if len(found) > 1:
        raise BuildError(f"the images have drivers of different releases: {', '.join(sorted(found))}",
                         "build base and extension with one driver")
    return tuple(found)


def describe(image: str, launch: Launch, digests: Mapping[int, bytes], *, drivers: tuple[str, ...] = (),
             policy: int = GUEST_POLICY) -> dict[str, object]:
    values: dict[str, object] = {"snp_launch_measurement": [digest.hex() for digest in digests.values()]}
    values |= policy_values(policy)
    return _document(image, values, HOST_VALUES, drivers) | {
        "sev_snp": {
            "launch_measurement": {str(vcpus): digest.hex() for vcpus, digest in digests.items()},
            **_inputs(launch),
            "vcpu_type": launch.vcpu_type,
            "guest_features": GUEST_FEATURES,
            "guest_policy": policy,
        },
    }


def describe_tdx(image: str, machine: Machine, shapes: Mapping[str, Registers], *,
                 drivers: tuple[str, ...] = ()) -> dict[str, object]:
    """Names of Trustee's policy; it compares events of the log, too, each with a single value."""
    first, *more = shapes.values()
    values: dict[str, object] = {"mr_td": [first.mr_td.hex()], "rtmr_1": [row.rtmr_1.hex() for row in shapes.values()],
                                 "rtmr_2": [first.rtmr_2.hex()]}
    values |= {"tdvfkernel": first.kernel.hex()} if not more else {}
    values |= {"tdvfkernelparams": first.cmdline.hex()} if first.cmdline is not None else {}
    return _document(image, values, TDX_HOST_VALUES, drivers) | {
        "tdx": {
            "mr_td": first.mr_td.hex(),
            "rtmr_1": {name: row.rtmr_1.hex() for name, row in shapes.items()},
            "rtmr_2": first.rtmr_2.hex(),
            **_inputs(machine.launch),
            "keeps_kernel": machine.keeps_kernel,
        },
    }


def _document(image: str, values: dict[str, object], hosts: tuple[HostValue, ...],
              drivers: tuple[str, ...]) -> dict[str, object]:
    values |= {"allowed_driver_versions": list(drivers)} if drivers else {}
    rows = hosts + (GPU_HOST_VALUES if drivers else ())
    return {
        "schema": SCHEMA,  # of what commands print
        "version": VERSION,
        "image": image,
        "reference_values": values,
        "only_the_host_knows": {row.name: row.where for row in rows},
    }


def _inputs(launch: Launch) -> dict[str, object]:
    return {
        "firmware_sha256": file_sha256(launch.firmware),
        "kernel_sha256": file_sha256(launch.kernel),
        "initrd_sha256": file_sha256(launch.initrd) if launch.initrd is not None else None,
        "cmdline": launch.cmdline,
    }


def rvps_message(document: Mapping[str, object]) -> dict[str, str]:
    """What RVPS registers: rvps/src/lib.rs `Message`, its payload read by extractors/sample."""
    payload = json.dumps(document["reference_values"], sort_keys=True).encode()
    return {"version": "0.1.0", "type": "sample", "payload": base64.b64encode(payload).decode()}


def registration(document: Mapping[str, object], message: Path | None) -> str:
    """Lines to run. A list of several values has to go as a message: kbs-client puts one value in a list's place."""
    values, hosts = document["reference_values"], document["only_the_host_knows"]
    if not isinstance(values, dict) or not isinstance(hosts, dict):
        raise BuildError("the document has no reference values", "write it with: nvrc-image measure -o FILE")
    several = [name for name, value in values.items() if isinstance(value, list) and len(value) > 1]
    lines = ["register what the image decides (values of these names are replaced):", *_message_lines(message)]
    lines += [f"  {_CLIENT} set-sample-reference-value {_client_value(name, value)}" for name, value in values.items()
              if name not in several]
    lines += [f"  {name} has {len(values[name])} values: kbs-client sets one, the message all" for name in several]
    lines += ["read one back:", f"  {_CLIENT} get-reference-value --id {next(iter(values))}",
              "register what only the host knows:"]
    for row in (*HOST_VALUES, *TDX_HOST_VALUES, *GPU_HOST_VALUES):
        if row.name in hosts:
            words = ("set-sample-reference-value", *row.flags.split(), row.name, "VALUE")
            lines += [f"  {_CLIENT} {' '.join(words)}", f"    VALUE: {row.where}"]
    return "\n".join(lines) + "\n"


def _message_lines(message: Path | None) -> list[str]:
    if message is None:
        return [f"  (-o FILE also writes {RVPS_FILE}, which sets all of them at once)"]
    return ['  curl --fail -H "Authorization: Bearer $(cat TOKEN)" -H "Content-Type: application/json" '
            f"--data-binary @{message} URL/kbs/v0/reference-value",
            f"  or, to a reference value service of its own: rvps-tool register --path {message}",
            "  or one by one:"]


def _client_value(name: str, value: object) -> str:
    flags = "" if isinstance(value, list) else "--as-single-value "
    one = value[0] if isinstance(value, list) else value
    if isinstance(one, bool):
        return f"{flags}--as-bool {name} {str(one).lower()}"
    return f"{flags}--as-integer {name} {one}" if isinstance(one, int) else f"{flags}{name} {one}"


def compare_values(expected: Path, found: Mapping[str, object]) -> tuple[str, ...]:
    """Every field that differs, what was expected and what was found; nothing when a file agrees.

    The file may know more numbers of virtual CPUs than were measured now."""
    try:
        known = json.loads(read_document(expected))
        section = next(name for name in _SECTIONS if name in found)
        before, after, version = known[section], found[section], known["version"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as wrong:
        raise BuildError(f"{expected} has no reference values: {reason(wrong)}",
                         "write it with: nvrc-image measure -o FILE") from wrong
    if not isinstance(before, dict) or not isinstance(after, dict) or version != VERSION:
        raise BuildError(f"{expected} has no reference values of version {VERSION}",
                         "write it again with: nvrc-image measure -o FILE")
    before, after = _flat(before), _flat(after)
    shaped = tuple(f"{name} with " for name in _MEASURED)
    names = sorted(after.keys() | {name for name in before if not name.startswith(shaped)})
    return tuple(printable(f"{name}: expected {before.get(name)}, found {after.get(name)}", _LONGEST_LINE)
                 for name in names if before.get(name) != after.get(name))


def _flat(fields: Mapping[str, object]) -> dict[str, object]:
    rows: dict[str, object] = {}
    for name, value in fields.items():
        if name in _MEASURED and isinstance(value, dict):
            rows |= {f"{name} with {_told(_MEASURED[name], shape)}": digest for shape, digest in value.items()}
        elif name not in _MEASURED:
            rows[name] = value
    return rows


def _told(unit: str, shape: str) -> str:
    return f"{shape} {unit}" if unit == "vCPUs" else f"{unit} {shape}"
