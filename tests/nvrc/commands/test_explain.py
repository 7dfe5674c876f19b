# SPDX-License-Identifier: Apache-2.0
"""Every word that the tables know is explained; what is not known names the nearest."""

from __future__ import annotations

import io
import json

import pytest

from fakes.trouble import fatal_line
from nvrc.boot import BOOT
from nvrc.cli import main
from nvrc.commands.explain import explain
from nvrc.params.table import PARAMS
from nvrc.pid1.health import FAULTS
from nvrc.services.signatures import SIGNATURES
from nvrc.vocabulary.errors import CODES
from nvrc.vocabulary.jsonread import FormatError


def call(*argv: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    return main(["explain", *argv], out, err), out.getvalue(), err.getvalue()


def test_every_row_of_every_table_is_explained() -> None:
    for code in CODES:
        assert explain(code.code).meaning == code.meaning
    for param in PARAMS:
        assert param.help in explain(param.name).meaning
    for step in BOOT:
        assert explain(step.name).name == step.name
    for number, text in FAULTS.items():
        assert explain(str(number)).meaning == text
    for row in SIGNATURES:
        assert explain(row.name).name
        assert explain(" ... ".join(row.words)).meaning


@pytest.mark.parametrize(("words", "kind", "name"), [
    pytest.param("e_mig", "code", "E_MIG", id="small-letters"), pytest.param("GPU_ATTACH", "code", "E_GPU_ATTACH", id="no-prefix"),
    pytest.param("E_CDI_READ", "code", "E_CDI_READ", id="cdi"),
    pytest.param("nvrc.smi.lgc=fast", "parameter", "nvrc.smi.lgc", id="a-word-of-a-line"),
    pytest.param("nvrc.smi.lmcd", "parameter", "nvrc.smi.lmc", id="old-name"),
    pytest.param("Persistenced", "step", "persistenced", id="step"),
    pytest.param("Xid 79", "xid", "79", id="xid"), pytest.param("xid:13", "xid", "13", id="harmless-xid"),
    pytest.param("[ 9.1] NVRM: Xid (PCI:0000:41:00): 48, pid=7", "xid", "48", id="xid-line"),
    pytest.param("NVRM: RmInitAdapter failed! (0x25:0x65:1)", "signature", "adapter-failed", id="driver-line"),
    pytest.param(fatal_line("E_TOPOLOGY", "topology", "3 GPUs", "do"), "line", "E_TOPOLOGY in step topology", id="verdict"),
    pytest.param("... desc = guest init: E_MIG in step gpu-settings: x (hint: y)", "line", "E_MIG in step gpu-settings", id="event"),
    pytest.param("0/3 nodes are available: 3 Insufficient nvidia.com/pgpu.", "line",
                 "no node has as many free GPUs as the pod asks for", id="scheduler"),
    pytest.param("quiet panic=1 nvrc.dcgm=on", "parameter", "nvrc.dcgm", id="command-line"),
    pytest.param("something about E_MIG here", "code", "E_MIG", id="a-code-in-a-sentence"),
])
def test_explained(words: str, kind: str, name: str) -> None:
    found = explain(words)
    assert (found.kind, found.name) == (kind, name)
    assert found.meaning


@pytest.mark.parametrize(("word", "said"), [
    ("E_GPU_ATACH", "did you mean E_GPU_ATTACH?"), ("nvrc.smi.lgx", "did you mean nvrc.smi.lgc?"),
    ("persistance", "did you mean persistenced?"), ("lorem", "known are failure codes"), ("x\x1b[2J", "x\\x1b[2J: unknown")])
def test_unknown(word: str, said: str) -> None:
    with pytest.raises(FormatError) as raised:
        explain(word)
    assert said in str(raised.value)


def test_as_text_and_as_json() -> None:
    status, out, err = call("Xid", "79")
    assert (status, err) == (0, "")
    assert out == ("xid 79\n  means    fell off the bus\n"
                   "  do       check the GPU and its link on the host; the VM has to be replaced\n"
                   "  who      node operator\n  code     E_GPU_LOST\n")
    document = json.loads(call("quiet.x=1 nvrc.log=", "--json")[1])
    assert (document["schema"], document["kind"], document["who"], document["facts"]["default"]) == (1, "parameter", None, "off")
    assert call("lorem")[0] == 2
