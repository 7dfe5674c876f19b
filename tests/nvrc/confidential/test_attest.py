# SPDX-License-Identifier: Apache-2.0
"""GPUs that are ready when attested: the real worker and steps, with a stand-in chain on the sockets of the real one."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from fakes.attestation import Chain, Json, device_of, evidence_of, report, token_of
from fakes.gpu_guest import CONFIDENTIAL, GpuGuest, MakeGuest
from nvrc.confidential import evidence
from nvrc.confidential.ttrpc import Client, WireError
from nvrc.engine.conditions import awaits_attestation
from nvrc.engine.facts import Facts
from nvrc.hardware.topology import PciFunction
from nvrc.machine.linux_system import LinuxSystem
from nvrc.nvml.readiness import Outcome
from nvrc.nvml.worker import Worker
from nvrc.params.policy import load_policy
from nvrc.steps import attest, ready_state
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.mode import Mode
from nvrc_lab.agent.ttrpc import HEADER, RESPONSE

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")]
CERTIFICATE = "nvmlDeviceGetConfComputeGpuCertificate"
CDI, HELD = "run/cdi/nvidia.yaml", "run/nvrc/cdi-held.yaml"


class Attested:
    """A guest that has booted as far as its agent, with the chain beside it."""

    def __init__(self, guest: GpuGuest) -> None:
        self.guest = guest
        guest.boot()
        guest.system.put("/dev/urandom", bytes(range(32)))
        guest.system.put("/proc/4711/status")
        guest.facts = replace(guest.facts, agent_pid=4711)
        self.chain = Chain(guest.root, [gpu.uuid for gpu in guest.facts.gpus or ()])

    def run(self) -> Facts:
        return attest.run(self.guest.system, self.guest.facts)

    def fails(self) -> NvrcError:
        with pytest.raises(NvrcError) as caught:
            self.run()
        assert not (self.guest.root / CDI).exists()
        assert not any(name == "nvmlSystemSetConfComputeGpusReadyState" for name in self.guest.mock.names())
        return caught.value


@pytest.fixture
def attested(gpu_guest: MakeGuest) -> Iterator[Attested]:
    found = Attested(gpu_guest("nvrc.ready=attested nvrc.timeout.attest=2", keys="cc=on", text=CONFIDENTIAL))
    yield found
    found.chain.close()


def test_gpus_are_held_back_until_evidence_was_accepted(attested: Attested) -> None:
    guest = attested.guest
    assert (guest.facts.ready, ready_state.tell(guest.facts)) == (None, "held until attested")
    assert awaits_attestation(replace(guest.facts, mode=Mode.GPU))
    assert ((guest.root / HELD).exists(), (guest.root / CDI).exists()) == (True, False)
    facts = attested.run()
    assert facts.ready is not None
    assert (facts.ready.outcome, facts.ready.accepts) == (Outcome.SET, True)
    assert attested.chain.asked == ["GetTeeType", "GetAdditionalEvidence", "GetToken"]
    for words in ("nvrc.ready=attested; evidence of 2 GPUs with PID 1's nonce, TEE snp, 3 appraisals affirmed, token sha256=",
                  evidence.UNCHECKED, "; at 100.0 s; read back: ready"):
        assert words in facts.ready.why
    assert (guest.root / CDI).read_bytes() == (guest.root / HELD).read_bytes()


@pytest.mark.parametrize(("rule", "code"), [("", "E_GPU_IDENTITY"), (" nvrc.gpus=min:1", "E_READY_STATE")])
def test_a_gpu_that_came_while_others_were_attested_sets_nothing(gpu_guest: MakeGuest, rule: str, code: str) -> None:
    found = Attested(gpu_guest(f"nvrc.ready=attested nvrc.timeout.attest=2{rule}", keys="cc=on", text=CONFIDENTIAL))
    found.guest.plug_in(PciFunction(bdf="0000:7f:00.0", vendor=0x10DE, device=0x2330, pci_class=0x030200))
    failure = found.fails()
    found.chain.close()
    assert (failure.code, "0000:7f:00.0" in failure.what) == (code, True), failure.what


def lies(method: str, make: Callable[[list[str], bytes], object]) -> Callable[[Chain], None]:
    def tell(chain: Chain) -> None:
        chain.answers[method] = lambda given: json.dumps(make(chain.uuids, given)).encode()

    return tell


def refuses(method: str, code: int, reason: str) -> Callable[[Chain], None]:
    return lambda chain: chain.refusals.update({method: (code, reason)})


def says(method: str, body: bytes | None) -> Callable[[Chain], None]:
    return lambda chain: chain.answers.update({method: lambda _given: body})


def token(statuses: dict[str, object], **claims: object) -> Callable[[Chain], None]:
    return lies("GetToken", lambda _uuids, _given: token_of(statuses, **claims))


def devices(**changes: object) -> Callable[[Chain], None]:
    """Of the right GPUs, and with something else in it."""
    return lies("GetAdditionalEvidence", lambda uuids, nonce: {"nvidia": {"device_evidence_list": [
        device_of(uuid, nonce, **changes) for uuid in uuids]}})


GOOD: dict[str, object] = {"cpu0": "affirming", "gpu0": 2, "gpu1": "affirming"}
FAILURES = {
    "KBS refuses": (refuses("GetToken", 13, "KBS: 401 Unauthorized"), "E_ATTEST_REFUSED", "refused GetToken: KBS: 401 Unauthorized (code 13)"),
    "KBS hangs": (says("GetToken", None), "E_ATTEST_TIMEOUT", "gave no answer to GetToken in time"),
    "agent hangs": (says("GetTeeType", None), "E_ATTEST_TIMEOUT", "gave no answer to GetTeeType in time"),
    "an old agent": (refuses("GetAdditionalEvidence", 12, "unimplemented"), "E_ATTEST_REFUSED", "refused GetAdditionalEvidence"),
    "no attester of NVIDIA's": (says("GetAdditionalEvidence", b""), "E_ATTEST_EVIDENCE", "there is none: the attestation agent has no attester"),
    "no evidence": (says("GetAdditionalEvidence", b"-"), "E_ATTEST_EVIDENCE", "the evidence is not JSON"),
    "none of GPUs": (says("GetAdditionalEvidence", b"{}"), "E_ATTEST_EVIDENCE", "no list of NVIDIA's devices"),
    "another GPU": (lies("GetAdditionalEvidence", lambda uuids, nonce: evidence_of([uuids[0], "GPU-other"], nonce)),
                    "E_ATTEST_EVIDENCE", "missing: GPU-00000000-0000-4000-8000-000000000001; strange: certificate "),
    "one GPU less": (lies("GetAdditionalEvidence", lambda uuids, nonce: evidence_of(uuids[:1], nonce)),
                     "E_ATTEST_EVIDENCE", "it is about 1 GPUs, and 2 were checked"),
    "one GPU twice": (lies("GetAdditionalEvidence", lambda uuids, nonce: evidence_of([uuids[0], uuids[0]], nonce)),
                      "E_ATTEST_EVIDENCE", "it is about 2 GPUs, and 2 were checked; missing: GPU-"),
    "one GPU more": (lies("GetAdditionalEvidence", lambda uuids, nonce: evidence_of([*uuids, uuids[0]], nonce)),
                     "E_ATTEST_EVIDENCE", "it is about 3 GPUs, and 2 were checked; missing: none; strange: none"),
    "an old nonce": (lies("GetAdditionalEvidence", lambda uuids, nonce: evidence_of(uuids, nonce[::-1])),
                     "E_ATTEST_EVIDENCE", "was made for another nonce"),
    "no report": (devices(evidence="AAAA"), "E_ATTEST_EVIDENCE", "is not an exchange of measurements (3 bytes)"),
    "cut short": (devices(evidence=base64.b64encode(report(bytes(range(32)))[:38]).decode()), "E_ATTEST_EVIDENCE", "(38 bytes)"),
    "no base64": (devices(evidence="!"), "E_ATTEST_EVIDENCE", "a report or certificate of it is not base64"),
    "a certificate of nobody": (devices(certificate=""), "E_ATTEST_EVIDENCE", "missing: GPU-"),
    "a certificate that is none": (devices(certificate=7), "E_ATTEST_EVIDENCE", "has no report or no certificate"),
    "another name": (devices(uuid="GPU-other"), "E_ATTEST_EVIDENCE", "it calls GPU-00000000-0000-4000-8000-000000000000 'GPU-other'"),
    "a name that is none": (devices(uuid=7), "E_ATTEST_EVIDENCE", "it calls GPU-00000000-0000-4000-8000-000000000000 ''"),
    "not affirmed": (token({**GOOD, "gpu1": "contraindicated"}), "E_ATTEST_REFUSED", "does not affirm gpu1: 'contraindicated'"),
    "the CPU is not": (token({**GOOD, "cpu0": 32}), "E_ATTEST_REFUSED", "does not affirm cpu0: 32"),
    "too few GPUs": (token({"cpu0": "affirming", "gpu0": "affirming"}), "E_ATTEST_REFUSED", "affirms 1 GPUs, and 2 were checked"),
    "expired": (token(GOOD, exp=1_600_000_000), "E_ATTEST_REFUSED", "the token has run out"),
    "expired, by a fraction": (token(GOOD, exp=1_600_000_000.5), "E_ATTEST_REFUSED", "the token has run out"),
    "expired, in words": (token(GOOD, exp="1600000000"), "E_ATTEST_REFUSED", "does not say in seconds when it runs out"),
    "for ever": (token(GOOD, exp=None), "E_ATTEST_REFUSED", "does not say in seconds when it runs out"),
    "expired, by a truth": (token(GOOD, exp=True), "E_ATTEST_REFUSED", "does not say in seconds when it runs out"),
    "no token": (lies("GetToken", lambda _uuids, _given: {"token": "x"}), "E_ATTEST_REFUSED", "has no token"),
    "no claims": (lies("GetToken", lambda _uuids, _given: {"token": "a.!.c"}), "E_ATTEST_REFUSED", "claims are not base64"),
    "other claims": (lies("GetToken", lambda _uuids, _given: {"token": "a.e30.c"}), "E_ATTEST_REFUSED", "has no appraisals"),
}


@pytest.mark.parametrize(("lie", "code", "words"), FAILURES.values(), ids=FAILURES)
def test_what_is_not_accepted_sets_nothing(attested: Attested, lie: Callable[[Chain], None], code: str, words: str) -> None:
    lie(attested.chain)
    failure = attested.fails()
    assert (failure.code, words in failure.what) == (code, True), failure.what
    assert failure.what.endswith("; no container was started")


REPORTED: dict[str, Callable[[list[str], bytes], list[Json]]] = {
    "with UUIDs": lambda uuids, nonce: [device_of(uuid, nonce, uuid=uuid) for uuid in uuids],
    "in another order": lambda uuids, nonce: [device_of(uuid, nonce) for uuid in reversed(uuids)],
    "with switches": lambda uuids, nonce: [*(device_of(uuid, nonce) for uuid in uuids), device_of("switch", nonce, arch="LS10")],
}


@pytest.mark.parametrize("make", REPORTED.values(), ids=REPORTED)
def test_evidence_as_attestation_agents_have_it(attested: Attested, make: Callable[[list[str], bytes], list[Json]]) -> None:
    lies("GetAdditionalEvidence", lambda uuids, nonce: {"nvidia": {"device_evidence_list": make(uuids, nonce)}})(attested.chain)
    ready = attested.run().ready
    assert ready is not None and ready.outcome is Outcome.SET


@pytest.mark.parametrize(("fault", "keys", "code", "words"), [
    (f"fail {CERTIFICATE} gpu=1 3", "", "E_ATTEST_EVIDENCE", f"{CERTIFICATE} returned NVML_ERROR_NOT_SUPPORTED (3)"),
    (f"crash {CERTIFICATE}", "", "E_NVML_CRASH", ""), ("", "uuid=GPU-the-same", "E_ATTEST_EVIDENCE", "gives 1 different certificates for 2 GPUs"),
], ids=["refused", "crash", "the same twice"])
def test_a_library_that_does_not_tell_the_gpus_apart(attested: Attested, fault: str, keys: str, code: str, words: str) -> None:
    attested.guest.keys += f" {keys}"
    attested.guest.describe(f"{CONFIDENTIAL}\n{fault}")
    failure = attested.fails()
    assert (failure.code, words in failure.what) == (code, True), failure.what


class Uncertified:
    """A worker whose library has a certificate for the second GPU only."""

    def ask(self, _name: str, _limit_s: float, **_given: object) -> list[list[object]]:
        return [[0, ""], [1, "x"]]


def test_a_gpu_without_a_certificate(attested: Attested) -> None:
    guest, real = attested.guest, attested.guest.facts.worker
    guest.facts = replace(guest.facts, worker=cast(Worker, Uncertified()))
    failure = attested.fails()
    guest.facts = replace(guest.facts, worker=real)
    assert (failure.code, "gives 1 different certificates for 2 GPUs" in failure.what) == ("E_ATTEST_EVIDENCE", True)


@pytest.mark.parametrize(("chain", "same"), [
    (b"-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\nBB\n-----END CERTIFICATE-----\n", True),
    (b"-----BEGIN CERTIFICATE-----\r\nAA\r\n-----END CERTIFICATE-----\0\0", True),
    (b"-----BEGIN CERTIFICATE-----\nAB\n-----END CERTIFICATE-----\n", False),
    (b"-----BEGIN CERTIFICATE-----\nAA\n", False), (b"", False),
], ids=["chain", "lines", "other", "cut short", "nothing"])
def test_a_certificate_is_the_first_of_its_chain(chain: bytes, same: bool) -> None:
    assert (evidence.leaf_of(chain) == evidence.leaf_of(b"-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n")) is same
    assert bool(evidence.leaf_of(chain)) is (b"END" in chain)


@pytest.mark.parametrize(("names", "told"), [
    (("abc",), "1 container without a GPU ran and ends with the VM"), (("abc", "def"), "2 containers without a GPU ran and end with the VM"),
])
def test_what_runs_already_is_told(attested: Attested, names: tuple[str, ...], told: str) -> None:
    for name in names:
        attested.guest.system.put(f"/run/kata-containers/{name}/rootfs/x")
    attested.chain.refusals["GetToken"] = (5, "no")
    assert attested.fails().what.endswith(f"; {told}")


def test_a_tee_that_the_agent_takes_for_none(attested: Attested) -> None:
    attested.chain.tee = "sample"
    attested.guest.system.put("/sys/devices/platform/sev-guest/uevent")
    failure = attested.fails()
    assert (failure.code, "takes this guest for a sample, and it is in SEV-SNP" in failure.what) == ("E_ATTEST_EVIDENCE", True)


def test_where_the_reason_of_a_refusal_is(attested: Attested) -> None:
    """guest-components say no more than this to whoever asks, and the reason in their log."""
    attested.chain.refusals["GetToken"] = (13, "[ERROR:attestation-agent] AA-KBC get token failed")
    assert attested.fails().hint.startswith("read why in the attestation agent's own lines on the console")


def test_no_agent_on_the_socket(attested: Attested) -> None:
    attested.chain.close()
    failure = attested.fails()
    assert (failure.code, "Connection refused" in failure.what) == ("E_ATTEST_UNREACHABLE", True)


def test_a_socket_that_never_comes(attested: Attested) -> None:
    os.unlink(attested.guest.root / paths.ATTESTATION_AGENT.lstrip("/"))
    failure = attested.fails()
    assert (failure.code, "did not appear within 2 s" in failure.what) == ("E_ATTEST_UNREACHABLE", True)


ROUTE = "Iface\tDestination\tGateway\neth0\t00000000\t0202000A\n"
LINK, FAR = f"fe80{'0' * 28} 40 {'0' * 32} 00 {'0' * 32} 00000100 1 0 1 eth0\n", f"{'0' * 32} 00 {'0' * 32} 00 fe80{'0' * 28} 400 1 0 3 eth0\n"
LOOPS = f"{'0' * 31}1 80 {'0' * 32} 00 {'0' * 32} 0 2 0 80200001 lo\n"


@pytest.mark.parametrize(("path", "text", "comes"), [
    (attest.ROUTES, ROUTE, True), (attest.ROUTES, "Iface\tDestination\nlo\t0000007F\n", False), (attest.ROUTES_6, LOOPS + LINK + FAR, True),
    (attest.ROUTES_6, LOOPS + LINK + LINK.replace("fe80", "ff00"), False),
], ids=["IPv4", "no IPv4", "IPv6", "no IPv6"])
def test_no_broker_is_asked_before_there_is_a_way_to_it(attested: Attested, path: str, text: str, *, comes: bool) -> None:
    """The runtime sets the network up by the agent, which listens only after it started the attestation agent."""
    system, asked = attested.guest.system, attested.chain.asked
    system.put("/sys/class/net/eth0/device/vendor", "0x1af4")
    system.put("/sys/class/net/lo/address", "00:00:00:00:00:00")

    def set_up() -> None:
        asked.append("route")
        system.put(path, text)

    system.later(1.5, set_up)
    if comes:
        assert attested.run().ready is not None
        assert asked == ["GetTeeType", "GetAdditionalEvidence", "route", "GetToken"]
    else:
        failure = attested.fails()
        assert (failure.code, asked) == ("E_ATTEST_UNREACHABLE", ["GetTeeType", "GetAdditionalEvidence", "route"])
        assert failure.what.startswith("there is no route to a key broker within 2 s of the agent's start")


def ends(attested: Attested) -> None:
    shutil.rmtree(attested.guest.root / "proc/4711")


def without_socket(attested: Attested) -> None:
    os.unlink(attested.guest.root / paths.ATTESTATION_AGENT.lstrip("/"))
    ends(attested)


def without_network(attested: Attested) -> None:
    attested.guest.system.put("/sys/class/net/eth0/device/vendor", "0x1af4")
    attested.guest.system.later(1.0, lambda: ends(attested))


def a_moment_later(attested: Attested) -> None:
    attested.chain.close()
    attested.guest.system.later(1.0, lambda: ends(attested))


@pytest.mark.parametrize("end", [without_socket, without_network, a_moment_later])
def test_an_agent_that_ends_first_is_not_a_failure_of_the_boot(attested: Attested, end: Callable[[Attested], None]) -> None:
    end(attested)
    ready = attested.run().ready
    assert ready is not None and (ready.outcome, ready.accepts) == (Outcome.LEFT, False)
    assert not (attested.guest.root / CDI).exists()
    assert attested.guest.system.now() < 102.0, "no wait to the end of its time"


@pytest.mark.parametrize("text", ["", CONFIDENTIAL.replace("feature=on", "feature=off")], ids=["none", "off"])
def test_gpus_without_confidential_mode_cannot_be_attested(gpu_guest: MakeGuest, text: str) -> None:
    with pytest.raises(NvrcError, match="requires confidential GPUs; mode is off") as caught:
        gpu_guest("nvrc.ready=attested", text=text).boot()
    assert caught.value.code == "E_READY_STATE"


@pytest.fixture
def verified(attested: Attested) -> Attested:
    attested.guest.facts = replace(attested.guest.facts, verifier="/usr/libexec/verify")
    attested.guest.system.workers = None
    return attested


@pytest.mark.parametrize(("status", "code"), [(0, ""), (256, "E_ATTEST_REFUSED"), (9, "E_ATTEST_REFUSED"), (None, "E_ATTEST_TIMEOUT")],
                         ids=["accepts", "refuses", "killed", "hangs"])
def test_a_verifier_of_the_image_has_the_last_word(verified: Attested, status: int | None, code: str) -> None:
    system = verified.guest.system
    if status is not None:
        system.later(1.0, lambda: system.children.died(system.next_pid, status))
    if code:
        assert verified.fails().code == code
    else:
        ready = verified.run().ready
        assert ready is not None and "accepted by /usr/libexec/verify" in ready.why and evidence.UNCHECKED not in ready.why
    document = json.loads((verified.guest.root / "run/nvrc-verifier/input.json").read_text())
    assert (document["nonce"], document["uuids"]) == (bytes(range(32)).hex(), verified.chain.uuids)
    assert [program.path for program in system.programs] == ["/usr/libexec/verify"]


@pytest.mark.parametrize(("text", "good"), [('verifier = "/usr/bin/v"', True), ('verifier = "v"', False), ("verifier = 3", False),
                                            ('verifier = "/usr/../v"', False)])
def test_the_policy_names_the_verifier(text: str, good: bool) -> None:
    if good:
        assert load_policy(text.encode()).verifier == "/usr/bin/v"
    else:
        with pytest.raises(NvrcError, match="verifier is not the path of a program in the image"):
            load_policy(text.encode())


GARBAGE = {
    "a request": b"\0\0\0\0\0\0\0\1\1\0", "too long": b"\xff\xff\xff\xff\0\0\0\1\2\0", "no protobuf": b"\0\0\0\1\0\0\0\1\2\0\xff",
    "cut field": b"\0\0\0\2\0\0\0\1\2\0\x12\x09", "status is a number": b"\0\0\0\2\0\0\0\1\2\0\x08\x01",
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
def test_an_answer_that_is_none(data: bytes, tmp_path: Path) -> None:
    import socket

    ours, theirs = socket.socketpair()
    theirs.sendall(data)
    client = Client(ours.detach(), LinuxSystem(str(tmp_path)).now, LinuxSystem(str(tmp_path)).now() + 5)
    try:
        with pytest.raises(WireError):
            client.call("s", "m")
    finally:
        client.close()
        theirs.close()


def dripping(answer: bytes, until_s: float) -> bytes:
    """An agent that says one byte a second: each look at the clock is a second, and brings one."""
    import socket

    ours, theirs = socket.socketpair()
    rest, seconds = iter(answer), 0.0

    def now() -> float:
        nonlocal seconds
        seconds += 1
        if (byte := next(rest, None)) is not None:
            theirs.sendall(bytes((byte,)))
        return seconds

    client = Client(ours.detach(), now, until_s)
    try:
        return client.call("s", "m")
    finally:
        client.close()
        theirs.close()


SLOW = HEADER.pack(22, 1, RESPONSE, 0) + b"\x12\x14" + b"accepted by the kbs!"
ANOTHER = HEADER.pack(2, 3, RESPONSE, 0) + b"\x12\0"


def test_a_broker_that_answers_slowly_is_heard_out_within_the_time_of_all() -> None:
    assert dripping(SLOW, 60) == b"accepted by the kbs!"
    with pytest.raises(TimeoutError):
        dripping(SLOW, 20)


def test_answers_to_what_nobody_asked_do_not_hold_the_boot_longer() -> None:
    with pytest.raises(TimeoutError):
        dripping(ANOTHER * 100, 60)
