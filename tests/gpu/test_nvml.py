# SPDX-License-Identifier: Apache-2.0
"""Real NVML, asked by the worker that a boot uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest

from gpu.gathered import Json

pytestmark = pytest.mark.gpu

QUESTIONS = ("gpus", "again", "cc")


def told(facts: Json, question: str) -> Json:
    return cast("Json", cast("Json", facts["nvml"])[question])


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_is_answered(facts: Json, question: str) -> None:
    found = told(facts, question)
    assert "answer" in found, f"{found.get('code')} {found.get('what')}"


def test_the_ready_state_is_answered_or_not_supported(facts: Json) -> None:
    found = told(facts, "ready")
    assert "answer" in found or "NVML_ERROR_NOT_SUPPORTED" in str(found["what"]), found["what"]


def test_gpus_answer_with_one_identity_each(facts: Json) -> None:
    gpus = cast("Sequence[Json]", told(facts, "gpus")["answer"])
    assert gpus and [gpu for gpu in gpus if gpu["error"]] == []
    for name in ("bdf", "uuid", "minor", "number"):
        assert len({str(gpu[name]) for gpu in gpus}) == len(gpus), name


def test_nvml_and_proc_speak_of_the_same_gpus(facts: Json) -> None:
    gpus = cast("Sequence[Json]", told(facts, "gpus")["answer"])
    proc = cast("dict[str, str]", facts["proc"])
    for gpu in gpus:
        text = proc[f"/proc/driver/nvidia/gpus/{gpu['bdf']}/information"]
        assert str(gpu["uuid"]) in text
        assert f"Device Minor: \t {gpu['minor']}" in text


def test_an_open_library_answers_within_the_patience_of_a_boot(facts: Json) -> None:
    assert float(str(told(facts, "again")["took_ms"])) < 1000.0
