# SPDX-License-Identifier: Apache-2.0
"""The longest chain of steps of a boot, and how much of its time was the init's own. Pure; reads reports.

A step starts when the last of those that it needs has ended, so the chain is found backwards from the step that ended
last. Own is what the chain took less what its steps spent waiting: for the driver's module init, for daemons, for
NVIDIA's library beyond the worker's own processor time. Waiting for a processor counts as own; work beside the chain
does not count at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nvrc.report.report import Report, StepRecord


def find_chain(steps: Sequence[StepRecord], needs: Mapping[str, Sequence[str]]) -> tuple[StepRecord, ...]:
    """In the order of time; empty when no step has ended."""
    ended = {step.name: step for step in steps if step.start_s is not None and step.end_s is not None}
    chain: list[StepRecord] = []
    names: Sequence[str] = tuple(ended)
    while found := [ended[name] for name in names if name in ended and ended[name] not in chain]:
        chain.append(max(found, key=lambda step: step.end_s or 0.0))
        names = needs.get(chain[-1].name, ())
    return tuple(reversed(chain))


def own_seconds(report: Report, needs: Mapping[str, Sequence[str]]) -> float | None:
    """From the start of PID 1's own work to the end of the last step, less the waiting; None where nobody knows."""
    chain = find_chain(report.steps, needs)
    if not chain or any(step.waited_s is None for step in chain):
        return None
    waited_s = sum(step.waited_s or 0.0 for step in chain)
    return max(0.0, (chain[-1].end_s or 0.0) - report.started_s - waited_s)
