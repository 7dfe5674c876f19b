# SPDX-License-Identifier: Apache-2.0
"""Step `attest`: confidential GPUs become ready when evidence of exactly these was accepted. For nvrc.ready=attested.

It runs beside the agent, which starts the attestation agent; the CDI document, without which the agent gives no
container a GPU, is published at its end. Who verifies is the guest's attestation agent with the service that it was
configured for; PID 1 asks it for evidence with a nonce of its own, checks what it can, and then for a token. A program
of the image may have the last word (policy, `verifier`). Everything together has one deadline.
"""

from __future__ import annotations

import time
from _queue import SimpleQueue

from guest_cdi.lean.light import Callable
from nvrc.confidential import evidence
from nvrc.confidential.tee import find_tee
from nvrc.confidential.ttrpc import Client, RefusedError, WireError
from nvrc.confidential.verifier import ask_verifier
from nvrc.engine.asking import client_of
from nvrc.engine.facts import Facts, known, replace
from nvrc.engine.ledger import check_every_gpu
from nvrc.machine.system import Files, System
from nvrc.nvml.client import SPARE_S
from nvrc.nvml.readiness import Outcome, Ready
from nvrc.params.table import asked
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError

SERVICE = "attestation_agent.AttestationAgentService"
SAMPLE = "sample"
LOOK_AGAIN_S, END_S = 0.25, 2.0
NICS, ROUTES, ROUTES_6 = "/sys/class/net", "/proc/net/route", "/proc/net/ipv6_route"
_REASONS = "read why in the attestation agent's own lines on the console; check the broker, its policies, its values"
_LINK_LOCAL, _MULTICAST, _ROUTES_LIMIT = "fe80", "ff", 1 << 20
_DOCUMENT_LIMIT = 16 << 20


def run(system: System, facts: Facts) -> Facts:
    until_s = system.now() + facts.settings.timeout_attest_s
    try:
        _await_socket(system, facts, until_s)
        why = _attest(system, facts, until_s)
    except NvrcError as err:
        if err.code == "E_ATTEST_UNREACHABLE" and _has_ended(system, facts):
            return replace(facts, ready=Ready(Outcome.LEFT, False, "the agent ended before anything was attested"))
        raise NvrcError(err.code, f"{err.what}; {_running(system)}", err.hint) from err
    check_every_gpu(system, facts)
    before, now = client_of(facts).settle_ready(True)
    if not now:
        raise NvrcError("E_READY_STATE", "set to 1, but nvmlSystemGetConfComputeGpusReadyState says 0")
    _publish(system)
    outcome = Outcome.LEFT if before else Outcome.SET
    why = f"{why}; {facts.keys}" if facts.keys else why
    return replace(facts, ready=Ready(outcome, True, f"{why}; at {system.now():.1f} s; read back: ready"))


def deadline_s(facts: Facts) -> float:
    return facts.settings.timeout_attest_s + facts.nvml_patience_s + 2 * SPARE_S


def tell(facts: Facts) -> str:
    return f"{facts.ready.outcome.value}: {facts.ready.why}" if facts.ready else ""


def _await_socket(system: System, facts: Facts, until_s: float) -> None:
    nothing: SimpleQueue[None] = SimpleQueue()
    while not system.exists(paths.ATTESTATION_AGENT):
        if system.now() >= until_s or not _is_agent_there(system, facts):
            raise NvrcError("E_ATTEST_UNREACHABLE", f"{paths.ATTESTATION_AGENT} did not appear within "
                            f"{facts.settings.timeout_attest_s} s of the agent's start")
        system.wait(nothing, LOOK_AGAIN_S)


def _is_agent_there(system: Files, facts: Facts) -> bool:
    return system.exists(f"/proc/{known(facts.agent_pid, 'agent')}")


def _has_ended(system: System, facts: Facts) -> bool:
    """A pod that is deleted takes the attestation agent along, a moment before its agent: no failure of this step."""
    nothing: SimpleQueue[None] = SimpleQueue()
    until_s = system.now() + END_S
    while _is_agent_there(system, facts):
        if system.now() >= until_s:
            return False
        system.wait(nothing, LOOK_AGAIN_S)
    return True


def _certified(facts: Facts) -> dict[str, str]:
    """UUIDs of the GPUs that were checked, by the certificate that each signs with."""
    gpus = {gpu.number: gpu.uuid for gpu in facts.gpus or () if not gpu.error}
    told = client_of(facts).certificates(tuple(gpus))
    found = {row.leaf: gpus[row.number] for row in told if row.number in gpus and row.leaf}
    if len(found) != len(gpus):
        raise NvrcError("E_ATTEST_EVIDENCE", f"NVIDIA's library gives {len(found)} different certificates for "
                        f"{len(gpus)} GPUs")
    return found


