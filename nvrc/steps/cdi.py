# SPDX-License-Identifier: Apache-2.0
"""Step `cdi`: the document by which the agent gives GPUs to containers, published before the agent starts."""

from __future__ import annotations

from guest_cdi.lean.light import Iterator, Mapping
from guest_cdi.lean.yamltext import write_yaml
from nvrc.engine.asking import client_of
from nvrc.engine.facts import Facts, replace
from nvrc.machine.privileges import hand_out
from nvrc.machine.system import Files, System
from nvrc.nvml.answers import CdiMade
from nvrc.nvml.client import SPARE_S
from nvrc.nvml.count import NOT_DESCRIBED
from nvrc.nvml.document import check_document
from nvrc.nvml.identity import CODE, quoted
from nvrc.params.table import asked
from nvrc.params.values import CountRule, GpuCount
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError, make_trouble
from nvrc.vocabulary.trouble import Trouble, remark

MOST = 1_000_000  # of anything in a document


def run(system: System, facts: Facts) -> Facts:
    client = client_of(facts)
    rule = facts.settings.gpus
    for running in facts.services:  # sockets that came after their daemons said that they are ready
        hand_out(system, running.service.privileges, running.service.code)
    made, described = client.describe_cdi(keep_going=rule.rule is CountRule.AT_LEAST)
    _check_counts(made)
    _check_identities(facts, made)
    _check_rest(facts, made, rule)
    document = check_document(system, described)
    if facts.promise is not None:
        from nvrc.nvml.promised import check_kept  # what most boots go without

        check_kept(facts.promise, document)
    is_held = facts.settings.is_attested or facts.promise is not None
    publish(system, document, paths.CDI_HELD if is_held else paths.CDI_SPEC)
    return replace(facts, cdi=made, warnings=facts.warnings + tuple(_left_out(facts, made)) + _renumbered(facts))


def deadline_s(facts: Facts) -> float:
    return facts.nvml_patience_s + SPARE_S


def tell(facts: Facts) -> str:
    """`9 devices, 6 nodes, 14 mounts, 4 hooks, driver 595.58.03`: no UUID, which would tell the hardware apart."""
    made = facts.cdi
    if made is None:
        return ""
    return f"{made.devices} devices, {made.nodes} nodes, {made.mounts} mounts, {made.hooks} hooks, driver {made.driver}"


def publish(system: Files, document: Mapping[str, object], path: str) -> None:
    """Under a name that the agent does not read, where GPUs are held back."""
    try:
        system.make_dir(paths.CDI_RUN)
        system.make_dir(paths.RUN, 0o700)
        system.publish(path, write_yaml(document).encode())
    except UnicodeEncodeError as err:
        raise NvrcError("E_CDI_NAME_ENCODING", f"{err.object[max(0, err.start - 60):err.end + 60]!a} is not UTF-8"
                        ) from err
    except OSError as err:
        raise NvrcError("E_CDI_PUBLISH", f"{path}: {err.strerror}") from err


def _check_counts(made: CdiMade) -> None:
    """They go into the verdict's line, which has a form."""
    counts = (made.devices, made.nodes, made.mounts, made.hooks)
    if not all(0 <= count <= MOST for count in counts):
        raise NvrcError("E_NVML_CRASH", f"the worker's document has impossible numbers: {ascii(counts)[:80]}")
    if len(made.faulty) != len(made.left_out):
        raise NvrcError("E_NVML_CRASH", f"the worker left out {len(made.left_out)} devices of "
                                        f"{len(made.faulty)} GPUs")


def _check_identities(facts: Facts, made: CdiMade) -> None:
    """The document describes the GPUs that were checked before, or the worker is not believed."""
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
                                       f"{asked('gpus', rule)}; {'; '.join(made.left_out)}")


def _left_out(facts: Facts, made: CdiMade) -> Iterator[Trouble]:
    """GPUs that the document goes without, and nothing was said of before."""
    known = {gpu.number: gpu for gpu in facts.gpus or ()}
    for number, text in zip(made.faulty, made.left_out, strict=True):
        gpu = known.get(number)
        if gpu is None or not gpu.error:
            yield make_trouble(NOT_DESCRIBED, f"not in the CDI document: {text}", gpu=gpu.bdf if gpu else "",
                               uuid=gpu.uuid if gpu else "")


def _renumbered(facts: Facts) -> tuple[Trouble, ...]:
    """The host counts the GPUs that it passed; the driver counts those that it lists."""
    passed = len(facts.on_bus)
    listed = len(facts.gpus or ())
    if listed == passed:
        return ()
    return (remark(f"GPU numbers in CDI names count the {listed} GPUs that the driver lists, not the {passed} of "
                   "the VM"),)
