# SPDX-License-Identifier: Apache-2.0
"""A stand-in of the chain that attests: an attestation agent on its own socket, and the key broker behind it.

It speaks ttRPC by the lab's code, which is not PID 1's. What it says can be changed one field at a time.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from nvrc.vocabulary import paths
from nvrc_lab.agent.protobuf import bytes_of, decode, encode, text_of
from nvrc_lab.agent.ttrpc import HEADER, RESPONSE

Json = dict[str, object]


def report(nonce: bytes) -> bytes:
    """An exchange of measurements as SPDM 1.1 has it: the request with its nonce, the answer with another."""
    return b"\x11\xe0\x01\xff" + nonce + b"\x00" + b"\x11\x60\x00\x00" + bytes(40) + b"\xaa" * 32 + bytes(96)


def certificate_of(uuid: str) -> bytes:
    """As the emulated NVML has it: nobody issued it, and it is another one for each GPU."""
    return f"-----BEGIN CERTIFICATE-----\n{uuid}\n-----END CERTIFICATE-----\n".encode()


def device_of(gpu: str, nonce: bytes, **changes: object) -> Json:
    """As guest-components has it with NVIDIA's SDK, which tells no UUID."""
    return {"arch": "HOPPER", "uuid": "unknown", "evidence": base64.b64encode(report(nonce)).decode(),
            "certificate": base64.b64encode(certificate_of(gpu)).decode(), **changes}


def evidence_of(uuids: list[str], nonce: bytes) -> Json:
    return {"nvidia": {"device_evidence_list": [device_of(uuid, nonce) for uuid in uuids]}}


def token_of(statuses: dict[str, object], **claims: object) -> Json:
    body = {"eat_profile": "tag:github.com,2024:confidential-containers/Trustee", "exp": int(time.time()) + 300,
            "submods": {name: {"ear.status": status} for name, status in statuses.items()}, **claims}
    parts = (json.dumps(part).encode() for part in ({"alg": "ES256"}, body))
    return {"token": ".".join([*(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts), "c2ln"]), "tee_keypair": "PEM"}


@dataclass
class Chain:
    """`answers`: by method, instead of the good one; an exception is a refusal, None is silence."""

    root: Path
    uuids: list[str]
    tee: str = "snp"
    answers: dict[str, Callable[[bytes], bytes | None]] = field(default_factory=dict)
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        folder = self.root / os.path.dirname(paths.ATTESTATION_AGENT).lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        place = os.open(folder, os.O_PATH)  # names of sockets are short
        self._listener.bind(f"/proc/self/fd/{place}/{os.path.basename(paths.ATTESTATION_AGENT)}")
        os.close(place)
        self._listener.listen()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        if self._listener.fileno() < 0:
            return
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(5)

    def _accept(self) -> None:
        while True:
            try:
                peer, _address = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with peer, peer.makefile("rb") as stream:
            while len(head := stream.read(HEADER.size)) == HEADER.size:
                size, number, _kind, _flags = HEADER.unpack(head)
                request = decode(stream.read(size))
                assert text_of(request, 1) == "attestation_agent.AttestationAgentService"
                method = text_of(request, 2)
                self.asked.append(method)
                body = self._answer(method, bytes_of(decode(bytes_of(request, 3)), 1))
                if body is None:
                    stream.read(1)  # until the other side has had enough
                    return
                peer.sendall(HEADER.pack(len(body), number, RESPONSE, 0) + body)

    def _answer(self, method: str, given: bytes) -> bytes | None:
        if method in self.refusals:
            code, reason = self.refusals[method]
            return encode((1, encode((1, code), (2, reason))))
        found = self.answers.get(method, self._good(method))(given)
        return None if found is None else encode((2, encode((1, found))))

    def _good(self, method: str) -> Callable[[bytes], bytes | None]:
        statuses: dict[str, object] = {"cpu0": "affirming", **{f"gpu{i}": "affirming" for i in range(len(self.uuids))}}
        return {
            "GetTeeType": lambda _given: self.tee.encode(),
            "GetAdditionalEvidence": lambda nonce: json.dumps(evidence_of(self.uuids, nonce)).encode(),
            "GetToken": lambda _kind: json.dumps(token_of(statuses)).encode(),
        }[method]