def _attest(system: System, facts: Facts, until_s: float) -> str:
    """Why the GPUs may get ready."""
    gpus = _certified(facts)
    uuids = tuple(gpus.values())
    nonce = system.read("/dev/urandom", evidence.NONCE)
    tee = _ask(system, until_s, "GetTeeType").decode("utf-8", "replace")
    own = find_tee(system)
    if own is not None and tee == SAMPLE:
        raise NvrcError("E_ATTEST_EVIDENCE", f"the attestation agent takes this guest for a sample, and "
                        f"it is in {own.name}")
    proof = _ask(system, until_s, "GetAdditionalEvidence", (1, nonce))
    evidence.check_evidence(proof, nonce, gpus)
    _await_network(system, facts, until_s)
    token = _ask(system, until_s, "GetToken", (1, b"kbs"))
    said = evidence.check_token(token, len(uuids), _wall_clock(time.time))
    from hashlib import sha256

    why = (f"{asked('ready', facts.settings.ready)}; evidence of {len(uuids)} GPUs with PID 1's nonce, "
           f"TEE {ascii(tee)[1:-1][:40]}, {said}, token sha256={sha256(token).hexdigest()}")
    program = facts.verifier or ""
    if not program:
        return f"{why}; {evidence.UNCHECKED}"
    ask_verifier(system, program, nonce=nonce, evidence=proof, token=token, uuids=uuids, until_s=until_s)
    return f"{why}; accepted by {program}"


def _await_network(system: System, facts: Facts, until_s: float) -> None:
    """The agent hears of the pod's network only after the attestation agent is up, and that one gives up in seconds.

    A machine without a NIC has its broker elsewhere, if it has one.
    """
    nothing: SimpleQueue[None] = SimpleQueue()
    while _has_nic(system) and not _has_route(system):
        if system.now() >= until_s or not _is_agent_there(system, facts):
            raise NvrcError("E_ATTEST_UNREACHABLE", f"there is no route to a key broker within "
                            f"{facts.settings.timeout_attest_s} s of the agent's start",
                            "find out why the runtime set up no network for the pod")
        system.wait(nothing, LOOK_AGAIN_S)


def _has_nic(system: Files) -> bool:
    try:
        return any(system.exists(f"{NICS}/{name}/device") for name in system.list_dir(NICS))
    except OSError:
        return False


def _has_route(system: Files) -> bool:
    """By IPv4, or by IPv6 farther than the link."""
    rows = [line.split() for line in _lines(system, ROUTES)[1:]]
    rows_6 = [line.split() for line in _lines(system, ROUTES_6)]
    return (any(row and row[0] != "lo" for row in rows)
            or any(row and row[-1] != "lo" and not row[0].startswith((_LINK_LOCAL, _MULTICAST)) for row in rows_6))


def _lines(system: Files, path: str) -> list[str]:
    try:
        return system.read(path, _ROUTES_LIMIT).decode("ascii", "replace").splitlines()
    except OSError:
        return []  # without IPv6


def _ask(system: System, until_s: float, method: str, *fields: tuple[int, bytes]) -> bytes:
    """One call on a connection of its own; all of its answers have what matters in field 1."""
    from nvrc.confidential.ttrpc import take

    limit = f"the attestation agent gave no answer to {method} in time"
    try:
        client = Client(system.connect(paths.ATTESTATION_AGENT), system.now, until_s)
    except OSError as err:
        raise NvrcError("E_ATTEST_UNREACHABLE", f"{paths.ATTESTATION_AGENT}: {err.strerror}") from err
    try:
        return take(client.call(SERVICE, method, *fields), 1)
    except TimeoutError as err:
        raise NvrcError("E_ATTEST_TIMEOUT", limit) from err
    except RefusedError as err:
        raise NvrcError("E_ATTEST_REFUSED", f"the attestation agent refused {method}: {ascii(err.reason)[1:-1][:300]} "
                                            f"(code {err.code})", _REASONS) from err
    except WireError as err:
        raise NvrcError("E_ATTEST_REFUSED", f"the attestation agent's answer to {method} is not one: {err}") from err
    except OSError as err:
        raise NvrcError("E_ATTEST_UNREACHABLE", f"the attestation agent went away during {method}: {err}") from err
    finally:
        client.close()


def _wall_clock(clock: Callable[[], float]) -> float:
    """A guest whose clock nobody set is in 1970, or in the year of its image; no token can be judged by that."""
    now_s = clock()
    return now_s if now_s > 1_577_836_800 else 0.0


def _publish(system: Files) -> None:
    """From here on the agent gives GPUs to containers."""
    try:
        system.publish(paths.CDI_SPEC, system.read(paths.CDI_HELD, _DOCUMENT_LIMIT))
    except OSError as err:
        raise NvrcError("E_RUN_FULL", f"{paths.CDI_SPEC}: {err.strerror}") from err


def _running(system: Files) -> str:
    """What goes down with the VM."""
    try:
        count = sum(system.exists(f"{paths.SANDBOX}/{name}/rootfs") for name in system.list_dir(paths.SANDBOX))
    except OSError:
        count = 0
    if not count:
        return "no container was started"
    return f"{count} container{'s' * (count > 1)} without a GPU ran and end{'s' * (count == 1)} with the VM"
