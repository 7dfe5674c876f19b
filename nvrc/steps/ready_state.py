# SPDX-License-Identifier: Apache-2.0
"""Step `ready-state`: tells confidential GPUs to accept work, or not, and records why. The worker's last request.

Everything that can end the boot because of a GPU has passed by now: count, mode, attach and the CDI document. Whether
all of that was about the same GPUs is asked here once more, because the state is one for the whole machine.
"""

from __future__ import annotations

from guest_cdi.light import TYPE_CHECKING, Enum, NamedTuple
from nvrc.facts import Facts, replace

if TYPE_CHECKING:
    from nvrc.confidential import Confidential
    from nvrc.settings import Settings
    from nvrc.system import System


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
    from nvrc.confidential import Mode
    from nvrc.gpu_identity import check_sets, collect
    from nvrc.gpu_worker import settings_of

    settings, found = settings_of(facts), facts.confidential
    assert found is not None  # noqa: S101 - `needs` puts cc-check before
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


def decide(settings: Settings, found: Confidential, unchecked: tuple[str, ...] = ()) -> Wish:
    """`unchecked`: GPUs of the VM that the boot goes on without; the state would be theirs as well."""
    from nvrc.values import ReadyRule, ReadyState

    rule = settings.ready_rule
    asked = f"nvrc.ready={settings.ready.value}"
    if settings.ready is ReadyRule.SRS:
        asked = f"nvrc.smi.srs={settings.ready_state.value}" if settings.ready_state else "nobody asked for it"
    if rule is ReadyRule.ALWAYS:
        return Wish(True, f"{asked}, unchecked, mode {found.mode.value}")
    if rule is ReadyRule.VERIFIED and unchecked:
        why = f"{asked}, but {', '.join(unchecked)} was not checked, and the state covers every GPU of the VM"
        return Wish(None, why, (f"ready state left: {why}",))
    if rule is ReadyRule.VERIFIED and found.mode.is_trusted:
        return Wish(True, f"{asked}; GPU count, attach and mode {found.mode.value} verified")
    if rule is ReadyRule.VERIFIED:
        why = f"{asked}, but mode {found.mode.value} is not to be trusted"
        return Wish(None, why, (f"ready state left: {why}",))
    if settings.ready is ReadyRule.SRS and settings.ready_state is ReadyState.NOT_READY:
        return Wish(False, asked)
    return Wish(None, asked)


def deadline_s(facts: Facts) -> float:
    from nvrc.gpu_worker import deadline_s as of_one_request

    return of_one_request(facts)


def tell(facts: Facts) -> str:
    return f"{facts.ready.outcome.value}: {facts.ready.why}" if facts.ready else ""


def _not_applicable(settings: Settings) -> Ready:
    """Other programs of this kind power the VM off here, although runtimes ask for the state by default."""
    from nvrc.errors import NvrcError
    from nvrc.values import ReadyRule

    why = "no confidential mode, no ready state"
    asked = settings.ready_rule is not ReadyRule.NEVER or (
        settings.ready is ReadyRule.SRS and settings.ready_state is not None)
    if asked and settings.strict:
        raise NvrcError("E_READY_STATE", f"a ready state is asked for under nvrc.strict, but {why}",
                        "drop nvrc.ready and nvrc.smi.srs, or put the GPUs into confidential mode")
    return Ready(Outcome.NOT_APPLICABLE, True, f"asked for, but {why}" if asked else why)


def _make(facts: Facts, wish: Wish) -> Ready:
    from nvrc.errors import NvrcError
    from nvrc.gpu_worker import ask

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
