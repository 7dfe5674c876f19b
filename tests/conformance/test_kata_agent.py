# SPDX-License-Identifier: Apache-2.0
"""A real kata-agent under our PID 1, asked by the lab for what Kata's runtime asks: sandboxes, containers, their ends.

NVRC_KATA_AGENT names the agent; docs/conformance.md says where it comes from. Without it these tests are skipped, as nothing
that is not Kata's own program can say that Kata's own program is content.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nvrc_lab.agent.kata_agent import Agent, Container
from nvrc_lab.agent.runtime_side import CALL_S, CGROUPS_PATH, Runtime, describe_container, play_scenario, run_container
from nvrc_lab.ground.places import checkout
from nvrc_lab.kit.image import BootFiles, build_image
from nvrc_lab.qemu.qemu import find_qemu
from nvrc_lab.run.runner import Result, open_lab, run_scenario
from nvrc_lab.scenario.scenario import find_scenario, parse_scenario, read_scenario
from nvrc_lab.scenario.values import Scenario

AGENT = os.environ.get("NVRC_KATA_AGENT", "")
pytestmark = [pytest.mark.qemu, pytest.mark.skipif(
    not AGENT, reason="no kata-agent given: name one with NVRC_KATA_AGENT; docs/conformance.md says what it is")]

# A machine whose image has the container's root; what its container sees is another test's matter.
POD = """
summary: One GPU, and a runtime that does more than start one container.
machine: {gpus: [{product: H100}]}
container: {devices: [nvidia.com/gpu=0]}
expect: {verdict: %s, container: {gpus: [0], nodes: [nvidiactl]}}
"""
DEADLINE_S = 240.0  # the kernel unpacks a large program, and nothing here is about speed
Boot = Callable[..., Result]


@pytest.fixture(scope="module")
def image() -> BootFiles:
    """By the factory: an agent linked to glibc brings libraries, and one with policies reads a file."""
    return build_image(agent=Path(AGENT))


@pytest.fixture
def boot(image: BootFiles, tmp_path: Path) -> Boot:
    def run(scenario: Scenario, runtime: Runtime = play_scenario, events: tuple[str, ...] = ()) -> Result:
        scenario = replace(scenario, deadline_s=DEADLINE_S)
        lab = open_lab(checkout(), find_qemu(), image, [scenario], runtime=runtime)
        return run_scenario(replace(lab, events=events), scenario, tmp_path / "console")

    return run


def tail(result: Result) -> str:
    return "\n".join([*result.problems, *result.console.read_text(errors="replace").splitlines()[-40:]])


def said(result: Result, prefix: str) -> list[str]:
    assert result.told is not None
    return [line.partition(prefix)[2] for line in result.told.lines if prefix in line]


@pytest.mark.parametrize("name", ["cpu", "gpu-1", "gpu-mig", "extension-gpu", "container-refused", "agent-missing"])
def test_a_scenario_goes_as_with_the_stand_in(boot: Boot, name: str) -> None:
    scenario = read_scenario(find_scenario(name, checkout().scenarios))
    went = boot(scenario)
    assert went.ok, tail(went)
    if went.verdict == "ready":
        assert [line.partition(" init=")[2] for line in said(went, "runtime: agent ")] == ["yes"], "it believes it is PID 1"
        assert said(went, "runtime: serving=") == ["yes"]


def read_until(agent: Agent, name: str, text: bytes) -> bytes:
    """What a process that stays has said so far."""
    output = b""
    while text not in output:
        piece = agent.read_some(name, name, CALL_S)
        assert piece, f"{name} ended after {output!r}"
        output += piece
    return output


def stay(name: str, *args: str, shares_pids: bool = False) -> Container:
    return Container(name=name, args=("/stay", *args), annotations={}, cgroups_path=CGROUPS_PATH.replace(":lab", f":{name}"),
                     shares_pids=shares_pids)


def live(_scenario: Scenario, agent: Agent) -> Iterator[str]:
    """A pod's life: a container that stays, one in its PID namespace, a program in it, both ways to stop it."""
    agent.create_sandbox("pod")
    agent.create(stay("main"))
    agent.start("main")
    yield from lines("main", read_until(agent, "main", b"stays\n"))
    agent.create(stay("beside", "go", "4", shares_pids=True))
    agent.start("beside")
    yield from lines("beside", agent.read_output("beside", "beside", CALL_S))
    yield f"beside: status {agent.wait('beside', 'beside', CALL_S)}"
    agent.execute("main", "exec", ["/stay", "go", "7"])
    yield from lines("exec", agent.read_output("main", "exec", CALL_S))
    yield f"exec: status {agent.wait('main', 'exec', CALL_S)}"
    agent.kill("main", "main", signal.SIGTERM)
    yield from lines("main", agent.read_output("main", "main", CALL_S))
    yield f"main: status {agent.wait('main', 'main', CALL_S)}"
    agent.create(stay("killed"))
    agent.start("killed")
    read_until(agent, "killed", b"stays\n")
    agent.kill("killed", "", signal.SIGKILL)
    yield f"killed: status {agent.wait('killed', 'killed', CALL_S)}"
    for name in ("main", "beside", "killed"):
        agent.remove(name)
    agent.destroy_sandbox()


