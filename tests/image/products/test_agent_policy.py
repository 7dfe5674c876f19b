# SPDX-License-Identifier: Apache-2.0
"""Policies of the agent: made for the requests that its ELF file names, refused where they do not fit it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from fakes.elves import make_elf
from nvrc_build.declared.declared import AgentPolicy
from nvrc_build.ground.errors import BuildError
from nvrc_build.job import open_job
from nvrc_build.products import agent_policy
from nvrc_build.products.agent_policy import REQUESTS, check, missing_policy, render, write
from nvrc_build.products.descriptor import read_requests
from nvrc_build.tree.tree import Origin, Tree

PATH = b"/etc/kata-opa/default-policy.rego"
OLD = ("CreateContainerRequest", "CreateSandboxRequest", "DestroySandboxRequest", "SetPolicyRequest")


def field(number: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    size = bytes([len(data)]) if len(data) < 0x80 else bytes([len(data) & 0x7F | 0x80, len(data) >> 7])
    return bytes([number << 3 | 2]) + size + data


def proto(name: str, service: str, requests: Sequence[str], tail: bytes = field(12, "proto3")) -> bytes:
    """A file's descriptor as generated code carries it: a message with a number in a field, a service, the syntax."""
    message = field(4, field(1, "Empty") + field(2, field(1, "storages") + b"\x18\x80\x01"))
    methods = b"".join(field(2, field(1, f"Do{one}") + field(2, f".grpc.{one}") + field(3, ".google.protobuf.Empty"))
                       for one in requests)
    return field(1, name) + field(2, "grpc") + field(3, "types.proto") + message + field(6, field(1, service) + methods) + tail


def agent(requests: Sequence[str] = OLD, *, policy: bytes = PATH, descriptors: bool = True) -> bytes:
    """What a kata-agent looks like to the factory: an ELF file with texts side by side, as rustc leaves them."""
    texts = proto("agent.proto", "AgentService", requests) + proto("health.proto", "Health", ["CheckRequest"])
    plain = "".join(requests).encode() + b"CheckRequest"
    return make_elf() + b"src/agent.protofailed to read" + (texts if descriptors else plain) + b"\x0aagent.proto" + policy


@pytest.mark.parametrize(("data", "expected"), [
    pytest.param(agent(), ("CheckRequest", *OLD), id="agent-and-health"),
    pytest.param(agent(descriptors=False), None, id="no-descriptor"),
    pytest.param(b"", None, id="nothing"),
    pytest.param(proto("health.proto", "Health", ["CheckRequest"]), None, id="health-alone"),
    pytest.param(proto("protos/agent.proto", "AgentService", OLD), OLD, id="in-a-folder"),
    pytest.param(proto("agent.proto", "AgentService", OLD, tail=b"\xff\xff garbage"), OLD, id="without-an-end"),
    pytest.param(proto("agent.proto", "AgentService", OLD)[:40], None, id="cut-short"),
    pytest.param(b"\n\x0bagent.proto\x12" + b"\xff" * 40, None, id="endless-number"),
    pytest.param(b"\n\x0cagent.proto\x12\x04grpc", None, id="length-of-another-name"),
])
def test_the_requests_of_an_agent_are_read_from_its_descriptors(data: bytes, expected: tuple[str, ...] | None) -> None:
    assert read_requests(data) == expected


