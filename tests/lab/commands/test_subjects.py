# SPDX-License-Identifier: Apache-2.0
"""What lint says of commits: subjects, bodies, and histories that cannot be judged."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from nvrc_lab.commands.subjects import FIRST, Commit, judge, parse_history, read_history, since_first

BODY = "It was seen, and so."
CASES = {
    "as it should be": ("lab: look at commits", BODY, []),
    "two areas": ("lab, factory: look at commits", BODY, []),
    "a path as area": ("tests/lab: look at commits", BODY, []),
    "capitals in the area": ("PR template: look", BODY, ["the subject is not 'area: imperative, lower case'"]),
    "a name in capitals may begin": ("lab: NVML fails late", BODY, []),
    "72 characters": ("lab: " + "x" * 67, BODY, []),
    "73 characters": ("lab: " + "x" * 68, BODY, ["the subject has 73 characters; shorten it to 72"]),
    "no area": ("look at commits", BODY, ["the subject is not 'area: imperative, lower case'; name the area that it changes"]),
    "no blank": ("lab:look", BODY, ["the subject is not 'area: imperative, lower case'"]),
    "a sentence": ("lab: Look at commits", BODY, ["begin with a lower-case verb after the area"]),
    "a full stop": ("lab: look at commits.", BODY, ["end the subject without a full stop"]),
    "no body": ("lab: look at commits", "", ["has no body; say what was seen and why this way"]),
    "all at once": ("Look.", "", ["the subject is not", "end the subject", "has no body"]),
    "left over": ("fixup! lab: look", "", ["is to be folded into another"]),
}


@pytest.mark.parametrize(("subject", "body", "expected"), CASES.values(), ids=CASES)
def test_every_mistake_of_a_commit_is_told(subject: str, body: str, expected: list[str]) -> None:
    found = list(judge(Commit(name="abc1234", subject=subject, body=body)))
    assert len(found) == len(expected)
    for line, words in zip(found, expected, strict=True):
        assert line.startswith(f"commit abc1234 {subject!r}: ")
        assert words in line


def commit(root: Path, *words: str) -> None:
    env = {"PATH": "/usr/bin:/bin", "HOME": str(root), "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.org",
           "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.org", "GIT_CONFIG_GLOBAL": "/dev/null"}
    subprocess.run(["git", *words], cwd=root, env=env, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    commit(tmp_path, "init", "-q", "-b", "main")
    commit(tmp_path, "commit", "-q", "--allow-empty", "-m", "Old words")
    commit(tmp_path, "commit", "-q", "--allow-empty", "-m", FIRST, "-m", "One\n\ntwo")
    commit(tmp_path, "commit", "-q", "--allow-empty", "-m", "lab: next")
    return tmp_path


def test_history_is_judged_from_the_first_commit_on(repository: Path) -> None:
    history = read_history(repository)
    assert history is not None
    commits = since_first(history)
    assert commits is not None
    assert [(one.subject, one.body) for one in commits] == [("lab: next", ""), (FIRST, "One\n\ntwo")]
    assert [line.partition(": has")[2] for one in commits for line in judge(one)] == [
        " no body; say what was seen and why this way"]


def test_merges_are_exempt(repository: Path) -> None:
    commit(repository, "checkout", "-q", "-b", "side", "HEAD~1")
    commit(repository, "commit", "-q", "--allow-empty", "-m", "lab: aside")
    commit(repository, "merge", "-q", "--no-ff", "-m", "Merge", "main")
    assert sorted(one.subject for one in read_history(repository) or ()) == ["Old words", "lab: aside", "lab: next", FIRST]


def test_a_shallow_clone_and_a_tarball_have_nothing_to_judge(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    shallow, tarball = tmp_path_factory.mktemp("shallow"), tmp_path_factory.mktemp("tarball")
    commit(shallow, "clone", "-q", "--depth=1", f"file://{repository}", ".")
    history = read_history(shallow)
    assert history is not None
    assert [one.subject for one in history] == ["lab: next"]
    assert since_first(history) is None
    assert read_history(tarball) is None


def test_output_of_git_without_a_commit_is_an_empty_history() -> None:
    assert tuple(parse_history("")) == ()
