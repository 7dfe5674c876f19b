# SPDX-License-Identifier: Apache-2.0
"""Kata's runtime, played beside a machine: a real agent is asked for a pod once the machine is READY, and a machine
that has failed is asked why, as the runtime does when it dials an agent that is not there.

What comes of it are lines, as if the guest had said them: those of the container, of its engine (which is the agent
here), and `runtime: ...` about the calls. Whatever goes wrong is a problem of the run, never an exception of the lab.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from nvrc_lab.agent.kata_agent import PORT, Agent, Container
from nvrc_lab.agent.protobuf import WireError
from nvrc_lab.agent.ttrpc import Client, RpcError
from nvrc_lab.devices.vsock_device import VsockDevice
from nvrc_lab.ground.errors import LabError
from nvrc_lab.ground.hosttime import wall_limit_s
from nvrc_lab.kit.kit_texts import LIBRARIES
from nvrc_lab.scenario.values import Agent as StandIn
from nvrc_lab.scenario.values import Scenario
from nvrc_lab.watch.console import Story

# By the wall clock, as agent and runtime count: a busy host may give a machine a tenth of it. Who waits longer than the
# machine's own deadline is told by its end.
CONNECT_S = CALL_S = wall_limit_s(60.0)
# The systemd driver's form, which is Kubernetes' default and which only an agent in init mode can live with.
CGROUPS_PATH = "kubepods-burstable-podlab.slice:cri-containerd:lab"
NAME = "lab"
REFUSED = "runtime: refused "

Runtime = Callable[[Scenario, Agent], Iterator[str]]


class RuntimeSide:
    """A thread that plays once the machine has given a verdict. `said` and `problems` are whole after `join`.

    `play` is what is asked of an agent that serves; None where the agent is no real one. `has_held`: the stand-in may
    have come to a container, and so to a sandbox, when the boot fails.
    """

    def __init__(self, device: VsockDevice, play: Callable[[Agent], Iterator[str]] | None, *,
                 has_held: bool = False) -> None:
        self.device, self._play, self._has_held = device, play, has_held
        self._thread: threading.Thread | None = None
        self.said: list[str] = []
        self.problems: list[str] = []

    def hear(self, story: Story) -> None:
        """What the console has said so far."""
        if story.ready is not None and self._play is not None:
            self.begin(self._play, is_due=True)
        elif story.failure is not None:
            # A stand-in that had a sandbox leaves nothing to ask.
            self.begin(ask_why, is_due=story.ready is None and not self._has_held)

    def begin(self, play: Callable[[Agent], Iterator[str]], *, is_due: bool) -> None:
        """`is_due`: it is a problem when nobody answers."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, args=(play, is_due), name="runtime", daemon=True)
            self._thread.start()

    def join(self) -> None:
        """Once the device is closed, every call that still waits ends."""
        if self._thread is not None:
            self._thread.join()

    def _run(self, play: Callable[[Agent], Iterator[str]], is_due: bool) -> None:
        started = time.monotonic()
        try:
            line = self.device.connect(PORT, CONNECT_S)
        except OSError as err:
            self.problems += [f"runtime: {err}"] if is_due else []
            return
        self.said.append(f"runtime: connected ms={(time.monotonic() - started) * 1000:.0f}")
        try:
            for told in play(Agent(Client(line), CALL_S)):
                self.said.append(told)  # one by one: what came before a failure stays
        except RpcError as err:
            self.problems.append(f"runtime: {err.method}: {tell_reason(err)}")
        except (WireError, OSError) as err:
            self.problems.append(f"runtime: {err}")
        finally:
            line.close()


def ask_why(agent: Agent) -> Iterator[str]:
    """The runtime's first question, to a machine that has failed: the answer is what becomes the event of the pod."""
    try:
        agent.is_serving()
    except RpcError as err:
        yield f"{REFUSED}status={err.code} {err.reason}"
    else:
        yield f"{REFUSED}status=0 an agent serves"


def play_scenario(scenario: Scenario, agent: Agent) -> Iterator[str]:
    """A sandbox, the scenario's container if there is one, and the sandbox's end, after which the agent powers off."""
    details = agent.details()
    yield f"runtime: agent version={details.version} init={'yes' if details.is_init else 'no'}"
    yield f"runtime: serving={'yes' if agent.is_serving() else 'no'}"
    agent.create_sandbox(NAME)
    try:
        if scenario.container is not None:
            yield from run_container(agent, describe_container(scenario.container.devices))
    finally:
        agent.destroy_sandbox()


def describe_container(devices: Sequence[str]) -> Container:
    return Container(name=NAME, args=("/look", LIBRARIES) if devices else ("/look-plain",), cgroups_path=CGROUPS_PATH,
                     annotations={f"cdi.k8s.io/vfio{number}": device for number, device in enumerate(devices)})


def run_container(agent: Agent, container: Container) -> Iterator[str]:
    try:
        agent.create(container)
    except RpcError as err:
        yield f"engine: refused {tell_reason(err)}"
        return
    agent.start(container.name)
    output = agent.read_output(container.name, container.name, CALL_S)
    errors = agent.read_output(container.name, container.name, CALL_S, method="ReadStderr")
    yield from output.decode("utf-8", "backslashreplace").splitlines()
    yield from (f"engine: {line}" for line in errors.decode("utf-8", "backslashreplace").splitlines())
    yield f"engine: ended status={agent.wait(container.name, container.name, CALL_S)}"
    agent.remove(container.name)


def tell_reason(err: RpcError) -> str:
    """In one line, without the agent's own stack."""
    return " ".join(err.reason.partition("Stack backtrace:")[0].split())


def without_standin(scenario: Scenario) -> Scenario:
    """What remains of an expectation when another agent runs: nothing that the stand-in says of itself."""
    if scenario.agent != StandIn():
        raise LabError(f"scenario {scenario.name} says how the stand-in agent behaves, and a real one does not",
                       "leave --agent out for it")
    seen = scenario.expect.container
    # kata-agent gives device rules to cgroups of version 1 only; on version 2 a container may make itself any node.
    return replace(scenario, expect=replace(scenario.expect, agent=(),
                                            container=None if seen is None else replace(seen, is_confined=False)))


@contextlib.contextmanager
def play_beside(runtime: Runtime | None, scenario: Scenario, folder: Path, *,
                is_wanted: bool = True) -> Iterator[RuntimeSide | None]:
    """Without a runtime the stand-in agent needs nobody, and only a failure is asked about; or not even that."""
    if runtime is None and not is_wanted:
        yield None
        return
    with contextlib.ExitStack() as stack:
        play = None if runtime is None else partial(runtime, scenario)
        seen = scenario.expect.container
        side = RuntimeSide(VsockDevice(folder / "vsock.sock"), play, has_held=seen is not None and seen.is_held)
        stack.callback(side.join)
        stack.callback(side.device.close)
        yield side


def keep_said(side: RuntimeSide | None, console: Path) -> tuple[str, ...]:
    """The lines that did not come over the console, which are kept with it."""
    if side is None:
        return ()
    if side.said or side.problems:
        with console.open("a", encoding="utf-8") as out:
            out.writelines(f"{line}\n" for line in ("", *side.said, *side.problems))
    return tuple(side.said)
