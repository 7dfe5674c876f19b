# SPDX-License-Identifier: Apache-2.0
"""Step `ready-state`: tells confidential GPUs to accept work, or not, and records why. The worker's last request.

Everything that can end the boot because of a GPU has passed by now: count, mode, attach and the CDI document.
"""

from __future__ import annotations

from guest_cdi.lean.light import TYPE_CHECKING, Enum, NamedTuple
from nvrc.engine.facts import Facts, replace

if TYPE_CHECKING:
    from nvrc.machine.system import System
    from nvrc.nvml.judge import Confidential
    from nvrc.params.settings import Settings


class Outcome(Enum):
    SET = "set"
    LEFT = "left"
    NOT_APPLICABLE = "not applicable"


class Ready(NamedTuple):
    """`accepts`: whether the GPUs take work now; without confidential mode they always do."""

    outcome: Outcome
    accepts: bool
    why: str


class Wish(NamedTuple):
    """The state to make, None to leave it as it is."""

    state: bool | None
    why: str
    remarks: tuple[str, ...] = ()


def settle(_system: System, facts: Facts) -> Facts:
    from nvrc.nvml.client import settings_of
    from nvrc.nvml.judge import Mode

    settings, found = settings_of(facts), facts.confidential
    assert found is not None  # noqa: S101 - `needs` puts cc-check before
    if found.mode is Mode.OFF:
        facts = replace(facts, ready=_not_applicable(settings))
    else:
        wish = decide(settings, found)
        facts = replace(facts, ready=_make(facts, wish), warnings=facts.warnings + wish.remarks)
    if facts.worker:
        facts.worker.stop()
    return facts


def decide(settings: Settings, found: Confidential) -> Wish:
    from nvrc.params.values import ReadyRule, ReadyState

    rule = settings.ready_rule
    asked = f"nvrc.ready={settings.ready.value}"
    if settings.ready is ReadyRule.SRS:
        asked = f"nvrc.smi.srs={settings.ready_state.value}" if settings.ready_state else "nobody asked for it"
    if rule is ReadyRule.ALWAYS:
        return Wish(True, f"{asked}, unchecked, mode {found.mode.value}")
    if rule is ReadyRule.VERIFIED and found.mode.is_trusted:
        return Wish(True, f"{asked}; GPU count, attach and mode {found.mode.value} verified")
    if rule is ReadyRule.VERIFIED:
        why = f"{asked}, but mode {found.mode.value} is not to be trusted"
        return Wish(None, why, (f"ready state left: {why}",))
    if settings.ready is ReadyRule.SRS and settings.ready_state is ReadyState.NOT_READY:
        return Wish(False, asked)
    return Wish(None, asked)


def deadline_s(facts: Facts) -> float:
    from nvrc.nvml.client import deadline_s as of_one_request

    return of_one_request(facts)


def tell(facts: Facts) -> str:
    return f"{facts.ready.outcome.value}: {facts.ready.why}" if facts.ready else ""


def _not_applicable(settings: Settings) -> Ready:
    """Other programs of this kind power the VM off here, although runtimes ask for the state by default."""
    from nvrc.params.values import ReadyRule
    from nvrc.vocabulary.errors import NvrcError

    why = "no confidential mode, no ready state"
    asked = settings.ready_rule is not ReadyRule.NEVER or (
        settings.ready is ReadyRule.SRS and settings.ready_state is not None)
    if asked and settings.strict:
        raise NvrcError("E_READY_STATE", f"a ready state is asked for under nvrc.strict, but {why}",
                        "drop nvrc.ready and nvrc.smi.srs, or put the GPUs into confidential mode")
    return Ready(Outcome.NOT_APPLICABLE, True, f"asked for, but {why}" if asked else why)


def _make(facts: Facts, wish: Wish) -> Ready:
    from nvrc.nvml.client import ask
    from nvrc.vocabulary.errors import NvrcError

    answer = ask(facts, "ready", ready=wish.state)
    if not isinstance(answer, list) or [type(item) for item in answer] != [bool, bool]:
        raise NvrcError("E_NVML_CRASH", f"the worker's answer is no ready state: {ascii(answer)[:80]}")
    before, now = answer
    if wish.state is not None and now is not wish.state:
        raise NvrcError("E_READY_STATE", f"set to {int(wish.state)}, but nvmlSystemGetConfComputeGpusReadyState says "
                                         f"{int(now)}")
    state = "ready" if now else "not ready"
    if before is now:
        return Ready(Outcome.LEFT, now, f"{wish.why}; the GPUs are {state}")
    return Ready(Outcome.SET, now, f"{wish.why}; read back: {state}")