@pytest.mark.parametrize(("choice", "files", "default", "true"), [
    pytest.param(AgentPolicy.ALLOW_ALL, ["allow-all.rego", "allow-set-policy.rego", "deny-all.rego"], "allow-all.rego",
                 ["CheckRequest", *OLD], id="allow-all"),
    pytest.param(AgentPolicy.ALLOW_SET_POLICY, ["allow-set-policy.rego", "deny-all.rego"], "allow-set-policy.rego",
                 ["SetPolicyRequest"], id="allow-set-policy"),
    pytest.param(AgentPolicy.DENY, ["deny-all.rego"], "deny-all.rego", [], id="deny"),
])
def test_an_image_has_its_policy_and_none_that_is_laxer(tmp_path: Path, choice: AgentPolicy, files: list[str],
                                                         default: str, true: list[str]) -> None:
    write(tmp_path, choice, agent())
    folder = tmp_path / "etc/kata-opa"
    assert sorted(path.name for path in folder.iterdir()) == sorted([*files, "default-policy.rego"])
    assert str((folder / "default-policy.rego").readlink()) == default
    lines = (folder / "default-policy.rego").read_text().splitlines()
    assert lines[1] == "package agent_policy"
    assert [line.split()[1] for line in lines if line.endswith(":= true")] == true
    assert [line.split()[1] for line in lines if line.startswith("default ")] == ["CheckRequest", *OLD]


def test_a_given_policy_lies_beside_the_one_that_denies_and_is_kept_to_the_byte(tmp_path: Path) -> None:
    text = b"# ours\npackage agent_policy\ndefault SetPolicyRequest := true\n"
    write(tmp_path, text, agent())
    folder = tmp_path / "etc/kata-opa"
    assert sorted(path.name for path in folder.iterdir()) == ["default-policy.rego", "deny-all.rego", "given-policy.rego"]
    assert (folder / "default-policy.rego").read_bytes() == text


def test_without_an_agent_the_names_are_katas_own() -> None:
    assert render(AgentPolicy.ALLOW_ALL, REQUESTS).count(":= true") == len(set(REQUESTS)) == len(REQUESTS)
    assert check("deny", AgentPolicy.DENY, b"") == (), "the stand-in is bound by nothing and harmed by nothing"


GOOD = "package agent_policy\n\nimport future.keywords.if\ndefault AllowRequestsFailingPolicy := false\n" + "".join(
    f"default {name} := false\n" for name in (*OLD, "CheckRequest")) + """
CreateContainerRequest := {"allowed": true} if { allow_image(input.image) }
allow_image(name) if { name == "a" }
Version := 3
"""


@pytest.mark.long
@pytest.mark.parametrize(("text", "expected"), [
    pytest.param(GOOD, [], id="good"),
    pytest.param("# a comment\n\n" + GOOD, [], id="comment-first"),
    pytest.param(GOOD.replace("default CreateSandboxRequest", "default CreateSandboxReqest"),
                 ["CreateSandboxReqest is not a request of this agent; did you mean CreateSandboxRequest?"], id="misspelt"),
    pytest.param(GOOD + "GetGuestDetailsRequest { true }\n",
                 ["GetGuestDetailsRequest is not a request of this agent"], id="rule-of-another-release"),
    pytest.param(GOOD.replace("agent_policy", "policy"), ["does not begin with: package agent_policy"], id="package"),
    pytest.param("", ["does not begin with: package agent_policy"], id="empty"),
    pytest.param(GOOD + "# " + "x" * 65536, ["line 14 is longer than 64 KiB, which the agent refuses"], id="long-line"),
    pytest.param(GOOD + "\n" * 200_000, ["has 200014 lines; the agent takes 200000"], id="many-lines"),
    pytest.param(GOOD + ("# " + "x" * 60000 + "\n") * 280, ["is larger than 16 MiB, which the agent refuses"], id="large"),
])
def test_a_given_policy_must_fit_the_agent(text: str, expected: list[str]) -> None:
    if not expected:
        assert check("p.rego", text.encode(), agent()) == ()
        return
    with pytest.raises(BuildError, match=r"policy p\.rego does not fit the agent") as caught:
        check("p.rego", text.encode(), agent())
    assert len(caught.value.findings) == len(expected)
    for finding, start in zip(caught.value.findings, expected, strict=True):
        assert finding.startswith(f"p.rego: {start}")


