# SPDX-License-Identifier: Apache-2.0
"""Reports of an image and of others: the input that differs is named, for each input; signatures are not this program's."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.documents import unset
from fakes.firmware import make_firmware
from fakes.snp import report as snp_report
from fakes.tdx import Told, make_tdvf, quote
from nvrc.params.initdata import read_initdata
from nvrc.params.initdata_make import pack, pack_disk
from nvrc_build.after.measure import Launch, snp_digest
from nvrc_build.cli import main
from nvrc_build.ground.errors import BuildError

LINE = "console=hvc0"
QUOTED = Told(bytes(48), bytes(48), bytes(48))
INITDATA = b'version = "0.1.0"\nalgorithm = "sha256"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("mine", "other"):
        image = tmp_path / "images" / name
        image.mkdir(parents=True)
        (image / "vmlinuz").write_bytes(b"kernel of " + name.encode())
        (image / "initrd").write_bytes(b"initrd of " + name.encode())
        (image / "manifest.json").write_text(json.dumps({"version": 1, "image": name, "format": "initrd", "parts": {}, "packages": [], "files": []}))
    (tmp_path / "ovmf").write_bytes(make_firmware())
    changed = bytearray(make_firmware())
    changed[0] ^= 1
    (tmp_path / "ovmf2").write_bytes(changed)
    (tmp_path / "initdata.toml").write_bytes(INITDATA)
    return tmp_path


def launch(folder: Path, image: str = "mine") -> Launch:
    return Launch(firmware=folder / "ovmf", kernel=folder / f"images/{image}/vmlinuz", initrd=folder / f"images/{image}/initrd", cmdline=LINE,
                  vcpus=2, vcpu_type="EPYC-v4")


def check(folder: Path, data: bytes, *words: str) -> int:
    (folder / "report").write_bytes(data)
    return main(["verify", "mine", "--report", str(folder / "report"), "--out", str(folder), "--firmware", str(folder / "ovmf"), "--cmdline", LINE,
                 "--vcpus", "1-3", *words])


def test_a_report_of_this_image(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(folder, snp_report(snp_digest(launch(folder)))) == 0
    assert capsys.readouterr().out == "good: the report is one of this image\n"


INPUTS: dict[str, tuple[Callable[[Path], Launch], str]] = {
    "vCPUs": (lambda folder: replace(launch(folder), vcpus=8), "vCPUs: the machine was started with 8, expected 1 to 3"),
    "type": (lambda folder: replace(launch(folder), vcpu_type="EPYC-Genoa"), "vCPU type: the machine was started with EPYC-Genoa, expected EPYC-v4"),
    "line": (lambda folder: replace(launch(folder), cmdline="quiet"), "command line: the machine was started with 'quiet', expected 'console=hvc0'"),
    "firmware": (lambda folder: replace(launch(folder), firmware=folder / "ovmf2"), "firmware: the machine was started with "),
    "kernel": (lambda folder: replace(launch(folder), kernel=launch(folder, "other").kernel), "kernel: that of other, expected "),
    "initrd": (lambda folder: replace(launch(folder), initrd=launch(folder, "other").initrd), "initrd: that of other, expected "),
    "image": (lambda folder: launch(folder, "other"), "image: other, expected mine"),
    "none of them": (lambda folder: replace(launch(folder), cmdline="quiet splash"), "is not one of this image"),
}


@pytest.mark.parametrize(("part", "most"), [("ovmf", 64 << 20), ("images/other/vmlinuz", 512 << 20), ("images/other/initrd", (4 << 30) - 1)])
def test_what_is_measured_is_of_a_size_that_it_can_have(folder: Path, part: str, most: int) -> None:
    """All of it is read, also of other images that may explain a report: a file with a hole took all memory."""
    os.truncate(folder / part, 1 << 40)
    with pytest.raises(BuildError, match=f"at most {most} are possible"):
        snp_digest(launch(folder, "other"))


@pytest.mark.long
@pytest.mark.parametrize(("started", "words"), INPUTS.values(), ids=INPUTS)
def test_the_input_that_differs_is_named(folder: Path, started: Callable[[Path], Launch], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(folder, snp_report(snp_digest(started(folder))), "--or-cmdline", "quiet", "--or-firmware", str(folder / "ovmf2")) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert words in line


@pytest.mark.long
def test_policy_and_initdata(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, digest = snp_digest(launch(folder)), read_initdata(INITDATA).bound(32)
    (folder / "annotation").write_bytes(base64.b64encode(pack(INITDATA)))
    (folder / "disk").write_bytes(pack_disk(INITDATA))
    for form in ("initdata.toml", "annotation", "disk"):
        assert check(folder, snp_report(good, host_data=digest), "--initdata", str(folder / form)) == 0
    assert check(folder, snp_report(good, host_data=digest), "--initdata", "/dev/zero") == 2
    capsys.readouterr()
    assert check(folder, snp_report(good, policy=0xB0000)) == 1
    assert capsys.readouterr().out == ("policy: the guest was started with 0xb0000, expected 0x30000\n"
                                       "policy: the guest may be debugged by the host\n")
    assert check(folder, snp_report(good, host_data=digest)) == 1
    assert capsys.readouterr().out.startswith(f"initdata: HOST_DATA is {digest.hex()}, and that of a guest without initdata is 00")


def test_a_report_of_another_privilege_level(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray(snp_report(snp_digest(launch(folder))))
    data[0x30] = 2
    assert check(folder, bytes(data)) == 1
    assert capsys.readouterr().out == "policy: the report was asked for at VMPL 2, and verifiers take 0\n"


@pytest.mark.long
def test_what_cannot_be_tried_stops_nobody(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An image that is damaged, a firmware without SEV; one that is missing is a wrong call."""
    (folder / "images/other/manifest.json").write_text("{")
    (folder / "tdvf").write_bytes(make_tdvf())
    assert check(folder, snp_report(snp_digest(launch(folder)))) == 0
    changed = replace(launch(folder), firmware=folder / "ovmf2")
    assert check(folder, snp_report(snp_digest(changed)), "--or-firmware", str(folder / "tdvf"), "--or-firmware", str(folder / "ovmf2")) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"firmware: the machine was started with {folder / 'ovmf2'}, ")
    assert check(folder, snp_report(bytes(48)), "--or-firmware", str(folder / "none")) == 2
    assert "none does not exist; give --or-firmware a file" in capsys.readouterr().err


@pytest.mark.parametrize("data", [b"", bytes(1184), bytes(1183), quote(QUOTED)[:300], b"\x09" * 2000], ids=["empty", "zeros", "short", "cut", "other"])
def test_what_is_neither(folder: Path, data: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(folder, data) == 2
    assert "is neither a SEV-SNP report" in (told := capsys.readouterr().err) or "cut short" in told


def test_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(folder, snp_report(snp_digest(launch(folder))), "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert type(document["schema"]) is int
    assert list(unset(document)) == []
    assert (document["ok"], document["identity"], document["report"]["kind"]) == (True, None, "SEV-SNP")


@pytest.mark.parametrize(("words", "told"), [
    ((), "there is nothing to hold the image against"), (("--report", "report"), "--report and --firmware belong together"),
    (("--firmware", "ovmf"), "--report and --firmware belong together"), (("--signers", "who"), "--signers and --identity belong together"),
    (("--identity", "builder@example.com"), "--signers and --identity belong together"),
])
def test_a_call_that_asks_for_nothing_or_for_half(folder: Path, words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "mine", "--out", str(folder), *words]) == 2
    assert told in capsys.readouterr().err
