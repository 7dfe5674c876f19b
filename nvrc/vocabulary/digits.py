# SPDX-License-Identifier: Apache-2.0
"""Numbers in what others write: digits of ASCII, and no more of them than anybody means."""

from __future__ import annotations


def is_number(text: str, most: int) -> bool:
    """Of one to so many digits. int() takes signs, underscores, spaces and the digits of every script."""
    return len(text) <= most and text.isascii() and text.isdigit()
