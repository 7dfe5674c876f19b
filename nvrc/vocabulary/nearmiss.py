# SPDX-License-Identifier: Apache-2.0
"""Which known name somebody meant. Runs only after a mistake, so it costs a boot without one nothing."""

from __future__ import annotations

from guest_cdi.lean.light import Iterable

# Longer keys are nobody's typing mistake, and comparing them would take long.
_LONGEST = 64


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known name with the fewest typing mistakes, if they are few for its length; the first by name of several."""
    if len(word) > _LONGEST:
        return None
    word = word.lower()
    best: tuple[int, str] | None = None
    for name in known:
        enough = max(1, len(name) // 4)
        if best is not None:
            enough = min(enough, best[0])
        score = distance(word, name, enough)
        if score <= enough and (best is None or (score, name) < best):
            best = score, name
    return None if best is None else best[1]


def distance(one: str, other: str, enough: int = _LONGEST) -> int:
    """Insertions, deletions, replacements and swaps of neighbours between two words; exact up to `enough`."""
    if abs(len(one) - len(other)) > enough:
        return enough + 1
    one, other = _differing(one, other)
    # A mistake takes at most one letter away, and brings at most one.
    letters, others = set(one), set(other)
    if len(letters - others) > enough or len(others - letters) > enough:
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


def _differing(one: str, other: str) -> tuple[str, str]:
    """Without what both begin and end with: names begin alike, and no mistake is needed there."""
    shorter = min(len(one), len(other))
    begin = next((at for at in range(shorter) if one[at] != other[at]), shorter)
    left = shorter - begin
    end = next((at for at in range(left) if one[-1 - at] != other[-1 - at]), left)
    return one[begin:len(one) - end], other[begin:len(other) - end]
