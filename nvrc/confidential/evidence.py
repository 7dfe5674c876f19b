# SPDX-License-Identifier: Apache-2.0
"""What PID 1 can check by itself of the GPUs' evidence and of the token that a verifier made of it. Pure.

Of evidence: that it answers PID 1's own nonce, and that it is about exactly the GPUs that were checked before, by
their certificates, which NVIDIA's library gives PID 1 as well. A UUID is not in it: the attestation agent says
"unknown", as NVIDIA's SDK tells it none. Of a token: that it is one, has not run out, and affirms as many GPUs. Not
signatures, chains of certificates and reference values: that is the verifier's work, whose key PID 1 does not know. A
verifier of the image's own can do it.

An attestation report of a GPU is an SPDM 1.1 exchange: the request GET_MEASUREMENTS with its nonce of 32 bytes, then
the answer (DSP0274). A token is a JWT in the form of EAR, with an appraisal for each device.
"""

from __future__ import annotations

import binascii

from guest_cdi.lean.jsonvalue import read_json
from guest_cdi.lean.light import Mapping, NamedTuple, Sequence
from nvrc.vocabulary.errors import NvrcError

NONCE, REQUEST_BYTES, NONCE_AT = 32, 37, 4
GET_MEASUREMENTS, MEASUREMENTS = 0xE0, 0x60
AFFIRMING = ("affirming", 2)
UNTOLD, SWITCHES = "unknown", ("LS10",)
_LEAF_END = b"-----END CERTIFICATE-----"
UNCHECKED = "not checked by PID 1: signatures, certificates, reference values"


class Evidence(NamedTuple):
    """Of one GPU. `leaf`: the certificate that it is signed with."""

    uuid: str
    leaf: str
    report: bytes


def check_evidence(answer: bytes, nonce: bytes, gpus: Mapping[str, str]) -> None:
    """`gpus`: UUIDs of those that were checked, by certificate. NvrcError E_ATTEST_EVIDENCE if it is not of these."""
    if not answer:
        raise _wrong("there is none: the attestation agent has no attester of NVIDIA's, or it found no GPU")
    rows = _gpus(_json(answer, "the evidence"))
    given = [row.leaf for row in rows]
    if sorted(given) != sorted(gpus):
        missing = sorted(uuid for leaf, uuid in gpus.items() if leaf not in given)
        strange = sorted(f"certificate {_digest(leaf)}" for leaf in set(given) - set(gpus))
        raise _wrong(f"it is about {len(given)} GPUs, and {len(gpus)} were checked; missing: {_list(missing)}; "
                     f"strange: {_list(strange)}")
    for row in rows:
        uuid, report = gpus[row.leaf], row.report
        if row.uuid not in (UNTOLD, uuid):
            raise _wrong(f"it calls {uuid} {row.uuid[:60]!a}")
        kinds = (report[1], report[REQUEST_BYTES + 1]) if len(report) > REQUEST_BYTES + 1 else ()
        if kinds != (GET_MEASUREMENTS, MEASUREMENTS):
            raise _wrong(f"the report of {uuid} is not an exchange of measurements ({len(report)} bytes)")
        if report[NONCE_AT:NONCE_AT + NONCE] != nonce:
            raise _wrong(f"the report of {uuid} was made for another nonce")


def leaf_of(chain: bytes) -> str:
    """The first certificate of a PEM chain, which is the device's own, in one line; empty if there is none."""
    end = chain.find(_LEAF_END)
    return b"".join(chain[:end].split()).decode("ascii", "replace") if end >= 0 else ""


def _digest(leaf: str) -> str:
    from hashlib import sha256

    return sha256(leaf.encode()).hexdigest()[:16]


def _gpus(document: object) -> list[Evidence]:
    """Of NVIDIA's part of the evidence, which stands alone or under its name; switches are in the same list."""
    inner = document.get("nvidia", document) if isinstance(document, dict) else None
    if isinstance(inner, str):
        inner = _json(inner.encode("utf-8", "replace"), "NVIDIA's evidence")
    rows = inner.get("device_evidence_list") if isinstance(inner, dict) else None
    if not isinstance(rows, list):
        raise _wrong("it has no list of NVIDIA's devices")
    return [_gpu(row) for row in rows if not (isinstance(row, dict) and row.get("arch") in SWITCHES)]


def _gpu(row: object) -> Evidence:
    match row:
        case {"evidence": str(report), "certificate": str(chain), **more}:
            uuid = more.get("uuid", UNTOLD)
            try:
                return Evidence(uuid if isinstance(uuid, str) else "", leaf_of(_decode(chain)), _decode(report))
            except ValueError as err:
                raise _wrong("a report or certificate of it is not base64") from err
    raise _wrong("a device of it has no report or no certificate")


def _decode(text: str) -> bytes:
    return binascii.a2b_base64(text, strict_mode=True)


def check_token(answer: bytes, gpus: int, now_s: float) -> str:
    """What is said of the token; E_ATTEST_REFUSED if it affirms less. `now_s`: by the wall clock, 0 for unknown."""
    document = _json(answer, "the token")
    token = document.get("token") if isinstance(document, dict) else None
    if not isinstance(token, str) or token.count(".") != 2:
        raise _refused("the attestation agent's answer has no token")
    claims = _json(_unpad(token.split(".")[1]), "the token's claims")
    if not isinstance(claims, dict) or not isinstance(claims.get("submods"), dict):
        raise _refused("the token has no appraisals")
    expires = claims.get("exp")
    if isinstance(expires, bool) or not isinstance(expires, int | float):
        raise _refused("the token does not say in seconds when it runs out")
    if now_s and expires < now_s:
        raise _refused(f"the token has run out {int(now_s) - int(max(expires, 0))} s ago")
    appraisals = claims["submods"]
    doubts = [f"{ascii(name)[1:-1][:60]}: {ascii(_status(row))[:40]}" for name, row in sorted(appraisals.items())
              if _status(row) not in AFFIRMING]
    if doubts:
        raise _refused(f"the verifier does not affirm {'; '.join(doubts)[:400]}")
    affirmed = sum(name.startswith("gpu") for name in appraisals)
    if affirmed != gpus:
        raise _refused(f"the token affirms {affirmed} GPUs, and {gpus} were checked")
    return f"{len(appraisals)} appraisals affirmed"


def _status(row: object) -> object:
    return row.get("ear.status") if isinstance(row, dict) else None


def _unpad(text: str) -> bytes:
    try:
        plain = text.replace("-", "+").replace("_", "/")
        return binascii.a2b_base64(plain + "=" * (-len(plain) % 4), strict_mode=True)
    except ValueError as err:
        raise _refused("the token's claims are not base64") from err


def _json(data: bytes, what: str) -> object:
    try:
        return read_json(data)
    except ValueError as err:
        raise NvrcError("E_ATTEST_EVIDENCE", f"{what} is not JSON: {data[:40]!a}") from err


def _list(names: Sequence[str]) -> str:
    return ", ".join(f"{name!a}"[1:-1][:60] for name in names[:4]) or "none"


def _wrong(what: str) -> NvrcError:
    return NvrcError("E_ATTEST_EVIDENCE", f"evidence: {what}")


def _refused(what: str) -> NvrcError:
    return NvrcError("E_ATTEST_REFUSED", what)
