# SPDX-License-Identifier: Apache-2.0
"""Reports and status of schema 1 in the form of schema 2, for what was kept. Never imported at boot.

Schema 1 had its troubles as sentences, some of which began with a code, and nothing of what the boot found out about
GPUs. Whatever is not as schema 1 has it stays as it is, for the reader to name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeGuard

from nvrc.vocabulary.transcript import read_trouble

_NOWHERE = {"gpu": "", "uuid": "", "service": "", "path": ""}
_NOT_KNOWN: Mapping[str, object] = {"settings": [], "mig": [], "nics": [], "fabric": [], "places": [], "pairs": [],
                                   "cdi": None,
                                   "ready": None, "policy": ""}
_FAILURE = frozenset({"code", "step", "what", "hint"})


def raise_report(document: Mapping[str, object]) -> dict[str, object]:
    return _raise({**document, **_NOT_KNOWN, "confidential": _confidential(document.get("steps"))})


def _confidential(steps: object) -> dict[str, object] | None:
    """The mode was told in the detail of its step only."""
    rows = steps if isinstance(steps, list) else []
    modes = [row["detail"] for row in rows if isinstance(row, dict) and row.get("name") == "cc-check"
             and row.get("outcome") == "ok" and isinstance(row.get("detail"), str)]
    return {"mode": modes[0], "why": "step cc-check"} if modes else None


def raise_status(document: Mapping[str, object]) -> dict[str, object]:
    changed = _raise({"notes": [], "xids": [], "ready": "", **document})
    degraded_by = document.get("degraded_by")
    if isinstance(degraded_by, list):
        changed["degraded_by"] = [_place(one) for one in degraded_by]
    return changed


def _raise(document: dict[str, object]) -> dict[str, object]:
    changed = {**document, "schema": 2}
    if "failure" in document:
        changed["failure"] = _place(document["failure"])
    warnings, notes = document.get("warnings"), document.get("notes")
    if _is_text(warnings) and _is_text(notes):
        del changed["warnings"]
        told = [read_trouble(text) for text in warnings]
        changed["troubles"] = [{**_NOWHERE, "code": one.code, "step": one.step, "what": one.what, "hint": one.hint,
                                "gpu": one.gpu, "uuid": one.uuid} for one in told if one.code]
        changed["notes"] = [*notes, *(one.what for one in told if not one.code)]
    return changed


def _is_text(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _place(failure: object) -> object:
    return {**failure, **_NOWHERE} if isinstance(failure, dict) and failure.keys() == _FAILURE else failure
