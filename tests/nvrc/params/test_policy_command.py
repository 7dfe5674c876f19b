# SPDX-License-Identifier: Apache-2.0
"""`nvrc policy`: check, explain and suggest, as an image's owner uses them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvrc.cli import main
from nvrc.pages.policy import TABLES, fill
from nvrc.params.parse import parse
from nvrc.params.policy import load_policy
from nvrc.params.suggestion import suggest
from nvrc.params.words import KATA, NEVER, never

ROOT = Path(__file__).parents[3]
CONFIDENTIAL = ROOT / "rootfs/files/policy-confidential.toml"
VERITY = f"root_hash={'ab' * 32},salt=00,data_blocks=1,data_block_size=4096,hash_block_size=4096"


def call(*argv: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    return main(["policy", *argv], out, err), out.getvalue(), err.getvalue()


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text('allow = ["nvrc.log"]\npin.nvrc.cc = "on"\n')
    return path


def test_check_of_a_good_one_has_its_hash(policy: Path) -> None:
    assert call("check", str(policy)) == (0, f"{policy}: good, sha256 {load_policy(policy.read_bytes()).sha256}\n", "")


def test_check_judges_a_line(policy: Path) -> None:
    status, out, _ = call("check", str(policy), "--cmdline", "nvrc.cc=off quiet")
    assert (status, out.splitlines()[1:]) == (1, [
        "error    nvrc.cc: is off, but the image's policy pins it to on", "1 of 1 findings would end the boot"])
    assert call("check", str(policy), "--cmdline", "nvrc.cc=on quiet")[0] == 0


def test_check_of_a_bad_one_is_a_finding(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text('denyy = []\nlimit.nvrc.gpus = { max = 3 }\n')
    status, out, err = call("check", str(path))
    assert (status, err) == (1, "")
    assert out == (f"{path}: 'denyy' is not one of strict, pin, allow, deny, limit, words, initdata, verifier, did you mean deny?; limit nvrc.gpus: min "
                   "and max are for numbers (min alone is possible); list the values among N, min:N or all\n")
    status, out, _ = call("check", str(path), "--json")
    assert (status, json.loads(out)["ok"]) == (1, False)


def test_check_for_machines(policy: Path) -> None:
    status, out, _ = call("check", str(policy), "--cmdline", "nvrc.dcgm=on", "--json")
    document = json.loads(out)
    assert (status, document["ok"], document["line"]["boots"]) == (1, False, False)


def test_a_file_that_is_not_there_is_a_wrong_call(tmp_path: Path) -> None:
    assert call("explain", str(tmp_path / "none"))[0] == 2


def test_explain_says_a_sentence_for_every_row_and_what_is_left_open() -> None:
    status, out, _ = call("explain", str(CONFIDENTIAL))
    assert status == 0
    for line in ("  nvrc.cc: is on; the line may repeat it, any other value ends the boot. The confidential mode",
                 "  nvrc.ready: may be srs, verified, attested, never; a silent line means srs. When PID 1",
                 "  nvrc.gpus: may be at least 1; a silent line means all. How many",
                 "  nvidia*: must not be on the line with any value. Options of NVIDIA's modules.",
                 f"  @kata: {len(KATA)} words that Kata's runtimes write",
                 "  nvrc.smi.srs: affects trust, and the line decides it."):
        assert line in out
    rows = json.loads(call("explain", str(CONFIDENTIAL), "--json")[1])["rows"]
    named = {row["name"] for row in rows}
    assert {"nvrc.cc", "nvrc.agent.pidns", "nvrc.verity.corruption", "nvrc.report", "nvrc.ready", "nvrc.gpus"} <= named


def test_explain_of_lists_and_words(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text('allow = ["nvrc.smi.pl", "nvidia.NVreg_A"]\nwords = ["*", "a=1", "b*", "c"]\n'
                    'limit.nvrc.smi.pl = { max = 9 }\nlimit.nvrc.cc = ["on"]\n')
    out = call("explain", str(path))[1]
    for line in ("  nvrc.smi.pl: may be at most 9; a silent line leaves it unset.", "  nvrc.smi.pl: may be on the line within its limit.",
                 "  nvrc.cc: may be on; a line must give it, because the default any is outside.",
                 "  nvidia.NVreg_A: may be on the line with any value. Options of", "  every other parameter on the line ends",
                 "  *: any word of the kernel", "  a=1: a may be on the line with the value 1",
                 "  b*: words that begin so may be on", "  c: the word may be on"):
        assert line in out


def test_suggest_pins_what_is_the_same_and_limits_what_differs() -> None:
    status, out, _ = call("suggest", "quiet nvrc.smi.srs=1 hugepages=64", "nvrc.smi.srs=1 nvrc.log=info nvrc.gpus=8 nvidia.A=1")
    assert status == 0
    assert out == '''strict = true

allow = [
    "nvrc.log",
    "nvrc.gpus",
    "nvidia.A",
]

words = [
    "@kata",
    "hugepages=64",
]

[pin]
nvrc.smi.srs = "1"

[limit]
nvrc.log = ["off", "info"]
nvrc.gpus = ["all", "8"]
'''


def test_suggest_reads_a_class_with_its_extensions(tmp_path: Path) -> None:
    kata = tmp_path / "configuration.toml"
    kata.write_text(f'[hypervisor.qemu]\nkernel_params = "cgroup_no_v1=all nvrc.smi.srs=1"\n'
                    f'[[hypervisor.qemu.guest_extension_images]]\nname = "gpu"\npath = "/x"\nverity_params = "{VERITY}"\n')
    status, out, _ = call("suggest", "--class", str(kata), "nvrc.log=info")
    assert status == 0
    policy = load_policy(out.encode())
    assert set(policy.pins) == {"nvrc.smi.srs", "nvrc.strict", "kata.extension.gpu.verity_params"}
    line = f"cgroup_no_v1=all nvrc.smi.srs=1 kata.extension.gpu.verity_params={VERITY}"
    assert parse(f"{line} nvrc.log=info tsc=reliable".encode(), policy).problems == ()
    assert parse(line.replace("ab", "cd").encode(), policy).errors


@pytest.mark.parametrize("text", ["", "[hypervisor]\nqemu = 3\n", "hypervisor = 1", "[hypervisor.qemu]\nkernel_params = 3\n",
                                  "[hypervisor.qemu]\nguest_extension_images = [{}]\n", "x ="])
def test_what_is_no_class_is_a_wrong_call(text: str, tmp_path: Path) -> None:
    kata = tmp_path / "configuration.toml"
    kata.write_text(text)
    status, _, err = call("suggest", "--class", str(kata))
    assert status == 2
    assert "no configuration of a Kata runtime class" in err


def test_suggest_tells_what_no_policy_can_allow() -> None:
    status, out, _ = call("suggest", 'lockdown=none x="a b"')
    assert status == 1
    assert "# left out: lockdown: is never a pod author's: takes a protection" in out
    assert '"x",' in out
    assert call("suggest")[0] == 2
    assert json.loads(call("suggest", "quiet", "--json")[1])["left_out"] == []


WORD = st.sampled_from([
    "quiet", "hugepages=64", "nvrc.log=info", "nvrc.log=debug", "nvrc.gpus=min:1", "nvrc.gpus=2", "nvrc.dcgm=on", "nvrc.dcgm=off",
    "nvrc.strict=on", "nvrc.strict=off", "nvidia-uvm.x=1", "nvrc.nvidia_smi_lgc=1500", "nvrc.uvm.options=a=1",
    "nvrc.mig=all:1g.10gb*7", "agent.log=debug", 'x="a b agent.log=trace"', f"kata.extension.a.verity_params={VERITY}", "panic=0",
    "kata.extension.b.verity_params=" + VERITY])


@pytest.mark.long
@given(st.lists(st.lists(WORD, max_size=6, unique_by=lambda word: word.partition("=")[0]), min_size=1, max_size=4), WORD)
def test_a_suggestion_takes_the_lines_that_it_is_made_of_and_no_other_parameter(rows: list[list[str]], other: str) -> None:
    lines = [" ".join(words).encode() for words in rows]
    found = suggest(lines)
    assert found.left_out == ()
    policy = load_policy(found.text.encode())
    assert [problem for line in lines for problem in parse(line, policy).errors] == []
    known = {word.partition("=")[0] for words in rows for word in words}
    if other.startswith(("nvrc.", "kata.")) and other.partition("=")[0] not in known | {"nvrc.strict"}:
        assert parse(other.encode(), policy).errors


def test_the_page_has_every_row_of_both_tables() -> None:
    page = (ROOT / "docs/policy.md").read_text()
    assert fill(page) == page
    assert set(TABLES) == {"never", "kata"}
    for row in (*NEVER, *KATA):
        assert f"`{row.word}`" in page
    assert "`init=`, `rdinit=`, `root=`" in page
    assert all(never(word) is None for word in ("init", "rdinit", "root"))
