# SPDX-License-Identifier: Apache-2.0
"""Which known name somebody meant. Runs only after a mistake, so it costs a boot without one nothing."""

from __future__ import annotations

from guest_cdi.lean.light import Iterable

# Longer keys are nobody's typing mistake, and comparing them would take long.
_LONGEST = 64


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known name with the fewest typing mistakes, if they are few for its length."""
    if len(word) > _LONGEST:
        return None
    scored = [(distance(word.lower(), name, max(1, len(name) // 4)), name) for name in known]
    near = [(score, name) for score, name in scored if score <= max(1, len(name) // 4)]
    return min(near)[1] if near else None


def distance(one: str, other: str, enough: int = _LONGEST) -> int:
    """Insertions, deletions, replacements and swaps of neighbours between two words; exact up to `enough`."""
    # A mistake takes at most one letter away, and brings at most one.
    letters, others = set(one), set(other)
    if abs(len(one) - len(other)) > enough or len(letters - others) > enough or len(others - letters) > enough:
        return enough + 1
    before: list[int] = []
    above = list(range(len(other) + 1))
    for row, char in enumerate(one, 1):
        line = [enough + 1] * len(above)  # what is further from the diagonal than `enough` costs more than that
        line[0] = row
        for column in range(max(1, row - enough), min(len(other), row + enough) + 1):
            wanted = other[column - 1]
            cost = min(above[column] + 1, line[column - 1] + 1, above[column - 1] + (char != wanted))
            if row > 1 and column > 1 and char == other[column - 2] and one[row - 2] == wanted:
                cost = min(cost, before[column - 2] + 1)
            line[column] = cost
        if min(line) > enough and min(above) > enough:
            break  # no row below gets less
        before, above = above, line
    else:
        return above[-1]
    return enough + 1
