# SPDX-License-Identifier: Apache-2.0
"""The policy by which kata-agent answers or refuses each request: the files an image carries, and what fits its agent.

An agent that Kata builds reads /etc/kata-opa/default-policy.rego when it starts and aborts without it. It looks up
`data.agent_policy.NAME` for each request, NAME being the protobuf message's; a request that no rule names is refused.
So the names are those of the agent itself, read from the protobuf descriptors that its ELF file carries.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from pathlib import Path

from nvrc_build.declared.declared import AgentPolicy
from nvrc_build.ground.errors import BuildError
from nvrc_build.products.descriptor import read_requests
from nvrc_build.tree.assemble import has_path
from nvrc_build.tree.tree import Kind, Tree

AGENT = "/usr/bin/kata-agent"
FOLDER = "/etc/kata-opa"
DEFAULT = f"{FOLDER}/default-policy.rego"
GIVEN = "given-policy.rego"
SET_POLICY = "SetPolicyRequest"
# What Kata 4.1's services take, for an agent whose descriptors cannot be read, and for the stand-in, which has none.
REQUESTS = (
    "AddARPNeighborsRequest", "AddSwapPathRequest", "AddSwapRequest", "CheckRequest", "CloseStdinRequest",
    "CopyFileRequest", "CreateContainerRequest", "CreateSandboxRequest", "DestroySandboxRequest", "ExecProcessRequest",
    "GetDiagnosticDataRequest", "GetIPTablesRequest", "GetMetricsRequest", "GetOOMEventRequest", "GuestDetailsRequest",
    "ListInterfacesRequest", "ListRoutesRequest", "MemAgentCompactConfig", "MemAgentMemcgConfig",
    "MemHotplugByProbeRequest", "OnlineCPUMemRequest", "PauseContainerRequest", "PullImageRequest", "ReadStreamRequest",
    "RemoveContainerRequest", "RemoveStaleVirtiofsShareMountsRequest", "ReseedRandomDevRequest", "ResizeVolumeRequest",
    "ResumeContainerRequest", "SetGuestDateTimeRequest", "SetIPTablesRequest", "SetPolicyRequest",
    "SignalProcessRequest", "StartContainerRequest", "StartTracingRequest", "StatsContainerRequest",
    "StopTracingRequest", "TtyWinResizeRequest", "UpdateContainerRequest", "UpdateEphemeralMountsRequest",
    "UpdateInterfaceRequest", "UpdateRoutesRequest", "VolumeStatsRequest", "WaitProcessRequest", "WriteStreamRequest",
)
# Rules that the agent looks up and that are no requests.
SWITCHES = ("AllowRequestsFailingPolicy",)
# The limits of Kata's agent: beyond them it takes no policy.
MOST_BYTES, MOST_LINES, LINE_BYTES = 16 << 20, 200_000, 64 << 10
# From the most open to the most closed. An image has its own and those that are more closed than it: what is there can
# be chosen by agent.policy_file= on the kernel line, so a laxer one must not lie about.
ORDER = (AgentPolicy.ALLOW_ALL, AgentPolicy.ALLOW_SET_POLICY, AgentPolicy.DENY)
FILES = {AgentPolicy.ALLOW_ALL: "allow-all.rego", AgentPolicy.ALLOW_SET_POLICY: "allow-set-policy.rego",
         AgentPolicy.DENY: "deny-all.rego"}
_SAYS = {AgentPolicy.ALLOW_ALL: "Every request is answered.",
         AgentPolicy.ALLOW_SET_POLICY: "Every request is refused but the one that brings a policy.",
         AgentPolicy.DENY: "Every request is refused, until a policy comes with the measured initdata."}

_PACKAGE = re.compile(r"\A(?:\s*(?:#[^\n]*)?\n)*\s*package\s+agent_policy\s*(?:#[^\n]*)?(?:\n|\Z)")
_DEFAULTS = re.compile(r"^[ \t]*default[ \t]+([A-Z]\w*)", re.MULTILINE)
_RULES = re.compile(r"^([A-Z]\w*Request)\b", re.MULTILINE)


def reads_policy(agent: bytes) -> bool:
    """Whether this agent was built with policies: it then has the path in it."""
    return DEFAULT.encode() in agent


def render(policy: AgentPolicy, requests: Sequence[str]) -> str:
    """A policy with one rule for each request, so that a refusal is a plain no and not a failed look-up."""
    open_ones: Collection[str] = {AgentPolicy.ALLOW_ALL: requests, AgentPolicy.ALLOW_SET_POLICY: (SET_POLICY,),
                                  AgentPolicy.DENY: ()}[policy]
    rules = "".join(f"default {name} := {'true' if name in open_ones else 'false'}\n" for name in sorted(requests))
    return f"# {_SAYS[policy]} Made by nvrc-image for the agent of this image.\npackage agent_policy\n\n{rules}"


def check(name: str, choice: AgentPolicy | bytes, agent: bytes) -> tuple[str, ...]:
    """Refuses a policy that does not fit the agent; what the image's owner should know of one that does.

    `choice` is a policy's text where the caller brought one. `agent` is empty for the stand-in, which reads none.
    """
    requests = requests_of(agent)
    if agent and not reads_policy(agent) and choice is not AgentPolicy.ALLOW_ALL:
        raise BuildError(f"the agent reads no policy, so policy {name} would bind no agent",
                         "give an agent that was built with AGENT_POLICY=yes and is not packed, or take "
                         "--agent-policy allow-all")
    if isinstance(choice, bytes):
        return check_given(name, decode(name, choice), agent, requests)
    gone = [one for one in requests if one.encode() not in agent] if reads_policy(agent) else []
    if gone:
        raise BuildError(f"the agent has no request {', '.join(gone)}, and its own list of them cannot be read",
                         "give a policy of the agent's own release: --agent-policy FILE")
    return ()


def write(folder: Path, choice: AgentPolicy | bytes, agent: bytes) -> None:
    """The files and the link, below `folder` where they lie in the image."""
    place = folder / FOLDER.lstrip("/")
    place.mkdir(parents=True)
    if isinstance(choice, bytes):
        (place / GIVEN).write_bytes(choice)
    for policy in (AgentPolicy.DENY,) if isinstance(choice, bytes) else ORDER[ORDER.index(choice):]:
        (place / FILES[policy]).write_text(render(policy, requests_of(agent)), encoding="utf-8")
    (place / Path(DEFAULT).name).symlink_to(GIVEN if isinstance(choice, bytes) else FILES[choice])


def requests_of(agent: bytes) -> tuple[str, ...]:
    return read_requests(agent) or REQUESTS


def decode(name: str, policy: bytes) -> str:
    try:
        return policy.decode("utf-8")
    except UnicodeDecodeError as wrong:
        raise BuildError(f"policy {name} is not UTF-8 text at byte {wrong.start}", "give a Rego file") from wrong


def check_given(name: str, text: str, agent: bytes, requests: Sequence[str]) -> tuple[str, ...]:
    """Refuses what the agent would refuse or never ask for; returns what it would refuse for want of a rule."""
    findings = [*_too_large(text)]
    if not _PACKAGE.match(text):
        findings.append("does not begin with: package agent_policy")
    named = {*_DEFAULTS.findall(text), *_RULES.findall(text)}
    for wrong in sorted(named - {*requests, *SWITCHES}):
        if read_requests(agent) is None and wrong.encode() in agent:
            continue  # the list is of another release; the agent's bytes know better
        near = get_close_matches(wrong, requests, 1)
        findings.append(f"{wrong} is not a request of this agent" + (f"; did you mean {near[0]}?" if near else ""))
    if findings:
        raise BuildError(f"policy {name} does not fit the agent", "take the policy of the agent's own release, or "
                         "correct the names", findings=tuple(f"{name}: {finding}" for finding in findings))
    silent = sorted({*requests} - named) if agent else []
    return (f"policy {name} has no rule for {', '.join(silent)}; the agent refuses them",) if silent else ()


def _too_large(text: str) -> list[str]:
    lines = text.split("\n")
    longest = max(range(len(lines)), key=lambda number: len(lines[number].encode()))
    found = []
    if len(text.encode()) > MOST_BYTES:
        found.append(f"is larger than {MOST_BYTES >> 20} MiB, which the agent refuses")
    if len(lines) > MOST_LINES:
        found.append(f"has {len(lines)} lines; the agent takes {MOST_LINES}")
    if len(lines[longest].encode()) > LINE_BYTES:
        found.append(f"line {longest + 1} is longer than {LINE_BYTES >> 10} KiB, which the agent refuses")
    return found


def missing_policy(tree: Tree) -> list[str]:
    """An agent in the image that would abort as soon as it is started."""
    entry = tree.get(AGENT)
    if entry is None or entry.kind is not Kind.FILE or not reads_policy(entry.read()) or has_path(tree, DEFAULT):
        return []
    return [f"slice {entry.origin.slice!r}: {AGENT} reads {DEFAULT} when it starts and ends without it; add the slice "
            "agent-policy to the image"]
