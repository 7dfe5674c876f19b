# SPDX-License-Identifier: Apache-2.0
"""How long a runtime has to wait for a guest of ours: from the guest's own table of steps, for a number of GPUs.

The rule, which docs/deploy.md explains:

  dial    = start of the VM + the smaller of
            a) the deadlines along the longest chain of steps, added up,
            b) nvrc.timeout.boot and the longest single deadline of that chain
  create  = agent.cdi_timeout + nvrc.timeout.command (+ pulling the image, where the guest does that)

A step that overruns its deadline ends the VM and says why: so at most one step of a chain takes all of its own, and (b)
lets its words out before the runtime gives up. The deadline of persistenced starts anew with each GPU; it counts once,
with what the slowest GPU seen so far has taken for each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from nvrc.boot import BOOT
from nvrc.params.parse import Settings, parse, tokenise
from nvrc.report.plan import PlannedStep, make_plan
from nvrc_build.ground.errors import BuildError, WrongCallError

# Firmware and kernel; a TEE accepts its memory first.
START_S, START_TEE_S = 60, 180
# Between two attaches on a B300 board whose fabric was not up.
SLOWEST_GPU_S = 35
# The agent's own default.
CDI_TIMEOUT_S = 100
PULL_S = 1200
MOST_GPUS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What is plugged into the VM, as far as the boot depends on it."""

    gpus: int
    nvswitches: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    dial_s: int
    create_container_s: int


@dataclass(frozen=True, slots=True)
class _Bus:
    """A PCI bus with these devices and nothing else, for the plan to look at."""

    machine: Machine

    def list_dir(self, _path: str) -> tuple[str, ...]:
        return (*(f"0000:{number + 0x10:02x}:00.0" for number in range(self.machine.gpus)),
                *(f"0000:{number + 0x80:02x}:00.0" for number in range(self.machine.nvswitches)))

    def read(self, path: str, _limit: int = 0) -> bytes:
        address, name = path.split("/")[-2:]
        is_gpu = int(address[5:7], 16) < 0x80
        values = {"vendor": b"0x10de", "device": b"0x2330" if is_gpu else b"0x22a3",
                  "class": b"0x030200" if is_gpu else b"0x068000"}
        if name not in values:
            raise FileNotFoundError(path)
        return values[name] + b"\n"


def find_timeouts(machine: Machine, kernel_params: str, *, is_tee: bool = False, pull_s: int = 0) -> Timeouts:
    line = kernel_params.encode()
    parsed = parse(line)
    if not 0 <= machine.gpus <= MOST_GPUS or not 0 <= machine.nvswitches <= MOST_GPUS:
        raise WrongCallError(f"{machine.gpus} GPUs and {machine.nvswitches} NVSwitches cannot be",
                             f"give numbers from 0 to {MOST_GPUS}")
    plan = make_plan(BOOT, parsed, _Bus(machine))
    if plan.failures:
        raise BuildError(f"no boot comes to the agent: {plan.failures[0].code} {plan.failures[0].what}",
                         plan.failures[0].hint)
    steps = {step.name: step for step in plan.steps if step.runs}
    waits = {name: _wait_s(step, machine, parsed.settings) for name, step in steps.items()}
    boot_s = bound_s([waits[name] for name in longest_chain(steps, waits)], parsed.settings.timeout_boot_s)
    return Timeouts(dial_s=math.ceil((START_TEE_S if is_tee else START_S) + boot_s),
                    create_container_s=_cdi_timeout_s(line) + parsed.settings.timeout_command_s + pull_s)


def bound_s(chain: list[float], whole_s: float) -> float:
    """The rule's (a) or (b), for the waits of a chain and the time after which a whole boot counts as slow."""
    return min(sum(chain), whole_s + max(chain))


def longest_chain(steps: dict[str, PlannedStep], waits: dict[str, float]) -> tuple[str, ...]:
    """By time, of the steps that the agent's start waits for."""
    best: dict[str, tuple[str, ...]] = {}
    for name, step in steps.items():  # the table is in an order that respects `needs`
        before = max((best[need] for need in step.needs if need in best), default=(),
                     key=lambda chain: sum(waits[one] for one in chain))
        best[name] = (*before, name)
    return best["agent"]


def _wait_s(step: PlannedStep, machine: Machine, settings: Settings) -> float:
    if step.name == "persistenced":
        return (settings.timeout_persistenced_s + settings.timeout_per_gpu_s * machine.gpus
                + SLOWEST_GPU_S * machine.gpus)
    return step.deadline_s or 0.0


def _cdi_timeout_s(line: bytes) -> int:
    given = [token.value or "" for token in tokenise(line) if token.key == "agent.cdi_timeout"]
    if not given:
        return CDI_TIMEOUT_S
    if not given[-1].isascii() or not given[-1].isdigit() or len(given[-1]) > 5:
        raise BuildError(f"agent.cdi_timeout={given[-1]} is not a number of seconds", "give a whole number")
    return int(given[-1])
