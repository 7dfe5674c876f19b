# SPDX-License-Identifier: Apache-2.0
"""Step `cdi`: the document by which the agent gives GPUs to containers, published before the agent starts."""

from __future__ import annotations

from nvrc.engine.asking import client_of
from nvrc.engine.facts import Facts, replace
from nvrc.machine.system import System
from nvrc.nvml.answers import CdiMade
from nvrc.nvml.client import SPARE_S
from nvrc.nvml.count import NOT_DESCRIBED
from nvrc.nvml.identity import CODE, quoted
from nvrc.params.values import CountRule, GpuCount
from nvrc.vocabulary.errors import NvrcError

MOST = 1_000_000  # of anything in a document


def run(_system: System, facts: Facts) -> Facts:
    client = client_of(facts)
    rule = facts.settings.gpus
    made = client.publish_cdi(keep_going=rule.rule is CountRule.AT_LEAST)
    _check_counts(made)
    _check_identities(facts, made)
    _check_rest(facts, made, rule)
    told = tuple(gpu.error for gpu in facts.gpus or () if gpu.error)
    left_out = tuple(f"{NOT_DESCRIBED} not in the CDI document: {text}" for text in made.left_out
                     if not any(error in text for error in told))
    return replace(facts, cdi=made, warnings=facts.warnings + left_out + _renumbered(facts))


def deadline_s(facts: Facts) -> float:
    return facts.nvml_patience_s + SPARE_S


def tell(facts: Facts) -> str:
    """`9 devices, 6 nodes, 14 mounts, 4 hooks, driver 595.58.03`: no UUID, which would tell the hardware apart."""
    made = facts.cdi
    if made is None:
        return ""
    return f"{made.devices} devices, {made.nodes} nodes, {made.mounts} mounts, {made.hooks} hooks, driver {made.driver}"


def _check_counts(made: CdiMade) -> None:
    """They go into the verdict's line, which has a form."""
    counts = (made.devices, made.nodes, made.mounts, made.hooks)
    if not all(0 <= count <= MOST for count in counts):
        raise NvrcError("E_NVML_CRASH", f"the worker's document has impossible numbers: {ascii(counts)[:80]}")


def _check_identities(facts: Facts, made: CdiMade) -> None:
    """The document describes the GPUs that were checked before; the worker read them anew for it."""
    checked = {gpu.identity for gpu in facts.gpus or () if not gpu.error and gpu.number not in made.faulty}
    strange = sorted(checked ^ set(made.gpus))
    if strange or len(made.gpus) != len(checked):
        raise NvrcError(CODE, "the CDI document is not about the GPUs that were checked; the difference: "
                              f"{', '.join(map(quoted, strange[:4])) or 'a GPU that is described twice'}")


def _check_rest(facts: Facts, made: CdiMade, rule: GpuCount) -> None:
    """A GPU that answers and yet cannot be described, say for lack of a node, does not count as up."""
    rest = [number for number in facts.usable if number not in made.faulty]
    on_bus = len(facts.on_bus)
    if not rule.holds(len(rest), on_bus):
        raise NvrcError("E_GPU_COUNT", f"{len(rest)} of {on_bus} GPUs can be given to containers, "
                                       f"nvrc.gpus={rule.text()}; {'; '.join(made.left_out)}")


def _renumbered(facts: Facts) -> tuple[str, ...]:
    """The host counts the GPUs that it passed; the driver counts those that it lists."""
    passed = len(facts.on_bus)
    listed = len(facts.gpus or ())
    if listed == passed:
        return ()
    return (f"GPU numbers in CDI names count the {listed} GPUs that the driver lists, not the {passed} of the VM",)
