# SPDX-License-Identifier: Apache-2.0
"""The policy for the kernel line in an image: the confidential slice, the owner's own, and what is no policy."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path

import pytest

from nvrc.params.parse import Parsed, parse
from nvrc.params.policy import Policy, load_policy
from nvrc.vocabulary.paths import POLICY
from nvrc_build.declared.read import load
from nvrc_build.ground.errors import BuildError
from nvrc_build.job import Work, open_job
from nvrc_build.kata.classes import CLASSES, KataClass, Tee
from nvrc_build.papers.manifest import write_manifest
from nvrc_build.products import line_policy
from nvrc_build.tree.assemble import missing_expectations, select_tree
from nvrc_build.tree.pool import Pool
from nvrc_build.tree.tree import Kind, Origin, Tree

ROOTFS = Path(__file__).parents[3] / "rootfs"
DECLARED = load(ROOTFS)
FILE = ROOTFS / "files/policy-confidential.toml"
OF_BASES = ROOTFS / "files/policy-confidential-extensions.toml"
SLICE = Origin(slice="policy-confidential")
VERITY = f"root_hash={'ab' * 32},salt=00,data_blocks=1,data_block_size=4096,hash_block_size=4096"


def confidential() -> Policy:
    return load_policy(FILE.read_bytes())


def under(line: str) -> Parsed:
    return parse(line.encode(), confidential())


# One class of tricks each: what is quoted and how, words behind `--`, other alphabets, doubles, aliases of names,
# numbers written otherwise, words that only one of kernel, agent and init takes for words.
HOSTILE = (
    "-- nvrc.cc=off", "-- LD_PRELOAD=/dev/vdb", '"nvrc.ready=always"', 'nvrc.ready="always"', "nvrc.ready=srs nvrc.ready=always",
    "nvrc.ready=verified,always", "nvrc.gpus=min:00", "nvrc.gpus=0", "nvrc.cc=\u043en", "nvrc.\u0441c=off", "nvrc-cc=off",
    "NVRC.CC=off", "nvrc.cc=on nvrc.cc=off", "nvrc.cc=on,off", "nvrc.report=console", "sysctl/kernel/core_pattern=|/x",
    "sysctl.kernel/modprobe=/x", '"sysctl.kernel.core_pattern=|/x y"', "module-blacklist=nvidia", "initcall-blacklist=nvidia_init",
    "modprobe.blacklist=nvidia", "nvidia-uvm.uvm_disable_hmm=1", 'nvidia.NVreg_RegistryDwords="RmX=1;RmY=2"', "vfio-pci.ids=10de:2330",
    'agent."debug_console"', 'agent.hotplug_timeout="3 agent.policy_file=/dev/vdb"', "quiet\fagent.debug_console",
    "agent.visible_cdi_devices=all", "agent.guest_components_rest_api=all", "agent.image_policy_file=file:///dev/vdb",
    "systemd.debug_shell", "systemd.run=/x", "rd.break", "console=tty0", "console=hvc0,115200", "console=null", "panic=0", "reboot=k,panic",
    "LD_PRELOAD_32=/dev/vdb", "LD-AUDIT=/dev/vdb", "PYTHON_GIL=0", "glibc.malloc.check=3", "kata.extension.gpu.verity_params=x",
    "dm-mod.waitfor=/dev/vdb", "dm_verity.require_signatures=0", "erofs.x=1", "virtio-net.napi_weight=1", "sysrq_always_enabled",
    "resume=/dev/vdb", "init=/usr/bin/kata-agent", "initrd=0x1,1", "\udcff", "\u00a0nvrc.ready=always")


@pytest.mark.parametrize("usual", ["", "tsc=reliable console=hvc0 quiet panic=1 cgroup_no_v1=all nvrc.smi.srs=1 "], ids=["alone", "with Kata's"])
def test_no_spelling_gets_by_the_confidential_policy(usual: str) -> None:
    for file in (FILE, OF_BASES):
        policy = load_policy(file.read_bytes())
        assert [line for line in HOSTILE if not parse((usual + line).encode("utf-8", "surrogateescape"), policy).errors
                and (file is FILE or "kata.extension" not in line)] == [], file.name


def test_an_image_with_confidential_components_has_a_policy() -> None:
    images = [image.name for image in DECLARED.images
              if any(row.name == "coco" for row in DECLARED.slices_of(image))]
    assert images == ["nvidia-confidential"]
    assert "policy-confidential" in {row.name for row in DECLARED.slices_of(DECLARED.image("nvidia-confidential"))}


def test_components_without_a_policy_are_no_image() -> None:
    coco = DECLARED.slice("coco")
    assert f"slice 'coco': {POLICY} must exist and does not" in missing_expectations([coco], Tree())


def test_the_slice_brings_a_policy_that_our_parser_takes() -> None:
    tree, findings = select_tree([DECLARED.slice("policy-confidential")], Pool({}), ROOTFS / "files")
    assert (findings, line_policy.wrong_policy(tree)) == ([], [])
    entry = tree.get(POLICY)
    assert entry is not None
    assert (entry.kind, entry.mode, entry.sha256) == (Kind.FILE, 0o644, confidential().sha256)


@pytest.mark.parametrize("kata", [row for row in CLASSES.values() if row.tee is not Tee.NONE], ids=lambda row: row.name)
def test_it_takes_what_the_confidential_classes_write(kata: KataClass) -> None:
    words = "tsc=reliable no_timer_check panic=1 console=hvc0 quiet agent.log=info agent.hotplug_timeout=20 nr_cpus=8"
    assert under(f"{words} {kata.kernel_params}").problems == ()


def test_a_confidential_base_takes_its_extensions_and_never_a_shell() -> None:
    """With the other one no base would boot: the runtime writes these words for every extension of the class."""
    bases = [image.name for image in DECLARED.images
             if "policy-confidential-extensions" in {row.name for row in DECLARED.slices_of(image)}]
    assert bases == ["kata-base-confidential", "nvidia-base-confidential"]
    policy = load_policy(OF_BASES.read_bytes())
    words = [f"kata.extension.{name}.verity_params={VERITY}" for name in ("gpu", "coco", "devkit")]
    assert parse(f"cgroup_no_v1=all {' '.join(words[:2])}".encode(), policy).problems == ()
    assert [str(one) for one in parse(words[2].encode(), policy).problems] == [
        "kata.extension.devkit.verity_params: is denied by the image's policy"]
    assert len(under(words[0]).problems) == 1


def test_both_policies_are_one_but_for_extensions() -> None:
    """What is refused of one has to be refused of the other."""
    one, other = (tomllib.loads(path.read_text(encoding="utf-8")) for path in (FILE, OF_BASES))
    assert {*one.pop("deny")} ^ {*other.pop("deny")} == {"kata.extension.*", "kata.extension.devkit.*"}
    assert one == other


@pytest.mark.parametrize("when", ["verified", "attested", "never"])
def test_gpus_get_ready_only_when_something_was_checked(when: str) -> None:
    assert under(f"nvrc.ready={when}").problems == ()


REFUSED = {
    "ready unchecked": ("nvrc.ready=always", "nvrc.ready: is always, but the image's policy admits srs, verified, attested, never"),
    "any mode": ("nvrc.cc=any", "nvrc.cc: is any, but the image's policy pins it to on"),
    "no GPU needed": ("nvrc.gpus=min:0", "nvrc.gpus: is min:0, but the image's policy admits at least 1"),
    "agent beside PID 1": ("nvrc.agent.pidns=off", "nvrc.agent.pidns: is off, but the image's policy pins it to on"),
    "reads that fail later": ("nvrc.verity.corruption=io-error",
                              "nvrc.verity.corruption: is io-error, but the image's policy pins it to panic"),
    "report for the host": ("nvrc.report=console", "nvrc.report: is console, but the image's policy pins it to file"),
    "typing mistake": ("nvrc.smi.src=1", "nvrc.smi.src: unknown, did you mean nvrc.smi.srs?"),
    "driver's options": ("nvidia.NVreg_X=1", "nvidia.NVreg_X: is denied by the image's policy"),
    "of unified memory": ("nvrc.uvm.options=a=1", "nvrc.uvm.options: is denied by the image's policy"),
    "word of nobody": ("memtest=1", "memtest: is not among the words that the image's policy allows, take it off "
                       "the line, or name it in words of the image's policy"),
    "another code": ("kata.extension.x.verity_params=root_hash=" + "0" * 64 + ",salt=00,data_blocks=1,data_block_size=4096,"
                     "hash_block_size=4096", "kata.extension.x.verity_params: is denied by the image's policy"),
}


@pytest.mark.parametrize(("line", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_it_refuses_a_line_that_relaxes(line: str, said: str) -> None:
    assert [str(problem) for problem in under(line).errors] == [said]


def test_the_owners_policy_takes_the_place_of_the_slices(tmp_path: Path) -> None:
    own = tmp_path / line_policy.PLACE
    own.parent.mkdir(parents=True)
    own.write_text("strict = true\n")
    tree = Tree()
    tree.add_file(POLICY, FILE, SLICE)
    line_policy.put_given(tree, tmp_path)
    entry = tree.get(POLICY)
    assert entry is not None
    assert (entry.read(), entry.origin.slice, tree.conflicts) == (b"strict = true\n", "given-policy", [])


@pytest.mark.parametrize(("content", "said"), [
    (b"pin = 3\n", "pin is not a table"), (b"\xff", "can't decode"), (b"x =", "Invalid value"),
], ids=["mistake", "not-utf8", "not-toml"])
def test_a_file_that_is_no_policy_is_no_image(content: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_bytes(content)
    with pytest.raises(BuildError, match=said) as caught:
        line_policy.check_given("p.toml", file)
    assert str(caught.value).startswith("policy p.toml: ")
    tree = Tree()
    tree.add_file(POLICY, file, SLICE)
    found = line_policy.wrong_policy(tree)
    assert len(found) == 1
    assert said in found[0]


def test_what_is_not_even_a_file_is_none(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"policy p is not a file"):
        line_policy.check_given("p", tmp_path)
    tree = Tree()
    tree.add_link(POLICY, "/gone", SLICE)
    assert line_policy.wrong_policy(tree) == [f"slice 'policy-confidential': {POLICY} is a link; the init takes a file only"]
    assert line_policy.wrong_policy(Tree()) == []


def test_an_extension_takes_none(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="image nvidia-gpu is an extension, and no init reads a policy there"):
        open_job("nvidia-gpu", cache=tmp_path / "cache", line_policy=FILE)


@pytest.mark.parametrize("has_policy", [True, False], ids=["with", "without"])
def test_the_manifest_names_the_policy_by_its_hash(*, has_policy: bool) -> None:
    tree = Tree()
    if has_policy:
        tree.add_file(POLICY, FILE, SLICE)
    document = json.loads(write_manifest(DECLARED.image("lab"), Work(tree=tree), {}))
    assert document.get("policy") == ({
        "sha256": hashlib.sha256(FILE.read_bytes()).hexdigest(), "slice": "policy-confidential",
        "text": FILE.read_text(encoding="utf-8")} if has_policy else None)
