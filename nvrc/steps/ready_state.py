# SPDX-License-Identifier: Apache-2.0
"""Step `ready-state`: tells confidential GPUs to accept work, or not, and records why. The worker's last request.

Everything that can end the boot because of a GPU has passed by now: count, mode, attach and the CDI document. Whether
all of that was about the same GPUs is asked here once more, because the state is one for the whole machine.
"""

from __future__ import annotations

from nvrc.engine.asking import client_of
from nvrc.engine.facts import Facts, known, replace
from nvrc.engine.ledger import collect
from nvrc.machine.system import System
from nvrc.nvml.client import SPARE_S
from nvrc.nvml.identity import check_sets
from nvrc.nvml.judge import Mode
from nvrc.nvml.readiness import Outcome, Ready, Wish, decide
from nvrc.params.settings import Settings
from nvrc.params.values import ReadyRule
from nvrc.vocabulary.errors import NvrcError


def run(_system: System, facts: Facts) -> Facts:
    settings, found = facts.settings, known(facts.confidential, "cc-check")
    if found.mode is Mode.OFF:
        facts = replace(facts, ready=_not_applicable(settings))
    else:
        sets = collect(facts)
        check_sets(sets, settings.gpus)
        wish = decide(settings, found, sets.unchecked)
        facts = replace(facts, ready=_make(facts, wish), warnings=facts.warnings + wish.remarks)
    if facts.worker:
        facts.worker.stop()
    return facts


def deadline_s(facts: Facts) -> float:
    return facts.nvml_patience_s + SPARE_S


def tell(facts: Facts) -> str:
    return f"{facts.ready.outcome.value}: {facts.ready.why}" if facts.ready else ""


def _not_applicable(settings: Settings) -> Ready:
    """Other programs of this kind power the VM off here, although runtimes ask for the state by default."""
    why = "no confidential mode, no ready state"
    asked = settings.ready_rule is not ReadyRule.NEVER or (
        settings.ready is ReadyRule.SRS and settings.ready_state is not None)
    if asked and settings.strict:
        raise NvrcError("E_READY_STATE", f"a ready state is asked for under nvrc.strict, but {why}",
                        "drop nvrc.ready and nvrc.smi.srs, or put the GPUs into confidential mode")
    return Ready(Outcome.NOT_APPLICABLE, True, f"asked for, but {why}" if asked else why)


def _make(facts: Facts, wish: Wish) -> Ready:
    before, now = client_of(facts).settle_ready(wish.state)
    if wish.state is not None and now is not wish.state:
        raise NvrcError("E_READY_STATE", f"set to {int(wish.state)}, but nvmlSystemGetConfComputeGpusReadyState says "
                                         f"{int(now)}")
    state = "ready" if now else "not ready"
    if before is now:
        return Ready(Outcome.LEFT, now, f"{wish.why}; the GPUs are {state}")
    return Ready(Outcome.SET, now, f"{wish.why}; read back: {state}")
