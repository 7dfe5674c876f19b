# SPDX-License-Identifier: Apache-2.0
"""Why a machine ends: somebody wanted it to, or something failed."""

from __future__ import annotations

from guest_cdi.lean.light import NamedTuple
from nvrc.vocabulary.trouble import Trouble


class Orderly(NamedTuple):
    what: str


Ending = Orderly | Trouble
