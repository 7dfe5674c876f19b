# SPDX-License-Identifier: Apache-2.0
"""`nvrc initdata` and `nvrc plan --initdata`: the same document in all of its forms."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nvrc.cli import main
from nvrc.params.initdata import read_initdata, unpack, unpack_disk
from nvrc.params.initdata_make import make_document

OWN = "[params]\nnvrc.gpus = 2\n"


def call(*argv: str) -> tuple[int, bytes, str]:
    """With an output that has a buffer, as the real one has."""
    written, err = io.BytesIO(), io.StringIO()
    out = io.TextIOWrapper(written, encoding="utf-8", write_through=True)
    status = main([*argv], out, err)
    out.detach()
    return status, written.getvalue(), err.getvalue()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "nvrc.toml").write_text(OWN)
    (tmp_path / "policy.rego").write_text("package agent_policy\n'''\\ \"x\"\n")
    (tmp_path / "policy.toml").write_text('words = ["*"]\nlimit = { "nvrc.gpus" = { min = 4 } }\n')
    return tmp_path


def make(files: Path, *words: str) -> bytes:
    status, out, err = call("initdata", "make", str(files / "nvrc.toml"), str(files / "policy.rego"), *words)
    assert (status, err) == (0, "")
    return out


def test_three_forms_of_one_document(files: Path) -> None:
    document = make(files, "--as", "toml")
    assert unpack(base64.b64decode(make(files))) == unpack_disk(make(files, "--as", "disk")) == document
    found = read_initdata(document)
    assert found.entries == {"nvrc.toml": OWN, "policy.rego": (files / "policy.rego").read_text()}
    for form in ("toml", "annotation", "disk"):
        (files / form).write_bytes(make(files, "--as", form))
        status, out, _err = call("initdata", "digest", "--json", str(files / form))
        told = json.loads(out)
        assert (status, told["digest"]) == (0, hashlib.sha384(document).hexdigest())
        assert told["bound"] == {"sev-snp": told["digest"][:64], "tdx": told["digest"], "cca": told["digest"] + "0" * 32}


@pytest.mark.parametrize("damage", [lambda text: text.rstrip(b"=\n")[:-1], lambda text: text * 2, lambda text: text[:60] + b"_" + text[61:]],
                         ids=["cut", "doubled", "another-alphabet"])
def test_a_damaged_annotation_is_called_one(files: Path, damage: Callable[[bytes], bytes]) -> None:
    (files / "annotation").write_bytes(damage(make(files)))
    status, _out, err = call("initdata", "check", str(files / "annotation"))
    assert (status, "its annotation is damaged (" in err or "bytes follow its gzip stream" in err) == (2, True), err


@pytest.mark.parametrize("text", ["", "a", "'", "''", "'''", "a\r\n", "\x7f\x01", "\\", '"""', "é\u2028😀", "\n\n"])
def test_every_text_comes_back(text: str) -> None:
    assert read_initdata(make_document({"aa.toml": text}, "sha256")).entries == {"aa.toml": text}


def test_check_says_what_a_boot_would(files: Path) -> None:
    (files / "annotation").write_bytes(make(files))
    status, out, _err = call("initdata", "check", str(files / "annotation"), "--cmdline", "nvrc.log=info")
    assert (status, out.decode()) == (0, "entries: policy.rego, nvrc.toml\nboots with nvrc.log=info nvrc.gpus=2\n")
    status, out, _err = call("initdata", "check", str(files / "annotation"), "--policy", str(files / "policy.toml"))
    assert (status, b"nvrc.gpus: is 2, but the image's policy admits at least 4" in out) == (1, True)
    status, out, _err = call("initdata", "check", "--json", str(files / "policy.rego"))
    assert (status, json.loads(out)["ok"]) == (1, False)


def test_make_refuses_what_the_image_would(files: Path) -> None:
    status, out, err = call("initdata", "make", str(files / "nvrc.toml"), "--policy", str(files / "policy.toml"))
    assert (status, out) == (2, b"")
    assert "nvrc.toml: nvrc.gpus: is 2, but the image's policy admits at least 4" in err


def test_a_description_of_the_host_is_held_against_the_policy_as_well(files: Path) -> None:
    (files / "nccl-topology.xml").write_text("<system/>", encoding="utf-8")
    (files / "narrow.toml").write_text('initdata = { allow = ["nvrc.gpus"] }\n', encoding="utf-8")
    given = [str(files / "nccl-topology.xml"), "--policy", str(files / "narrow.toml")]
    status, out, err = call("initdata", "make", *given)
    assert (status, out) == (2, b"")
    assert "initdata: nccl-topology.xml: is not among what the image's policy lets initdata decide" in err
    _status, out, _err = call("initdata", "make", "--as", "toml", given[0])
    (files / "given.toml").write_bytes(out)
    for words in (("initdata", "check", str(files / "given.toml")), ("plan", "--machine", "H100", "--initdata", str(files / "given.toml"))):
        assert call(*words)[0] == 0
        status, out, _err = call(*words, "--policy", str(files / "narrow.toml"))
        assert (status, b"nccl-topology.xml" in out) == (1, True)


@pytest.mark.parametrize(("names", "words"), [
    (("policy.toml",), "policy.toml: its name is not one of aa.toml, cdh.toml, policy.rego, nvrc.toml, nccl-topology.xml"),
    (("nvrc.toml", "nvrc.toml"), "nvrc.toml: nvrc.toml is given twice"),
], ids=["name", "twice"])
def test_files_that_make_no_initdata(files: Path, names: tuple[str, ...], words: str) -> None:
    status, _out, err = call("initdata", "make", *(str(files / name) for name in names))
    assert (status, words in err) == (2, True)


def test_a_plan_with_initdata(files: Path) -> None:
    (files / "annotation").write_bytes(make(files))
    status, out, _err = call("plan", "--machine", "H100*2", "--initdata", str(files / "annotation"), "--json")
    rows = {row["name"]: row for row in json.loads(out)["parameters"]}
    assert (status, rows["nvrc.gpus"]) == (0, {"name": "nvrc.gpus", "value": "2", "source": "initdata"})
