# SPDX-License-Identifier: Apache-2.0
"""Quotes of TDX guests of an image and of others: the input that differs is named, for each register and input."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes import tdx as second
from fakes.documents import unset
from fakes.firmware import make_firmware
from fakes.tdx import Told
from nvrc.params.initdata import read_initdata
from nvrc_build.cli import main

LINE = "console=hvc0"
INITDATA = b'version = "0.1.0"\nalgorithm = "sha256"\n'
Started = Callable[[Path], Told]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("mine", "other"):
        image = tmp_path / "images" / name
        image.mkdir(parents=True)
        (image / "vmlinuz").write_bytes(second.make_kernel(f"kernel of {name}"))
        (image / "initrd").write_bytes(b"initrd of " + name.encode())
        (image / "manifest.json").write_text(json.dumps({"version": 1, "image": name, "format": "initrd", "parts": {}, "packages": [], "files": []}))
    (tmp_path / "tdvf").write_bytes(second.make_tdvf())
    (tmp_path / "tdvf2").write_bytes(second.make_tdvf(second.NEW + b"another"))
    (tmp_path / "tdvf3").write_bytes(second.make_tdvf(second.MIDDLE))
    (tmp_path / "ovmf").write_bytes(make_firmware())
    (tmp_path / "initdata.toml").write_bytes(INITDATA)
    return tmp_path


def told(folder: Path, *, firmware: str = "tdvf", kernel: str = "mine", options: str = f"initrd=initrd {LINE}", initrd: str = "mine") -> Told:
    return second.told((folder / firmware).read_bytes(), (folder / f"images/{kernel}/vmlinuz").read_bytes(), options,
                       (folder / f"images/{initrd}/initrd").read_bytes() if initrd else None)


def check(folder: Path, quote: bytes, *words: str) -> int:
    (folder / "quote").write_bytes(quote)
    return main(["verify", "mine", "--report", str(folder / "quote"), "--out", str(folder), "--firmware", str(folder / "tdvf"), "--cmdline", LINE, *words])


@pytest.mark.parametrize("version", [4, 5])
def test_a_quote_of_this_image(folder: Path, version: int, capsys: pytest.CaptureFixture[str]) -> None:
    digest = read_initdata(INITDATA).bound(48)
    assert check(folder, second.quote(told(folder), version=version, config=digest), "--initdata", str(folder / "initdata.toml")) == 0
    assert capsys.readouterr().out == (f"rtmr_0: {'10' * 48} (not compared)\nrtmr_3: {'13' * 48} (not compared)\n"
                                       "xfam: e742060000000000 (not compared)\ngood: the report is one of this image\n")


def old_header(folder: Path, address: int = 0x7FFD7000) -> Told:
    """Memory of 2816 MiB and more: 2 GiB - 160 KiB, less the initrd, down to a page."""
    size = len((folder / "images/mine/initrd").read_bytes())
    kernel = second.loaded_by_old_qemu((folder / "images/mine/vmlinuz").read_bytes(), address, size)
    base = told(folder)
    return Told(base.mr_td, second.replay([second.kernel_event(kernel), *second.ACTIONS]), base.rtmr_2)


def pages_first(folder: Path) -> Told:
    image, stream, base = (folder / "tdvf").read_bytes(), b"", told(folder)
    for offset, _, address, size, _, attributes in second.SECTIONS:
        for page in range(address, address + size, second.PAGE):
            stream += b"MEM.PAGE.ADD".ljust(16, b"\0") + page.to_bytes(8, "little") + bytes(104)
        for chunk in range(address, address + size * attributes, 256):
            at = offset + chunk - address
            stream += b"MR.EXTEND".ljust(16, b"\0") + chunk.to_bytes(8, "little") + bytes(104) + image[at:at + 256]
    return Told(hashlib.sha384(stream).digest(), base.rtmr_1, base.rtmr_2)


INPUTS: dict[str, tuple[Started, tuple[str, ...]]] = {
    "firmware": (lambda folder: told(folder, firmware="tdvf2"), ("firmware: the machine was started with ",)),
    "another release": (lambda folder: told(folder, firmware="tdvf3", options=f"{LINE} initrd=initrd"),
                        ("firmware: the machine was started with ", "firmware: it is of another release: it started the kernel with "
                         f"'{LINE} initrd=initrd'")),
    "unknown firmware": (lambda folder: Told(b"\x07" * 48, told(folder).rtmr_1, told(folder).rtmr_2), (f"firmware: mr_td is {'07' * 48}, and",)),
    "old KVM": (pages_first, ("firmware: the host measures its pages in another order, as KVM did before Linux 6.16",)),
    "kernel": (lambda folder: told(folder, kernel="other"), ("kernel: that of other, expected ",)),
    "unknown kernel": (lambda folder: Told(told(folder).mr_td, b"\x07" * 48, told(folder).rtmr_2), (f"kernel: rtmr_1 is {'07' * 48}, and that of ",)),
    "old QEMU": (old_header, ("kernel: its header is as a QEMU before 10.0 changes it; give --qemu",)),
    "line": (lambda folder: told(folder, options="initrd=initrd quiet"), ("command line: the machine was started with 'quiet', expected ",)),
    "initrd": (lambda folder: told(folder, initrd="other"), ("initrd: that of other, expected ",)),
    "no initrd": (lambda folder: told(folder, initrd=""), ("initrd: the machine was started without the image's",)),
    "image": (lambda folder: told(folder, kernel="other", initrd="other"), ("kernel: that of other, ", "initrd: that of other, ")),
    "none of them": (lambda folder: told(folder, options="initrd=initrd quiet splash"), ("command line or initrd: rtmr_2 is ",)),
}


@pytest.mark.parametrize(("started", "words"), INPUTS.values(), ids=INPUTS)
def test_the_input_that_differs_is_named(folder: Path, started: Started, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    others = ("--or-cmdline", "quiet", "--or-firmware", str(folder / "ovmf"), "--or-firmware", str(folder / "tdvf2"), "--or-firmware",
              str(folder / "tdvf3"))
    assert check(folder, second.quote(started(folder)), *others) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if "(not compared)" not in line]
    assert len(lines) == len(words)
    assert all(line.startswith(expected) for line, expected in zip(lines, words, strict=True)), lines


def test_the_size_of_a_machine_of_an_old_qemu(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(folder, second.quote(old_header(folder)), "--qemu", "9.2", "--memory", "4096") == 0
    assert check(folder, second.quote(old_header(folder, 0x3FFD7000)), "--qemu", "9.2", "--memory", "4096") == 1
    assert "memory: the machine was started with 1024 MiB or as much, which --memory does not name" in capsys.readouterr().out
    assert check(folder, second.quote(told(folder)), "--qemu", "9.2") == 1
    assert "kernel: its header is as the file has it, so QEMU is 10.0 or later; give --qemu" in capsys.readouterr().out
    assert check(folder, second.quote(told(folder, kernel="other")), "--qemu", "9.2") == 1
    assert "kernel: rtmr_1 is " in capsys.readouterr().out


def test_initdata_and_a_guest_that_may_be_debugged(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digest = read_initdata(INITDATA).bound(48)
    assert check(folder, second.quote(told(folder), config=digest, attributes=1)) == 1
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert lines == [f"initdata: MRCONFIGID is {digest.hex()}, and that of a guest without initdata is {'00' * 48}",
                     "policy: the guest may be debugged by the host"]


@pytest.mark.parametrize(("attributes", "told_of"), [
    (1 << 28 | 1 << 30 | 1 << 63, []), (1 << 29, ["policy: the guest may be migrated by the host"]),
    (0x21, ["policy: the guest may be debugged by the host", "policy: the guest has the attributes 0x20, which a trusted one has not"]),
], ids=["usual", "migration", "profiled"])
def test_what_opens_a_guest_to_its_host(folder: Path, attributes: int, told_of: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert check(folder, second.quote(told(folder), attributes=attributes)) == (1 if told_of else 0)
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("policy: ")] == told_of


QUOTES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "no signature": (lambda quote: quote[:48 + 584], "cut short"), "part of it": (lambda quote: quote[:-1], "cut short"),
    "of another kind": (lambda quote: quote[:5] + b"\x10" + quote[6:], "is neither a SEV-SNP report"),
}


@pytest.mark.parametrize(("change", "words"), QUOTES.values(), ids=QUOTES)
def test_a_damaged_quote_is_refused(folder: Path, change: Callable[[bytes], bytes], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(folder, change(second.quote(told(folder)))) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("head", [b"\1\0" + (584).to_bytes(4, "little"), b"\2\0" + (10).to_bytes(4, "little")], ids=["SGX", "too-short"])
def test_a_body_that_is_not_of_tdx_is_refused(folder: Path, head: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    quote = second.quote(told(folder), version=5)
    assert check(folder, quote[:48] + head + quote[54:]) == 2
    assert "bytes, not one of TDX" in capsys.readouterr().err


def test_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(folder, second.quote(told(folder)), "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert list(unset(document)) == []
    report = document["report"]
    assert (document["ok"], report["kind"], report["rtmr_0"], report["xfam"]) == (True, "TDX", "10" * 48, "e742060000000000")
    assert report["rtmr_1"] == told(folder).rtmr_1.hex()


def test_a_firmware_without_tdx_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(folder, second.quote(told(folder)), "--firmware", str(folder / "ovmf")) == 2
    assert "it has no TDX metadata" in capsys.readouterr().err
