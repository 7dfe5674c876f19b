# SPDX-License-Identifier: Apache-2.0
"""What a document of somebody else's may cost."""

from __future__ import annotations

MAX_BYTES = 16 << 20
MAX_NODES = 100_000
MAX_DEPTH = 64
LONGEST_PLACE = 1024    # characters of the keys above a value, which each value below has in its own name
TOO_LARGE = f"more than {MAX_NODES} values, {MAX_DEPTH} levels, or {LONGEST_PLACE} characters of keys in each other"
_MARKS = ",[{"


def is_bounded_json(text: str) -> bool:
    """Asked before it is read: a value of three bytes costs a hundred. Each but the first has a comma or bracket."""
    if sum(map(text.count, _MARKS)) <= 2 * MAX_NODES:
        return True
    outside = "".join(text.replace("\\\\", "").replace('\\"', "").split('"')[::2])
    return sum(map(outside.count, _MARKS)) <= 2 * MAX_NODES     # it may have both
