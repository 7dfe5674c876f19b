# SPDX-License-Identifier: Apache-2.0
"""The step `parameters` with initdata disks and in TEEs: which are believed, which end the boot, and what is loaded."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

import nvrc
from fakes.modules import add_module, loads, module_guest
from fakes.system import FakeSystem, bare_guest
from nvrc.confidential import tee
from nvrc.confidential.cbor import find_personalization
from nvrc.confidential.initdata import find_initdata
from nvrc.engine.facts import Facts, FailedWithFacts
from nvrc.params.initdata import read_initdata
from nvrc.params.initdata_make import pack_disk
from nvrc.params.policy import NO_POLICY
from nvrc.params.values import text
from nvrc.steps import parameters
from nvrc.vocabulary.errors import NvrcError

DOCUMENT = b"""version = "0.1.0"
algorithm = "sha384"
[data]
"nvrc.toml" = '''
[params]
"nvrc.gpus" = 2
'''
"""
DIGEST = read_initdata(DOCUMENT)
NONCE = bytes(range(64))


@pytest.fixture
def system(tmp_path: Path) -> FakeSystem:
    found = bare_guest(str(tmp_path))
    found.put("/dev/urandom", NONCE)
    return found


def attach(system: FakeSystem, name: str, content: bytes) -> None:
    system.put(f"/sys/block/{name}/size", "1\n")
    system.put(f"/dev/{name}", content)


def code_of(system: FakeSystem) -> tuple[str, str]:
    with pytest.raises(NvrcError) as caught:
        parameters.run(system, Facts())
    return caught.value.code, caught.value.what


# Each TEE, and how it gives its value: by tsm, by the device, by the TDX module.

def snp_report(host_data: bytes, nonce: bytes = NONCE) -> bytes:
    report = bytearray(tee.SNP_REPORT)
    report[0x50:0x50 + 64], report[0xC0:0xC0 + 32] = nonce, host_data
    return bytes(report)


def make_tsm(system: FakeSystem, provider: str, blob: bytes) -> None:
    for name, content in (("provider", provider.encode() + b"\n"), ("inblob", b""), ("outblob", blob)):
        system.put(f"{tee.ENTRY}/{name}", content)


def in_snp_by_tsm(system: FakeSystem, value: bytes, nonce: bytes = NONCE) -> None:
    system.put("/sys/devices/platform/sev-guest/uevent")
    make_tsm(system, "sev_guest", snp_report(value, nonce))


def in_snp_by_device(system: FakeSystem, value: bytes, nonce: bytes = NONCE) -> None:
    def answer(request: int, data: bytes) -> bytes:
        assert (request, len(data), data[:8]) == (tee.SNP_GET_REPORT, 32, (1).to_bytes(8, "little"))
        asked, reply = (int.from_bytes(data[at:at + 8], "little") for at in (8, 16))
        assert ctypes.string_at(asked, 96) == NONCE + bytes(32)
        message = bytes(4) + tee.SNP_REPORT.to_bytes(4, "little") + bytes(24) + snp_report(value, nonce)
        ctypes.memmove(reply, message, len(message))
        return data

    system.put("/sys/devices/platform/sev-guest/uevent")
    system.devices[tee.SEV_GUEST] = answer


def in_tdx(system: FakeSystem, value: bytes, nonce: bytes = NONCE) -> None:
    def answer(request: int, data: bytes) -> bytes:
        assert (request, len(data), data[:64]) == (tee.TDX_CMD_GET_REPORT0, 64 + 1024, NONCE)
        report = bytearray(1024)
        report[128:192], report[576:624] = nonce, value
        return data[:64] + bytes(report)

    system.put("/proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu tdx_guest sse2\n")
    system.devices[tee.TDX_GUEST] = answer


def bstr(data: bytes) -> bytes:
    return b"\x59" + len(data).to_bytes(2, "big") + data


def cca_token(value: bytes, nonce: bytes = NONCE) -> bytes:
    claims = b"\xa3\x0a" + bstr(nonce) + b"\x19\xac\xcb" + bstr(value) + b"\x19\xac\xcc\x67sha-256"
    realm = b"\xd2\x84\x40\xa0" + bstr(claims) + bstr(bytes(96))
    return b"\xd9\x01\x8f\xa2\x19\xac\xca" + bstr(b"platform") + b"\x19\xac\xd1" + bstr(realm)


def in_cca(system: FakeSystem, value: bytes, nonce: bytes = NONCE) -> None:
    system.put("/sys/devices/platform/arm-cca-dev/uevent")
    make_tsm(system, "arm_cca_guest", cca_token(value, nonce))


KINDS = {
    "SNP by tsm": (in_snp_by_tsm, 32, "HOST_DATA"), "SNP by device": (in_snp_by_device, 32, "HOST_DATA"),
    "TDX": (in_tdx, 48, "MRCONFIGID"), "CCA": (in_cca, 64, "the realm's personalization value"),
}
every_tee = pytest.mark.parametrize(("enter", "size", "field"), KINDS.values(), ids=KINDS)


@every_tee
def test_a_digest_that_the_tee_confirms_is_believed(system: FakeSystem, enter: object, size: int, field: str) -> None:
    attach(system, "vda", b"rootfs")
    attach(system, "vdb", pack_disk(DOCUMENT))
    enter(system, DIGEST.bound(size))  # type: ignore[operator]
    facts = parameters.run(system, Facts())
    assert text(facts.settings.gpus) == "2"
    assert parameters.tell(facts) == f"initdata sha384={DIGEST.digest.hex()} of vdb, as {field} has it"
    assert dict(facts.parameters.sources)["gpus"].value == "initdata"  # type: ignore[union-attr]


@every_tee
@pytest.mark.parametrize("other", ["flipped", "zeros"])
def test_another_digest_ends_the_boot(system: FakeSystem, enter: object, size: int, field: str, other: str) -> None:
    attach(system, "vda", pack_disk(DOCUMENT))
    value = bytes(size) if other == "zeros" else bytes([DIGEST.digest[0] ^ 1]) + DIGEST.bound(size)[1:]
    enter(system, value)  # type: ignore[operator]
    code, what = code_of(system)
    assert code == "E_INITDATA_BINDING"
    assert f"{field} is {value.hex()}, and the digest (sha384) of the initdata of vda is {DIGEST.bound(size).hex()}" in what


@every_tee
def test_a_disk_that_the_host_keeps_back_ends_the_boot(system: FakeSystem, enter: object, size: int, field: str) -> None:
    enter(system, DIGEST.bound(size))  # type: ignore[operator]
    assert code_of(system) == ("E_INITDATA_BINDING", f"{next(one.name for one in tee.TEES if one.field == field)}: {field} is "
                               f"{DIGEST.bound(size).hex()}, and no disk has initdata")


@every_tee
def test_a_report_for_another_question_is_none(system: FakeSystem, enter: object, size: int, field: str) -> None:
    attach(system, "vda", pack_disk(DOCUMENT))
    enter(system, DIGEST.bound(size), NONCE[::-1])  # type: ignore[operator]
    code, what = code_of(system)
    assert (code, what.partition(": ")[2]) == ("E_INITDATA_BINDING", "its report was made for another nonce")


@every_tee
def test_a_report_for_another_question_does_not_say_that_there_was_no_disk(
        system: FakeSystem, enter: object, size: int, field: str) -> None:
    enter(system, bytes(size), NONCE[::-1])  # type: ignore[operator]
    code, what = code_of(system)
    assert (code, what.partition(": ")[2]) == ("E_INITDATA_BINDING", "its report was made for another nonce")


@every_tee
def test_a_tee_without_initdata_boots(system: FakeSystem, enter: object, size: int, field: str) -> None:
    enter(system, bytes(size))  # type: ignore[operator]
    facts = parameters.run(system, Facts())
    assert (facts.initdata, facts.warnings) == ("", ())


def test_a_tee_that_does_not_say_believes_no_disk(system: FakeSystem) -> None:
    attach(system, "vda", pack_disk(DOCUMENT))
    system.put("/sys/devices/platform/sev-guest/uevent")
    assert code_of(system) == ("E_INITDATA_BINDING",
                               "SEV-SNP: its report, with HOST_DATA, cannot be read: No such file or directory")


def test_a_tee_that_does_not_say_and_no_disk_is_a_remark(system: FakeSystem) -> None:
    system.put("/sys/devices/platform/sev-guest/uevent")
    (warning,) = parameters.run(system, Facts()).warnings
    assert warning.what.startswith("PID 1 could not determine whether initdata was taken away: SEV-SNP: its report")


@pytest.mark.parametrize(("line", "policy"), [("nvrc.strict=on", ""), ("", "strict = true\n")])
def test_under_strict_a_tee_that_does_not_say_ends_the_boot(system: FakeSystem, line: str, policy: str) -> None:
    """On SEV-SNP the host carries the question, and may drop it together with the disk."""
    def refuse(_request: int, _data: bytes) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    system.put("/sys/devices/platform/sev-guest/uevent")
    system.devices[tee.SEV_GUEST] = refuse
    system.put("/proc/cmdline", f"{line}\n")
    if policy:
        system.put("/etc/nvrc/policy.toml", policy)
    assert code_of(system) == ("E_INITDATA_BINDING", "PID 1 could not determine whether initdata was taken away: "
                               "SEV-SNP: its report, with HOST_DATA, cannot be read: Input/output error")


def test_another_provider_is_not_believed(system: FakeSystem) -> None:
    attach(system, "vda", pack_disk(DOCUMENT))
    in_snp_by_tsm(system, DIGEST.bound(32))
    system.put(f"{tee.ENTRY}/provider", "some_guest\n")
    assert code_of(system) == ("E_INITDATA_BINDING", "sev_guest: configfs-tsm is served by 'some_guest'")


@pytest.mark.parametrize("cut", [0, 31, 100, tee.SNP_REPORT - 1])
def test_a_report_that_is_cut_short(cut: int) -> None:
    with pytest.raises(NvrcError, match=f"has {cut} bytes, not {tee.SNP_REPORT}"):
        tee.snp_host_data(snp_report(bytes(32))[:cut], NONCE)


@pytest.mark.parametrize("cut", range(0, len(cca_token(bytes(64))), 7))
def test_a_token_that_is_cut_short(cut: int) -> None:
    with pytest.raises(NvrcError, match="its token cannot be read") as caught:
        find_personalization(cca_token(bytes(64))[:cut])
    assert caught.value.code == "E_INITDATA_BINDING"


TOKENS = {
    "deep": b"\x81" * 200 + b"\x00", "long": b"\x9a\xff\xff\xff\xff", "indefinite": b"\x9f\xff", "doubled": b"\xa2\x01\x01\x01\x01",
    "a number": b"\x01", "more": cca_token(bytes(64)) + b"\0", "no bytes": b"\xa1\x19\xac\xd1\x01", "keys": b"\xa1\x80\x01",
}


@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS)
def test_a_token_that_is_something_else(token: bytes) -> None:
    with pytest.raises(NvrcError, match="its token cannot be read"):
        find_personalization(token)


# Outside of a TEE.

def test_initdata_decides_like_the_line(system: FakeSystem) -> None:
    attach(system, "sda", pack_disk(DOCUMENT))
    system.put("/proc/cmdline", "nvrc.gpus=4 nvrc.log=info\n")
    facts = parameters.run(system, Facts())
    assert (text(facts.settings.gpus), facts.settings.log.value) == ("2", "info")
    assert (facts.initdata or "").endswith("of sda, not in a TEE")


def test_two_disks_are_one_too_many(system: FakeSystem) -> None:
    for name in ("vda", "vdb"):
        attach(system, name, pack_disk(DOCUMENT))
    assert code_of(system) == ("E_INITDATA", "initdata: the disks vda, vdb all have it; one may")


def test_a_policy_that_requires_it(system: FakeSystem) -> None:
    system.put("/etc/nvrc/policy.toml", 'words = ["*"]\ninitdata = { require = true }\n')
    assert code_of(system) == ("E_INITDATA", "initdata: no disk has it, and the image's policy requires it")


@pytest.mark.parametrize(("policy", "is_good"), [
    ("", True), ('words = ["*"]\n', True), ('words = ["*"]\ninitdata = { require = true }\n', True),
    ('words = ["*"]\ninitdata = { allow = ["nvrc.gpus", "nccl-topology.xml"] }\n', True),
    ('words = ["*"]\ninitdata = { allow = ["nvrc.*"] }\n', False)], ids=["none", "silent", "require", "named", "left-out"])
def test_a_policy_says_whether_the_pod_may_describe_its_host(system: FakeSystem, policy: str, is_good: bool) -> None:
    attach(system, "vda", pack_disk(DOCUMENT + b'"nccl-topology.xml" = "<system/>"\n'))
    if policy:
        system.put("/etc/nvrc/policy.toml", policy)
    if is_good:
        assert parameters.run(system, Facts()).pod_topology == "<system/>"
        return
    with pytest.raises(FailedWithFacts, match=r"nccl-topology\.xml: is not among what the image's policy lets initdata decide") as caught:
        parameters.run(system, Facts())
    assert caught.value.code == "E_PARAMETERS"


def test_a_mistake_in_it_ends_the_boot_as_one_of_the_line_does(system: FakeSystem) -> None:
    attach(system, "vda", pack_disk(DOCUMENT.replace(b"nvrc.gpus", b"nvrc.gpu")))
    with pytest.raises(FailedWithFacts, match=r"nvrc\.gpu: is in initdata and is not a parameter") as caught:
        parameters.run(system, Facts())
    assert caught.value.code == "E_PARAMETERS"


@pytest.mark.parametrize("strict", [False, True])
def test_an_unknown_entry_is_a_warning_and_under_strict_an_error(system: FakeSystem, strict: bool) -> None:
    attach(system, "vda", pack_disk(DOCUMENT + b'"aa.tml" = ""\n'))
    system.put("/proc/cmdline", f"nvrc.strict={int(strict)}\n")
    if strict:
        with pytest.raises(FailedWithFacts, match=r"the entry 'aa\.tml' is unknown, did you mean aa\.toml"):
            parameters.run(system, Facts())
    else:
        assert [one.what for one in parameters.run(system, Facts()).warnings] == [
            "initdata: the entry 'aa.tml' is unknown, did you mean aa.toml?"]


def partition(system: FakeSystem, disk: str, name: str, content: bytes) -> None:
    system.put(f"/sys/block/{disk}/{name}/partition", "1\n")
    system.put(f"/dev/{name}", content)


def test_a_partition_with_initdata_counts_as_a_disk_with_it(system: FakeSystem) -> None:
    """The agent opens every node whose name begins with vd or sd, and takes the first of them that has it."""
    attach(system, "vda", pack_disk(DOCUMENT))
    attach(system, "vdb", b"boot record")
    partition(system, "vdb", "vdb1", pack_disk(DOCUMENT.replace(b"2", b"0")))
    in_snp_by_tsm(system, DIGEST.bound(32))
    assert code_of(system) == ("E_INITDATA", "initdata: the disks vda, vdb1 all have it; one may")


def test_initdata_in_a_partition_is_held_against_the_tee_as_any(system: FakeSystem) -> None:
    attach(system, "sda", b"boot record")
    system.put("/sys/block/sda/queue/rotational", "1\n")
    system.put("/dev/queue", pack_disk(DOCUMENT))
    partition(system, "sda", "sda1", pack_disk(DOCUMENT))
    in_snp_by_tsm(system, bytes(32))
    code, what = code_of(system)
    assert code == "E_INITDATA_BINDING"
    assert "of the initdata of sda1 is" in what


def test_a_disk_that_does_not_answer_is_named(system: FakeSystem) -> None:
    """Reading it is waiting in the kernel, where no signal reaches it; here it is a FIFO that nobody writes to."""
    attach(system, "vda", b"rootfs")
    system.put("/sys/block/vdb/size", "1\n")
    os.mkfifo(system.real_path("/dev/vdb"))
    with pytest.raises(NvrcError) as caught:
        find_initdata(system, NO_POLICY, (), lambda _system: None, answer_s=0.2)
    os.close(os.open(system.real_path("/dev/vdb"), os.O_RDWR))  # what was left behind ends
    assert (caught.value.code, caught.value.what) == (
        "E_INITDATA", "initdata: disk vdb does not answer within 0.2 s")


@pytest.mark.parametrize(("policy", "given"), [(None, " queue_depth=1"), ("", "")])
def test_what_a_policy_refuses_is_given_to_no_driver_of_disks(tmp_path: Path, policy: str | None, given: str) -> None:
    """Disks are looked for before the line is refused, as what a pod gives counts with it."""
    system = module_guest(str(tmp_path))
    add_module(system, "virtio_blk.ko")
    system.put("/proc/cmdline", "virtio_blk.queue_depth=1\n")
    attach(system, "sda", b"")
    if policy is None:
        parameters.run(system, Facts())
    else:
        system.put("/etc/nvrc/policy.toml", policy)
        assert code_of(system)[0] == "E_PARAMETERS"
    assert loads(system) == [f"virtio_blk.ko{given}"]


def test_disks_of_others_are_left_alone(system: FakeSystem) -> None:
    attach(system, "vda", b"")
    attach(system, "vdb", b"INITDATA" + bytes(512))
    system.put("/sys/block/vdc/size", "0\n")  # a drive without a medium: its node cannot be opened
    assert parameters.run(system, Facts()).initdata == ""


SPY = """
import sys
before = set(sys.modules)  # who traces this process may have loaded some already
sys.path[:0] = sys.argv[1], sys.argv[3]
from fakes.system import bare_guest
from nvrc.engine.facts import Facts
from nvrc.steps import parameters
parameters.run(bare_guest(sys.argv[2]), Facts())
print(*(name for name in set(sys.modules) - before if "initdata" in name or "confidential" in name or name in ("tomllib", "hashlib")))
"""


@pytest.mark.long
def test_a_machine_without_disks_loads_none_of_it(tmp_path: Path) -> None:
    root = Path(nvrc.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", SPY, str(root), str(tmp_path), str(root / "tests")], capture_output=True, text=True,
                          check=True, timeout=60)
    assert done.stdout.split() == []