def lines(name: str, output: bytes) -> Iterator[str]:
    yield from (f"{name}: {line.removeprefix('container: ')}" for line in output.decode().splitlines())


def test_the_life_of_a_pod(boot: Boot) -> None:
    # A container has a cgroup namespace, so where it is can be seen from outside only; `beside` begins when `main` runs.
    folder = f"/sys/fs/cgroup/{CGROUPS_PATH.removesuffix(':lab').replace(':', '/')}"
    members = f"{folder}/main/cgroup.procs"
    went = boot(parse_scenario(POD % "ready", "pod", "pod"), live, (f"wait {folder}/beside 120000", f"cat {members}"))
    assert not [problem for problem in went.problems if not problem.startswith("container:")], tail(went)
    assert went.verdict == "ready", tail(went)
    assert went.told is not None
    found = [line.partition("cgroup.procs: ")[2] for line in went.told.lines if f"probe: cat {members}" in line]
    assert [pid for pid in found if pid.isdigit()], f"a systemd path, without systemd: {found}"
    main, beside, executed = (said(went, f"{name}: ") for name in ("main", "beside", "exec"))
    assert main[:3] == ["pid 1", "process 1 stay", "cgroup 0::/"]
    assert main[-3:] == ["stays", "SIGTERM, ending", "status 0"]
    assert "process 1 stay" in beside, "the first container's PID namespace is shared"
    assert "pid 1" not in beside
    assert beside[-1] == "status 4"
    assert "process 1 stay" in executed
    assert executed[-1] == "status 7"
    assert said(went, "killed: ") == ["status 137"]


# Management functions of four switches, and two NICs for the pod: the guest has umad, issm and uverbs of all of them.
NVLINK5 = """
summary: A whole HGX B200 board with NICs for the pod beside the ports of its switches.
machine: {gpus: [{product: B200, count: 8}], management_nics: 4, nics: [{link: infiniband}, {link: roce, virtual: true}], memory_mib: 1024}
container: {devices: [nvidia.com/gpu=all]}
expect: {verdict: ready, mode: gpu-nvl5, gpus: 8, container: {gpus: [0, 1, 2, 3, 4, 5, 6, 7], nodes: [nvidiactl]}}
"""
NICS = """
summary: Two GPUs and two NICs behind switches.
machine: {gpus: [{product: H100, count: 2}], nics: [{link: roce}, {link: infiniband, virtual: true}], tree: switches}
container: {devices: [nvidia.com/gpu=0]}
expect: {verdict: ready, gpus: 2, container: {gpus: [0], nodes: [nvidiactl]}}
"""
PASSED = ("0000:c1:00.0",)
# What a container asks for by CDI, and whether a function of the host's is passed to it, as for every GPU and NIC.
ASKING: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "nothing": ((), ()), "gpu": (("nvidia.com/gpu=0",), ()), "passed": (("nvidia.com/gpu=0",), PASSED),
    "nic": (("nvidia.com/nic=1",), ()), "ib": (("nvidia.com/ib=mlx5_1",), ()), "all": (("nvidia.com/nic=all",), PASSED)}
FIRST, SECOND = {"infiniband/uverbs0", "infiniband/rdma_cm"}, {"infiniband/uverbs1", "infiniband/rdma_cm"}
# kata-agent adds all that it finds in /dev/infiniband as soon as one function is passed.
GIVEN = {"nothing": set[str](), "gpu": set[str](), "passed": FIRST | SECOND, "ib": SECOND, "all": FIRST | SECOND}


