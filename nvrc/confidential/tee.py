# SPDX-License-Identifier: Apache-2.0
"""What the TEE itself says that this guest was started with: HOST_DATA, MRCONFIGID, or a realm's personalization value.

The report comes from the processor over a channel that the host cannot write to (a message that the secure processor
encrypts for this guest, a call of the TDX module, one of the realm manager), so neither signature nor certificate is
needed to believe it here; the nonce shows that it was made for this question. Follows the SEV-SNP firmware ABI (report,
MSG_REPORT_RSP), Intel's TDX module ABI (TDREPORT_STRUCT), and the kernel's configfs-tsm, sev-guest and tdx-guest.
"""

from __future__ import annotations

from guest_cdi.lean.light import Callable, NamedTuple
from nvrc.confidential.cbor import find_personalization
from nvrc.hardware.needs import Guest, is_recognised
from nvrc.machine.system import Files, System
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.needs import CCA_SIGNS, SNP_SIGNS, TDX_SIGNS, Sign

TSM, ENTRY = "/sys/kernel/config/tsm/report", "/sys/kernel/config/tsm/report/nvrc"
SEV_GUEST, TDX_GUEST = "/dev/sev-guest", "/dev/tdx_guest"
NONCE = 64
_BLOB_LIMIT = 32 << 10

# Of an attestation report of SEV-SNP.
SNP_REPORT, SNP_NONCE_AT, SNP_HOST_DATA_AT, SNP_HOST_DATA = 1184, 0x50, 0xC0, 32
# Of a TDREPORT: MAC structure, TCB information, and the TD's own at 512.
TD_REPORT, TD_NONCE_AT, TD_CONFIG_AT, TD_CONFIG = 1024, 128, 512 + 64, 48
TDX_CMD_GET_REPORT0 = 0xC4405401  # _IOWR('T', 1, 64 + 1024 bytes)
SNP_GET_REPORT = 0xC0205300       # _IOWR('S', 0, 32 bytes)
_SNP_RESPONSE, _SNP_RESPONSE_HEAD = 4000, 32


class Tee(NamedTuple):
    """A kind of TEE: what it calls the value, and how a guest of it reads that."""

    name: str
    field: str
    size: int
    signs: tuple[tuple[Sign, str], ...]
    modules: tuple[str, ...]
    ask: Callable[[System, bytes], bytes]


def find_tee(system: Files) -> Tee | None:
    """The TEE that this guest is in; None outside of one."""
    return next((tee for tee in TEES if is_recognised(system, tee.signs, Guest())), None)


def read_bound(system: System, tee: Tee, nonce: bytes) -> bytes:
    """What the TEE keeps of the digest; NvrcError E_INITDATA_BINDING if it does not say."""
    try:
        found = tee.ask(system, nonce)
    except OSError as err:
        what = f"{tee.name}: its report, with {tee.field}, cannot be read: {err.strerror}"
        raise NvrcError("E_INITDATA_BINDING", what,
                        f"build the image so that it serves the need {' or '.join(tee.modules)}") from err
    if len(found) != tee.size:
        raise _strange(tee.name, f"{tee.field} has {len(found)} bytes, not {tee.size}")
    return found


def _ask_snp(system: System, nonce: bytes) -> bytes:
    """By configfs-tsm where the kernel has it, which knows the privilege level; else from the device."""
    report = _ask_tsm(system, nonce, "sev_guest") if system.exists(TSM) else _ask_sev_guest(system, nonce)
    return snp_host_data(report, nonce)


def snp_host_data(report: bytes, nonce: bytes) -> bytes:
    if len(report) < SNP_REPORT:
        raise _strange("SEV-SNP", f"its report has {len(report)} bytes, not {SNP_REPORT}")
    _check_nonce("SEV-SNP", report[SNP_NONCE_AT:SNP_NONCE_AT + NONCE], nonce)
    return report[SNP_HOST_DATA_AT:SNP_HOST_DATA_AT + SNP_HOST_DATA]


def _ask_tdx(system: System, nonce: bytes) -> bytes:
    """A TDREPORT, which needs nobody outside of the processor; a quote would need the host."""
    report = system.ioctl(TDX_GUEST, TDX_CMD_GET_REPORT0, nonce + bytes(TD_REPORT))[NONCE:]
    return td_config(report, nonce)


def td_config(report: bytes, nonce: bytes) -> bytes:
    if len(report) != TD_REPORT:
        raise _strange("TDX", f"its report has {len(report)} bytes, not {TD_REPORT}")
    _check_nonce("TDX", report[TD_NONCE_AT:TD_NONCE_AT + NONCE], nonce)
    return report[TD_CONFIG_AT:TD_CONFIG_AT + TD_CONFIG]


def _ask_cca(system: System, nonce: bytes) -> bytes:
    found, challenge = find_personalization(_ask_tsm(system, nonce, "arm_cca_guest"))
    _check_nonce("CCA", challenge, nonce)
    return found


def _ask_tsm(system: Files, nonce: bytes, provider: str) -> bytes:
    """The entry stays: it holds nothing that the next reader's question does not replace."""
    system.make_dir(ENTRY)
    found = system.read(f"{ENTRY}/provider", 64).decode("ascii", "replace").strip()
    if found != provider:
        raise _strange(provider, f"configfs-tsm is served by {found!a}")
    system.write(f"{ENTRY}/inblob", nonce)
    return system.read(f"{ENTRY}/outblob", _BLOB_LIMIT)


def _ask_sev_guest(system: System, nonce: bytes) -> bytes:
    """The driver takes the addresses of two buffers in this process."""
    import ctypes

    request = ctypes.create_string_buffer(nonce + bytes(4 + 28), NONCE + 4 + 28)
    response = ctypes.create_string_buffer(_SNP_RESPONSE)
    words = (1, ctypes.addressof(request), ctypes.addressof(response), 0)
    system.ioctl(SEV_GUEST, SNP_GET_REPORT, b"".join(word.to_bytes(8, "little") for word in words))
    status, size = (int.from_bytes(response.raw[at:at + 4], "little") for at in (0, 4))
    if status or size < SNP_REPORT:
        raise _strange("SEV-SNP", f"the secure processor answered status {status:#x} and {size} bytes")
    return response.raw[_SNP_RESPONSE_HEAD:_SNP_RESPONSE_HEAD + SNP_REPORT]


def _check_nonce(name: str, found: bytes, nonce: bytes) -> None:
    if found != nonce:
        raise _strange(name, "its report was made for another nonce")


def _strange(name: str, what: str) -> NvrcError:
    return NvrcError("E_INITDATA_BINDING", f"{name}: {what}", "use a kernel whose driver of this TEE is known to work")


TEES = (
    Tee("SEV-SNP", "HOST_DATA", SNP_HOST_DATA, SNP_SIGNS, ("sev_guest", "tsm", "tsm_report"), _ask_snp),
    Tee("TDX", "MRCONFIGID", TD_CONFIG, TDX_SIGNS, ("tdx_guest",), _ask_tdx),
    Tee("CCA", "the realm's personalization value", 64, CCA_SIGNS, ("arm_cca_guest", "tsm", "tsm_report"), _ask_cca),
)
