# SPDX-License-Identifier: Apache-2.0
"""What the command line claims about the machine, compared with what the machine is.

`nvrc.mode`, `nvrc.fabricmanager` and `nvrc.fm.*` once chose what the init did. The bus decides that now; a claim that
does not hold is a warning, and the end of the boot under `nvrc.strict`. It never changes the mode.
"""

from __future__ import annotations

from nvrc.params.settings import Settings
from nvrc.params.values import FabricMode, ModeClaim, RailPolicy, Value, text
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.mode import Mode

_RAIL_POLICY = {4: RailPolicy.GREEDY, 5: RailPolicy.SYMMETRIC}


def fabric_mode(mode: Mode) -> FabricMode | None:
    """How the fabric manager of this machine runs; None where there is none."""
    if mode.nvlink is None:
        return None
    return FabricMode.SHARED if mode.is_service_vm else FabricMode.FULL


def rail_policy(mode: Mode) -> RailPolicy | None:
    return None if mode.nvlink is None else _RAIL_POLICY[mode.nvlink]


def check_claims(settings: Settings, mode: Mode) -> tuple[str, ...]:
    """One sentence per claim that does not hold; E_MODE_MISMATCH with all of them when `nvrc.strict` is set."""
    claim = settings.claimed_mode
    fabric, rail = fabric_mode(mode), rail_policy(mode)
    claims: tuple[tuple[str, Value, Value], ...] = (
        # parameter             what it claims                    what is
        ("nvrc.mode",           claim,                            claim if claim and claim.holds(mode.value)
                                                                  else ModeClaim(mode.value)),
        ("nvrc.fabricmanager",  settings.claimed_fabricmanager,   fabric is not None),
        ("nvrc.fm.mode",        settings.claimed_fm_mode,         fabric),
        ("nvrc.fm.rail.policy", settings.claimed_rail_policy,     rail),
    )
    wrong = tuple(_sentence(name, claimed, actual, mode) for name, claimed, actual in claims
                  if claimed is not None and claimed != actual)
    if wrong and settings.strict:
        raise NvrcError("E_MODE_MISMATCH", "; ".join(wrong))
    return wrong


def _sentence(name: str, claimed: Value, actual: Value, mode: Mode) -> str:
    right = "there is no fabric" if actual is None else f"{text(actual)} would be right"
    return f"{name}={text(claimed)} does not match this machine, which is {mode.value}: {right}"
