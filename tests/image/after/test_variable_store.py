# SPDX-License-Identifier: Apache-2.0
"""Keys in a variable store of OVMF, over a small store made by hand. A virtual machine tells whether firmware and kernel
agree: test_signed_modules.py."""

from __future__ import annotations

import json
import struct
import uuid
from pathlib import Path

import pytest

from fakes.documents import unset
from nvrc_build.after.varstore import certificates, enrol
from nvrc_build.cli import main
from nvrc_build.ground.errors import BuildError

CERTIFICATE, OTHER = b"0\x82 a certificate", b"0\x82 another certificate"
IMAGE_SECURITY, GLOBAL = "d719b2cb-3d3a-4596-a3bc-dad00e67656f", "8be4df61-93ca-11d2-aa0d-00e098032b8c"
ADDED, IN_TRANSITION, DELETED = 0x3F, 0x3E, 0x3C


def make_variable(name: str, data: bytes, *, vendor: str = GLOBAL, state: int = ADDED) -> bytes:
    label = f"{name}\0".encode("utf-16-le")
    head = struct.pack("<HBBIQ16sIII", 0x55AA, state, 0, 7, 0, b"", 0, len(label), len(data))
    row = head + uuid.UUID(vendor).bytes_le + label + data
    return row + b"\xff" * (-len(row) % 4)


def make_list(*keys: bytes) -> bytes:
    """One signature list for each key, as firmware sets are made."""
    kind = uuid.UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072").bytes_le
    return b"".join(kind + struct.pack("<III", 44 + len(key), 0, 16 + len(key)) + b"o" * 16 + key for key in keys)


def make_store(*variables: bytes, size: int = 4096) -> bytes:
    volume = bytes(16) + uuid.UUID("fff12b8d-7696-4c8b-a985-2747075b4f50").bytes_le + struct.pack(
        "<Q4sIHHHBB", size, b"_FVH", 0xFEFF, 0x48, 0, 0, 0, 2) + struct.pack("<IIII", 1, size, 0, 0)
    head = uuid.UUID("aaf32c78-947b-439a-a180-2e144ec37792").bytes_le + struct.pack("<IBB6x", size - 0x48, 0x5A, 0xFE)
    return (volume + head + b"".join(variables)).ljust(size, b"\xff")


def test_the_key_is_added_to_an_empty_store_and_only_once() -> None:
    store = enrol(make_store(), CERTIFICATE)
    assert certificates(store) == (CERTIFICATE,)
    assert enrol(store, CERTIFICATE) == store
    assert certificates(enrol(store, OTHER)) == (CERTIFICATE, OTHER)


def test_keys_and_variables_that_are_there_stay(tmp_path: Path) -> None:
    timeout = make_variable("Timeout", b"\x05\0")
    before = make_store(timeout, make_variable("db", make_list(b"vendor", b"second"), vendor=IMAGE_SECURITY))
    after = enrol(before, CERTIFICATE)
    assert certificates(after) == (b"vendor", b"second", CERTIFICATE)
    assert len(after) == len(before)
    # Besides what was appended, one bit: the old db counts no more.
    old = before.rstrip(b"\xff")
    assert [at for at in range(len(old)) if after[at] != before[at]] == [0x64 + len(timeout) + 2]


@pytest.mark.parametrize(("name", "vendor", "state", "found"), [
    ("db", IMAGE_SECURITY, IN_TRANSITION, (b"vendor",)),
    ("db", IMAGE_SECURITY, DELETED, ()),
    ("db", GLOBAL, ADDED, ()),
    ("dbx", IMAGE_SECURITY, ADDED, ()),
], ids=["cut-short-write", "deleted", "of-another-vendor", "forbidden-keys"])
def test_only_a_db_that_counts_is_read(name: str, vendor: str, state: int, found: tuple[bytes, ...]) -> None:
    store = make_store(make_variable(name, make_list(b"vendor"), vendor=vendor, state=state))
    assert certificates(store) == found
    assert certificates(enrol(store, CERTIFICATE)) == (*found, CERTIFICATE)


@pytest.mark.parametrize(("store", "said"), [
    (b"", "not a variable store of OVMF"),
    (b"\0" * 4096, "not a variable store of OVMF"),
    (make_store()[:0x48] + b"\0" * 4000, "does not keep authenticated variables"),
    (make_store()[:48] + b"\xff\xff" + make_store()[50:], "does not keep authenticated variables"),
    (make_store(b"\x55" * 80), "damaged at byte 100"),
    (make_store(make_variable("db", b"x" * 40, vendor=IMAGE_SECURITY)), "db in the variable store is damaged"),
    (make_store(make_variable("x", b"y" * 3900)), "no room for"),
    (make_store(make_variable("x", b"") + b"\xff" * 80 + b"dirt"), "no room for"),
], ids=["empty", "zeros", "other-format", "header-too-long", "no-variable", "no-signature-list", "full", "not-erased"])
def test_what_is_no_store_or_has_no_room_is_refused_in_words(store: bytes, said: str) -> None:
    with pytest.raises(BuildError, match=said):
        enrol(store, CERTIFICATE)


def test_the_command_leaves_the_given_store_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({
        "version": 1, "image": "x", "format": "initrd", "parts": {}, "packages": [], "files": []}))
    (tmp_path / "vars.fd").write_bytes(make_store())
    words = ["enrol", str(tmp_path), "--vars", str(tmp_path / "vars.fd"), "-o", str(tmp_path / "new.fd")]
    assert main(words) == 1
    assert "has no signing.x509; name an image with driver modules" in capsys.readouterr().err
    assert not (tmp_path / "new.fd").exists()
    (tmp_path / "signing.x509").write_bytes(CERTIFICATE)
    assert main(words) == 0
    assert (tmp_path / "vars.fd").read_bytes() == make_store()
    assert certificates((tmp_path / "new.fd").read_bytes()) == (CERTIFICATE,)
    assert "db holds signing.x509 (sha256 " in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["schema"], told["certificates"], list(unset(told))) == (1, 1, [])
