# SPDX-License-Identifier: Apache-2.0
"""What the lab asks of a real agent in the place of Kata's runtime, and what it makes of the answers. No machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.kata_agent import FakeAgent
from fakes.trouble import trouble
from nvrc.vocabulary.transcript import ReadyLine
from nvrc_lab.agent.kata_agent import Agent, Container
from nvrc_lab.agent.protobuf import Fields, bytes_of, decode, encode, number_of, text_of
from nvrc_lab.agent.runtime_side import (
    CGROUPS_PATH,
    RuntimeSide,
    ask_why,
    keep_said,
    play_beside,
    play_scenario,
    without_standin,
)
from nvrc_lab.agent.ttrpc import Client
from nvrc_lab.devices.vsock_device import VsockDevice
from nvrc_lab.ground.errors import LabError
from nvrc_lab.scenario.scenario import parse_scenario
from nvrc_lab.scenario.values import Agent as StandIn
from nvrc_lab.scenario.values import Scenario
from nvrc_lab.watch.console import Story

SCENARIO = parse_scenario("""
summary: One GPU.
machine: {gpus: [{product: H100}]}
container: {devices: ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]}
expect: {verdict: ready, agent: ["pid=1"], container: {gpus: [0]}}
""", "gpu", "gpu.yaml")
READY = Story(said=(ReadyLine(1.0, "cpu", 0, 0, 7),))
FAILED = Story(said=(trouble("E_MOUNT", "filesystems", "x", "y"),))
DETAILS = encode((2, encode((1, "4.1.0"), (2, 1))))


def output_once(text: bytes) -> Iterator[bytes]:
    yield text
    while True:
        yield b""


def fake_agent(**more: bytes | tuple[int, str]) -> FakeAgent:
    stdout, stderr = output_once(b"container: cuda 42\ncontainer: node nvidia0 195:0 mode=666 open=ok\n"), output_once(b"")
    return FakeAgent({"GetGuestDetails": DETAILS, "Check": encode((1, 1)), "WaitProcess": encode((1, 3)),
                      "ReadStdout": lambda _: encode((1, next(stdout))),
                      "ReadStderr": lambda _: encode((1, next(stderr))), **more})


def play(transport: FakeAgent, scenario: Scenario = SCENARIO) -> list[str]:
    return list(play_scenario(scenario, Agent(Client(transport), 5)))


def test_a_pod_from_sandbox_to_its_end() -> None:
    agent = fake_agent()
    said = play(agent)
    assert said == ["runtime: agent version=4.1.0 init=yes", "runtime: serving=yes", "container: cuda 42",
                    "container: node nvidia0 195:0 mode=666 open=ok", "engine: ended status=3"]
    assert agent.methods == ["GetGuestDetails", "Check", "CreateSandbox", "CreateContainer", "StartContainer", "ReadStdout",
                             "ReadStdout", "ReadStderr", "WaitProcess", "RemoveContainer", "DestroySandbox"]


def test_the_container_is_described_as_the_runtime_does() -> None:
    agent = fake_agent()
    play(agent)
    request = agent.payload("CreateContainer")
    spec = decode(bytes_of(request, 6))
    assert (text_of(request, 1), text_of(request, 2), number_of(request, 7)) == ("lab", "lab", 0)
    assert annotations(spec) == {"cdi.k8s.io/vfio0": "nvidia.com/gpu=0", "cdi.k8s.io/vfio1": "nvidia.com/gpu=1"}
    assert text_of(decode(bytes_of(spec, 3)), 1) == "/lab/bundle/rootfs"
    assert decode(bytes_of(spec, 2))[4][0] == b"/look"
    linux = decode(bytes_of(spec, 8))
    assert text_of(linux, 5) == CGROUPS_PATH
    assert [text_of(decode(one), 1) for one in linux[6] if isinstance(one, bytes)] == ["mount", "ipc", "uts", "network"]
    assert text_of(decode(bytes_of(decode(bytes_of(linux, 4)), 1)), 5) == "rwm", "no device but those that are asked for"


def annotations(spec: Fields) -> dict[str, str]:
    pairs = [decode(one) for one in spec[7] if isinstance(one, bytes)]
    return {text_of(pair, 1): text_of(pair, 2) for pair in pairs}


def test_a_container_that_is_refused_is_told_in_one_line_and_the_sandbox_ends() -> None:
    agent = fake_agent(CreateContainer=(13, "CDI device(s) do not exist:\n  nvidia.com/gpu=7\n\nStack backtrace:\n   0: main"))
    assert play(agent)[-1] == "engine: refused CDI device(s) do not exist: nvidia.com/gpu=7"
    assert agent.methods[-2:] == ["CreateContainer", "DestroySandbox"]


def test_a_sandbox_without_a_container() -> None:
    agent = fake_agent()
    play(agent, replace(SCENARIO, container=None))
    assert agent.methods[-2:] == ["CreateSandbox", "DestroySandbox"]


def test_the_sandbox_ends_also_when_a_call_fails() -> None:
    agent = fake_agent(StartContainer=(13, "no"))
    with pytest.raises(Exception, match="StartContainer: no"):
        play(agent)
    assert agent.methods[-1] == "DestroySandbox"


def test_the_calls_of_a_longer_life() -> None:
    transport = fake_agent()
    agent = Agent(Client(transport), 5)
    container = Container(name="c", args=("/stay",), annotations={}, cgroups_path="/c", shares_pids=True)
    agent.create_sandbox("pod", shares_pids=True)
    agent.create(container)
    agent.kill("c", "c", 15)
    assert number_of(transport.payload("CreateSandbox"), 4) == 1
    assert number_of(transport.payload("CreateContainer"), 7) == 1
    spec = decode(bytes_of(transport.payload("CreateContainer"), 6))
    process = decode(bytes_of(spec, 2))
    assert process[3] == (b"",), "a user is there, although all its numbers are 0"
    assert number_of(transport.payload("SignalProcess"), 3) == 15


def test_nothing_that_the_stand_in_says_is_expected_of_another_agent() -> None:
    assert without_standin(SCENARIO).expect.agent == ()


def test_a_scenario_about_the_stand_in_is_refused() -> None:
    with pytest.raises(LabError, match=r"says how the stand-in agent behaves.*leave --agent out"):
        without_standin(replace(SCENARIO, agent=StandIn(does=("crash",))))


def test_what_goes_wrong_is_a_problem_of_the_run(tmp_path: Path) -> None:
    with play_beside(play_scenario, SCENARIO, tmp_path) as side:
        assert side is not None
        side.hear(READY)
        side.hear(READY)
    assert side.problems == ["runtime: the machine has ended"]
    console = tmp_path / "console"
    console.write_text("nvrc: READY\n")
    assert keep_said(side, console) == ()
    assert console.read_text() == "nvrc: READY\n\nruntime: the machine has ended\n"


def test_a_runtime_that_never_began_says_nothing(tmp_path: Path) -> None:
    side = RuntimeSide(VsockDevice(tmp_path / "s"), lambda _agent: iter(()))
    side.hear(Story())
    side.device.close()
    side.join()
    assert (side.said, side.problems) == ([], [])


@pytest.mark.parametrize(("story", "problems"), [
    pytest.param(READY, [], id="ready: the stand-in needs no runtime"),
    pytest.param(FAILED, ["runtime: the machine has ended"], id="failed: somebody must say why"),
    pytest.param(replace(READY, said=(*READY.said, *FAILED.said)), [], id="failed later: there may have been a sandbox"),
])
def test_only_a_failed_machine_is_asked_beside_a_stand_in(tmp_path: Path, story: Story, problems: list[str]) -> None:
    with play_beside(None, SCENARIO, tmp_path) as side:
        assert side is not None
        side.hear(story)
    assert side.problems == problems


def test_the_answer_to_why_is_the_text_of_the_event() -> None:
    refusing = FakeAgent({"Check": (9, "guest init: E_MOUNT in step filesystems: x (hint: y)")})
    assert list(ask_why(Agent(Client(refusing), 5))) == ["runtime: refused status=9 guest init: E_MOUNT in step filesystems: x (hint: y)"]
    assert list(ask_why(Agent(Client(fake_agent()), 5))) == ["runtime: refused status=0 an agent serves"]


def test_a_machine_that_is_measured_or_runs_another_init_has_no_device(tmp_path: Path) -> None:
    with play_beside(None, SCENARIO, tmp_path, is_wanted=False) as side:
        assert side is None
    assert keep_said(None, tmp_path / "console") == ()
    assert not list(tmp_path.iterdir())
