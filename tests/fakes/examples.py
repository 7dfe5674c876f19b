# SPDX-License-Identifier: Apache-2.0
"""How many examples a property that needs more of them is asked for; the profile says how many all others are."""

from __future__ import annotations

from hypothesis import settings


def times(factor: int) -> int:
    return factor * settings().max_examples