def look_around(_scenario: Scenario, agent: Agent) -> Iterator[str]:
    agent.create_sandbox("pod")
    for name, (devices, passed) in ASKING.items():
        program = describe_container(devices if "nvidia.com/gpu=0" in devices else ())
        asking = describe_container(devices)
        container = replace(program, name=name, annotations=asking.annotations, passed=passed,
                            cgroups_path=CGROUPS_PATH.replace(":lab", f":{name}"))
        yield from (f"{name}: {line}" for line in run_container(agent, container))
    agent.destroy_sandbox()


@pytest.mark.parametrize(("text", "numbered"), [(NICS, SECOND), (NVLINK5, FIRST)], ids=["switches", "nvlink5"])
def test_containers_reach_the_verbs_of_their_nics_and_nothing_of_the_subnet(boot: Boot, text: str, numbered: set[str]) -> None:
    """`numbered`: what nvidia.com/nic=1 is. The ports of switches have numbers as well, and give nothing."""
    listing = "/dev/infiniband"
    went = boot(parse_scenario(text, "nics", "nics"), look_around, (f"wait {listing}/uverbs1 120000", f"ls {listing}"))
    assert went.verdict == "ready", tail(went)
    assert went.told is not None
    for name, due in (*GIVEN.items(), ("nic", numbered)):
        lines = said(went, f"{name}: ")
        assert "engine: ended status=0" in lines, tail(went)
        nodes = {words[2]: words[5] for words in map(str.split, lines) if words[:2] == ["container:", "node"]}
        found = {node for node in nodes if node.startswith("infiniband/")}
        assert (found, {nodes[node] for node in found}) == (due, {"open=ok"} if due else set()), name
    if text == NVLINK5:
        guest = " ".join(line for line in went.told.lines if f"probe: ls {listing}" in line)
        assert all(name in guest for name in ("umad0", "issm0")), f"the guest has what no container may: {guest}"


def stand_by(_scenario: Scenario, agent: Agent) -> Iterator[str]:
    """A pod that goes on until something happens to the machine, which ends the call."""
    agent.create_sandbox("pod")
    agent.create(stay("main"))
    agent.start("main")
    read_until(agent, "main", b"stays\n")
    yield "runtime: the container stays"
    agent.create(stay("read"))  # whose folder tells the guest's hand that this was read, however slow the agent is
    agent.wait("main", "main", CALL_S)


def test_a_crash_of_the_agent_ends_the_machine_and_is_told(boot: Boot) -> None:
    went = boot(parse_scenario(POD % "lost, code: E_AGENT_EXIT, what: [SIGKILL]", "crash", "crash"), stand_by,
                ("wait /run/kata-containers/read 60000", "sleep 3000", "kill kata-agent 9"))
    assert (went.verdict, went.code) == ("lost", "E_AGENT_EXIT"), tail(went)
    assert said(went, "runtime: the container ") == ["stays"]


def test_a_machine_that_is_asked_to_stop_stops_at_once(boot: Boot) -> None:
    """kata-agent takes no SIGTERM: as PID 1 of its namespace it does not even get it."""
    went = boot(parse_scenario(POD % "ready", "stop", "stop"), stand_by,
                ("wait /run/kata-containers/read 60000", "sleep 3000", "kill 1 2"))
    assert (went.verdict, went.code) == ("ready", "OK"), tail(went)
    assert said(went, "runtime: the container ") == ["stays"]


def test_an_agent_that_cannot_start_is_no_orderly_end(boot: Boot) -> None:
    """It says nothing and powers off, as after a pod's last day."""
    text = "{summary: An address nobody knows., cmdline: agent.server_addr=nonsense, expect: {verdict: lost, code: E_AGENT_EXIT}}"
    went = boot(parse_scenario(text, "no-address", "no-address"))
    assert (went.verdict, went.code) == ("lost", "E_AGENT_EXIT"), tail(went)
    assert went.told is not None
    assert went.told.run.story.failure is not None
    assert "without ever having had a sandbox" in went.told.run.story.failure.what
    assert any("guest init: E_AGENT_EXIT in step supervise: the agent powered off" in problem for problem in went.problems), tail(went)
