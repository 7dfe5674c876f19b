# SPDX-License-Identifier: Apache-2.0
"""Step `ready-state`: tells confidential GPUs to accept work, or not, and records why. The worker's last request.

Everything that can end the boot because of a GPU has passed by now: count, mode, attach and the CDI document. Whether
all of that was about the same GPUs is asked here once more, because the state is one for the whole machine.
"""

from __future__ import annotations

from nvrc.engine.asking import client_of
from nvrc.engine.facts import Facts, known, replace
from nvrc.engine.ledger import check_every_gpu, check_gpus
from nvrc.machine.system import System
from nvrc.nvml.client import SPARE_S
from nvrc.nvml.judge import Confidential, Mode
from nvrc.nvml.readiness import Outcome, Ready, Wish, decide
from nvrc.params.settings import Settings
from nvrc.params.table import asked
from nvrc.params.values import ReadyRule
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.trouble import remark


def run(system: System, facts: Facts) -> Facts:
    settings, found = facts.settings, known(facts.confidential, "cc-check")
    if settings.key_rotation_bits is not None:
        facts = _rotate_keys(facts, settings.key_rotation_bits, found)
    if settings.is_attested:
        return _hold(system, facts, found)
    if found.mode is Mode.OFF:
        facts = replace(facts, ready=_not_applicable(settings))
    else:
        wish = decide(settings, found, check_gpus(system, facts).unchecked)
        facts = replace(facts, ready=_make(system, facts, wish),
                        warnings=facts.warnings + tuple(map(remark, wish.remarks)))
    return facts


def _rotate_keys(facts: Facts, advantage: int, found: Confidential) -> Facts:
    if found.mode is Mode.OFF:
        what = (f"{asked('key_rotation_bits', advantage)} is asked for, but there is no confidential mode, "
                "no key to rotate")
        if facts.settings.strict:
            raise NvrcError("E_KEY_ROTATION", f"{what}, under nvrc.strict",
                            "put the GPUs into confidential mode, or drop the parameter")
        return replace(facts, warnings=(*facts.warnings, remark(what)))
    got = client_of(facts).rotate_keys(advantage)
    if got != advantage:
        raise NvrcError("E_KEY_ROTATION", f"set to {advantage}, but "
                                          f"nvmlSystemGetConfComputeKeyRotationThresholdInfo says {got}")
    return replace(facts, keys=f"key rotation at {advantage} bits")


def _hold(system: System, facts: Facts, found: Confidential) -> Facts:
    """The step `attest` sets the state, of all GPUs of the VM at once; the worker stays for it."""
    if not found.mode.is_trusted:
        raise NvrcError("E_READY_STATE", f"{asked('ready', facts.settings.ready)} requires confidential GPUs; "
                        f"mode is {found.mode.value}",
                        "put the GPUs into confidential mode on the host, or drop nvrc.ready")
    check_every_gpu(system, facts)
    return facts


def deadline_s(facts: Facts) -> float:
    return facts.nvml_patience_s + SPARE_S


def tell(facts: Facts) -> str:
    if facts.ready is None:
        return "held until attested" if facts.confidential else ""
    return f"{facts.ready.outcome.value}: {facts.ready.why}"


def _not_applicable(settings: Settings) -> Ready:
    """Other programs of this kind power the VM off here, although runtimes ask for the state by default."""
    why = "no confidential mode, no ready state"
    is_asked = settings.ready_rule is not ReadyRule.NEVER or (
        settings.ready is ReadyRule.SRS and settings.ready_state is not None)
    if is_asked and settings.strict:
        raise NvrcError("E_READY_STATE", f"a ready state is asked for under nvrc.strict, but {why}",
                        "drop nvrc.ready and nvrc.smi.srs, or put the GPUs into confidential mode")
    return Ready(Outcome.NOT_APPLICABLE, True, f"asked for, but {why}" if is_asked else why)


def _make(system: System, facts: Facts, wish: Wish) -> Ready:
    before, now = client_of(facts).settle_ready(wish.state)
    if wish.state is not None and now is not wish.state:
        raise NvrcError("E_READY_STATE", f"set to {int(wish.state)}, but nvmlSystemGetConfComputeGpusReadyState says "
                                         f"{int(now)}")
    state = "ready" if now else "not ready"
    why = f"{wish.why}; {facts.keys}" if facts.keys else wish.why
    if before is now:
        return Ready(Outcome.LEFT, now, f"{why}; the GPUs are {state}")
    return Ready(Outcome.SET, now, f"{why}; at {system.now():.1f} s; read back: {state}")
