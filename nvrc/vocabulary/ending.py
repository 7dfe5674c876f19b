# SPDX-License-Identifier: Apache-2.0
"""Why a machine ends."""

from __future__ import annotations

from guest_cdi.lean.light import dataclass
from nvrc.vocabulary.errors import find_code

ORDERLY = "OK"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Why the VM ends: code OK for an orderly end, else a failure code."""

    code: str
    what: str
    hint: str = ""
    step: str = "supervise"

    @property
    def is_orderly(self) -> bool:
        return self.code == ORDERLY

    @property
    def advice(self) -> str:
        row = None if self.hint or self.is_orderly else find_code(self.code)
        return row.remedy if row else self.hint