def test_what_a_given_policy_is_silent_about_is_told() -> None:
    text = b"package agent_policy\ndefault SetPolicyRequest := true\n"
    assert check("p.rego", text, agent()) == (
        "policy p.rego has no rule for CheckRequest, CreateContainerRequest, CreateSandboxRequest, "
        "DestroySandboxRequest; the agent refuses them",)


def test_a_policy_that_is_no_text_is_refused() -> None:
    with pytest.raises(BuildError, match=r"policy p\.rego is not UTF-8 text at byte 3"):
        check("p.rego", b"abc\xff", agent())


@pytest.mark.parametrize("choice", [AgentPolicy.ALLOW_SET_POLICY, AgentPolicy.DENY, GOOD.encode()])
def test_a_policy_for_an_agent_that_reads_none_is_refused(choice: AgentPolicy | bytes) -> None:
    with pytest.raises(BuildError, match="the agent reads no policy, so policy p would bind no agent"):
        check("p", choice, agent(policy=b""))
    assert check("p", AgentPolicy.ALLOW_ALL, agent(policy=b"")) == ()


def test_an_agent_whose_requests_cannot_be_read_must_know_those_of_kata() -> None:
    assert check("allow-all", AgentPolicy.ALLOW_ALL, agent(REQUESTS, descriptors=False)) == ()
    with pytest.raises(BuildError, match=r"the agent has no request AddARPNeighborsRequest, .*cannot be read"):
        check("allow-all", AgentPolicy.ALLOW_ALL, agent(OLD, descriptors=False))
    later = b"package agent_policy\ndefault LaterRequest := true\n"
    assert check("p", later, agent((*REQUESTS, "LaterRequest"), descriptors=False))
    with pytest.raises(BuildError, match="does not fit"):
        check("p", later, agent(REQUESTS, descriptors=False))


@pytest.mark.parametrize(("data", "has_file", "finding"), [
    pytest.param(agent(), False, True, id="wants-and-lacks"),
    pytest.param(agent(), True, False, id="wants-and-has"),
    pytest.param(agent(policy=b""), False, False, id="wants-none"),
])
def test_an_image_whose_agent_would_abort_is_not_made(data: bytes, has_file: bool, finding: bool) -> None:
    tree, origin = Tree(), Origin(slice="kata-agent")
    tree.add_file(agent_policy.AGENT, data, origin, 0o755)
    if has_file:
        tree.add_file("/etc/kata-opa/allow-all.rego", b"", origin)
        tree.add_link(agent_policy.DEFAULT, "allow-all.rego", origin)
    assert missing_policy(tree) == ([
        "slice 'kata-agent': /usr/bin/kata-agent reads /etc/kata-opa/default-policy.rego when it starts and ends without "
        "it; add the slice agent-policy to the image"] if finding else [])


@pytest.mark.parametrize(("profile", "value", "expected"), [
    pytest.param("lab", None, "allow-all", id="default"),
    pytest.param("lab", "deny", "deny", id="named"),
    pytest.param("nvidia-confidential", None, "deny", id="confidential"),
])
@pytest.mark.long
def test_the_policy_of_an_image(tmp_path: Path, profile: str, value: str | None, expected: str) -> None:
    (tmp_path / "kata-agent").touch()
    job = open_job(profile, cache=tmp_path, agent=tmp_path / "kata-agent", components=tmp_path, policy=value)
    assert job.policy is AgentPolicy(expected)
    assert job.wants("@agent-policy")


@pytest.mark.parametrize(("profile", "value", "expected"), [
    pytest.param("lab", "allow-al", r"policy allow-al does not exist", id="neither-name-nor-file"),
    pytest.param("lab", "https://host/x", r"policy https://host/x has no hash", id="no-hash"),
    pytest.param("nvidia-gpu", "deny", r"image nvidia-gpu has no agent that a policy could bind", id="no-agent"),
])
def test_a_choice_that_cannot_be_is_refused(tmp_path: Path, profile: str, value: str, expected: str) -> None:
    with pytest.raises(BuildError, match=expected):
        open_job(profile, cache=tmp_path, policy=value)
