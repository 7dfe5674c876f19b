# SPDX-License-Identifier: Apache-2.0
"""Subjects and bodies of commits, for `./dev lint`: what CONTRIBUTING.md asks of them, since the rule is held.

Read from git as it lies here. A tree without git, or a clone too shallow to reach the first of them, is told and
passes: there is nothing to judge. Merges are exempt, as git words them.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nvrc_lab.ground.places import checkout

# The first commit that is held to the rule; what came before stays as it was written.
FIRST = "tree: give modules rooms"
LONGEST = 72
# `area: imperative, lower case`; several areas are parted by commas.
_SUBJECT = re.compile(r"[a-z0-9][\w./ -]*(, ?[\w./ -]+)*: (?P<text>\S.*)")
_END, _PART = "\x1e", "\x1f"
_FORMAT = f"%h{_PART}%s{_PART}%b{_END}"
# Words that other tools write; each is gone before anything is merged.
_FIXUPS = ("fixup!", "squash!", "amend!")


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    name: str
    subject: str
    body: str


def main() -> int:
    history = read_history(checkout().root)
    if history is None:
        print("commits: not looked at, this tree is not a git checkout")
        return 0
    commits = since_first(history)
    if commits is None:
        print(f"commits: not looked at, {FIRST!r} is not in this history; a shallow clone ends before it")
        return 0
    mistakes = [mistake for commit in commits for mistake in judge(commit)]
    print("\n".join(mistakes) or f"commits: {len(commits)} have a subject and a body as CONTRIBUTING.md asks")
    return 1 if mistakes else 0


def read_history(root: Path) -> tuple[Commit, ...] | None:
    """Newest first, without merges; None where git has no history of this folder."""
    argv = ["git", "-C", str(root), "log", "--no-merges", f"--format={_FORMAT}"]
    # A checkout inside somebody else's repository is not that repository's.
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                              errors="replace")
    except OSError:
        return None
    return tuple(parse_history(done.stdout)) if done.returncode == 0 else None


def parse_history(text: str) -> Iterator[Commit]:
    for entry in text.split(_END):
        name, first, rest = entry.strip("\n").partition(_PART)
        subject, second, body = rest.partition(_PART)
        if first and second:
            yield Commit(name=name, subject=subject, body=body.strip())


def since_first(history: Sequence[Commit]) -> tuple[Commit, ...] | None:
    """From HEAD down to the first commit that is held to the rule; None where it is not there."""
    place = next((at for at, commit in enumerate(history) if commit.subject == FIRST), None)
    return None if place is None else tuple(history[:place + 1])


def judge(commit: Commit) -> Iterator[str]:
    """Every mistake of one commit, each with what to do."""
    where = f"commit {commit.name} {commit.subject!r}"
    if commit.subject.startswith(_FIXUPS):
        yield f"{where}: is to be folded into another; run git rebase --autosquash"
        return
    if len(commit.subject) > LONGEST:
        yield f"{where}: the subject has {len(commit.subject)} characters; shorten it to {LONGEST}"
    found = _SUBJECT.fullmatch(commit.subject)
    if found is None:
        yield f"{where}: the subject is not 'area: imperative, lower case'; name the area that it changes"
    elif _is_capitalised(found["text"]):
        yield f"{where}: begin with a lower-case verb after the area"
    if commit.subject.endswith("."):
        yield f"{where}: end the subject without a full stop"
    if not commit.body:
        yield f"{where}: has no body; say what was seen and why this way"


def _is_capitalised(text: str) -> bool:
    """Whether a sentence begins; names such as NVML or E_CDI are written as they are."""
    word = text.split(maxsplit=1)[0]
    return word[0].isupper() and word[1:].islower()


if __name__ == "__main__":
    sys.exit(main())
