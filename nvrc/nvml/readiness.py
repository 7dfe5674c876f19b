# SPDX-License-Identifier: Apache-2.0
"""Which ready state confidential GPUs shall have, from what was asked and what was found; and what was made of it."""

from __future__ import annotations

from guest_cdi.lean.light import Enum, NamedTuple
from nvrc.nvml.judge import Confidential
from nvrc.params.settings import Settings
from nvrc.params.table import asked
from nvrc.params.values import ReadyRule, ReadyState


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


def decide(settings: Settings, found: Confidential, unchecked: tuple[str, ...] = ()) -> Wish:
    """`unchecked`: GPUs of the VM that the boot goes on without; the state would be theirs as well."""
    rule = settings.ready_rule
    told = asked("ready", settings.ready)
    if settings.ready is ReadyRule.SRS:
        told = asked("ready_state", settings.ready_state) if settings.ready_state else "not requested"
    if rule is ReadyRule.ALWAYS:
        return Wish(True, f"{told}, unchecked, mode {found.mode.value}")
    if rule is ReadyRule.VERIFIED and unchecked:
        why = f"{told}, but {', '.join(unchecked)} was not checked, and the state covers every GPU of the VM"
        return Wish(None, why, (f"ready state left: {why}",))
    if rule is ReadyRule.VERIFIED and found.mode.is_trusted:
        return Wish(True, f"{told}; GPU count, attach and mode {found.mode.value} verified")
    if rule is ReadyRule.VERIFIED:
        why = f"{told}, but mode {found.mode.value} is not to be trusted"
        return Wish(None, why, (f"ready state left: {why}",))
    if settings.ready is ReadyRule.SRS and settings.ready_state is ReadyState.NOT_READY:
        return Wish(False, told)
    return Wish(None, told)
