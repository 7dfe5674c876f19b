# SPDX-License-Identifier: Apache-2.0
"""What one console has told, while it streams by: the last boot's steps, verdicts, warnings, and others' lines."""

from __future__ import annotations

import re

from nvrc.report.evidence import LINE_LIMIT, Evidence
from nvrc.vocabulary.transcript import EndLine, ReadyLine, StepLine, WarningLine, parse_line, read_trouble
from nvrc.vocabulary.trouble import Trouble

MOST_STEPS, MOST_WARNINGS, MOST_VERDICTS = 64, 100, 64
_BOOT_STARTS = re.compile(r"(\[ *0\.000000\](?:\[ *[TC][0-9]+\])? )?Linux version [0-9]")
# What the interpreter, an init that is not ours, or the kernel says when it gives up.
# A record of the kernel's log: then this is a console, whoever else has written to it.
_KERNEL = re.compile(r"(?:<[0-9]{1,3}>)?\[ *[0-9]+\.[0-9]{6}\]")
_LAST_WORDS = re.compile(r"Fatal Python error: .*|NVRC panic: .*|Kernel panic - not syncing: .*")

Verdict = ReadyLine | Trouble | EndLine


class ConsoleStory:
    """What the last boot on one console has said so far. Bounded: a log may be of any length, and hostile."""

    def __init__(self) -> None:
        self.has_kernel = self._has_time = False
        self._restart()

    def _restart(self) -> None:
        self.steps: list[StepLine] = []
        self.warnings: list[str] = []
        self.troubles: list[Trouble] = []
        self.more_warnings = 0
        self.verdicts: list[Verdict] = []
        self.ready: ReadyLine | None = None
        self.end: EndLine | Trouble | None = None
        self.last_words = ""
        self.agent_words = ""
        self.evidence = Evidence()

    @property
    def is_ours(self) -> bool:
        return bool(self.steps or self.warnings or self.ready or self.end or self.last_words)

    def hear(self, text: str) -> None:
        begins = _BOOT_STARTS.match(text)
        # Where the kernel's lines have its time, one without is another's, who would have us forget what was said.
        if begins and (begins[1] or not self._has_time):
            self._restart()
            self.has_kernel, self._has_time = True, bool(begins[1])
            return
        match parse_line(text):
            case StepLine() as step:
                if len(self.steps) < MOST_STEPS:
                    self.steps.append(step)
            case WarningLine(text=warning):
                self._warn(warning)
            case ReadyLine() as ready:
                self.ready = self.ready or (None if self.verdicts else ready)
                self._note(ready)
            case EndLine() | Trouble() as end:
                # The first verdict counts: what comes after a fatal line is the way down.
                self.end = self.end or end
                self._note(end)
            case _:
                self._hear_others(text)

    def _note(self, verdict: Verdict) -> None:
        if len(self.verdicts) < MOST_VERDICTS:
            self.verdicts.append(verdict)

    def hear_agent(self, text: str) -> None:
        """An error of the agent: its last one says why it gave up."""
        self.agent_words = text[:LINE_LIMIT]

    def _warn(self, warning: str) -> None:
        if (trouble := read_trouble(warning)).code and len(self.troubles) < MOST_WARNINGS:
            self.troubles.append(trouble)
        if len(self.warnings) < MOST_WARNINGS:
            self.warnings.append(warning)
        else:
            self.more_warnings += 1

    def _hear_others(self, text: str) -> None:
        is_timed = _KERNEL.match(text) is not None
        self.has_kernel, self._has_time = self.has_kernel or is_timed, self._has_time or is_timed
        if not self.last_words and (found := _LAST_WORDS.search(text.rstrip("\r\n"))):
            self.last_words = found[0][:LINE_LIMIT]
        self.evidence.hear(text)

    @property
    def mode(self) -> str:
        if self.ready is not None:
            return self.ready.mode
        return next((step.detail.partition(":")[0] for step in self.steps if step.name == "topology"), "")

    @property
    def confidential(self) -> str:
        return next((step.detail for step in self.steps if step.name == "cc-check"), "")
