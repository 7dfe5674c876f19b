# SPDX-License-Identifier: Apache-2.0
"""The command line of a hook, on which who writes a CDI document, who judges one and the hook program must agree."""

from __future__ import annotations

from guest_cdi.lean.light import Sequence

HOOK_PROGRAM = "nvidia-cdi-hook"
# Several hooks in one start, parted by the separator: our own, the reference has no such hook.
RUN = "run"
SEPARATOR = "--"


def split_calls(words: Sequence[str]) -> list[list[str]]:
    """The words of each hook: of one, or of several after RUN."""
    if words[:1] != [RUN]:
        return [list(words)]
    calls: list[list[str]] = [[]]
    for word in words[1:]:
        if word == SEPARATOR:
            calls.append([])
        else:
            calls[-1].append(word)
    return calls
