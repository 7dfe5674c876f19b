# SPDX-License-Identifier: Apache-2.0
"""A verifier of the image's own: a program that the policy names and that has the last word. Exit 0 accepts.

It reads one JSON document, whose path is its argument: nonce, evidence, token, and the UUIDs of the GPUs that were
checked. What it prints goes to the journal.
"""

from __future__ import annotations

import binascii

from guest_cdi.lean.light import Sequence
from nvrc.machine.privileges import VERIFIER, prepare
from nvrc.machine.program import Program
from nvrc.machine.system import System
from nvrc.machine.wait import ChildEnded, Events, OverdueError
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.jsontext import encode_line


def ask_verifier(system: System, program: str, *, nonce: bytes, evidence: bytes, token: bytes, uuids: Sequence[str],
                 until_s: float) -> None:
    """NvrcError E_ATTEST_REFUSED unless it accepts in time."""
    document = encode_line({"nonce": nonce.hex(), "uuids": list(uuids), "evidence": _base64(evidence),
                            "token": _base64(token)})
    prepare(system, VERIFIER, "E_ATTEST_REFUSED")
    path = f"{paths.VERIFIER_HOME}/input.json"
    try:
        system.publish(path, document)
        with Events(system, max(0.0, until_s - system.now())) as events:
            pid = system.start(Program(path=program, privileges=VERIFIER, args=(path,), log_as="verifier"),
                               events.ended)
            end = _end(events)
    except OSError as err:
        raise NvrcError("E_ATTEST_REFUSED", f"the verifier {program} could not be started: {err.strerror}",
                        "put an executable program there, or drop verifier from the image's policy") from err
    except OverdueError as err:
        system.signal(pid, 9)
        raise NvrcError("E_ATTEST_TIMEOUT", f"the verifier {program} gave no answer in time") from err
    if not end.is_success:
        raise NvrcError("E_ATTEST_REFUSED", f"the verifier {program} {end.text()}")


def _end(events: Events) -> ChildEnded:
    while True:
        event = events.take()
        if isinstance(event, ChildEnded):
            return event


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()
