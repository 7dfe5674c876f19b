# SPDX-License-Identifier: Apache-2.0
"""What a preflight leaves for a fleet: a file for node_exporter's textfile collector, and a condition of the node.

Each is put in place by one rename. The patch is of the node's status, as `kubectl patch --patch-file` takes it.
"""

from __future__ import annotations

import contextlib
import json
import os
import time

from nvrc.preflight.preflight import Preflight
from nvrc.preflight.row import State

METRICS, CONDITION, KIND = "nvrc_preflight.prom", "nvrc_condition.json", "NvrcPreflight"
FAMILIES = (
    ("nvrc_preflight_state", "1 for the state of a condition of the host, 0 for each other."),
    ("nvrc_preflight_good", "1 if no condition of the host is missing."),
    ("nvrc_preflight_time_seconds", "When the host was judged, in seconds of the epoch."),
)
MESSAGE_LIMIT = 1024


def metrics(found: Preflight, now_s: float) -> str:
    states = [
        (f'row="{result.row.name}",state="{state.value}"', int(result.state is state))
        for result in found.results
        for state in State
    ]
    values = {
        "nvrc_preflight_state": states,
        "nvrc_preflight_good": [("", int(found.is_good))],
        "nvrc_preflight_time_seconds": [("", int(now_s))],
    }
    lines = []
    for name, text in FAMILIES:
        lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge"]
        lines += [f"{name}{f'{{{labels}}}' if labels else ''} {value}" for labels, value in values[name]]
    return "\n".join(lines) + "\n"


def condition(found: Preflight, now_s: float) -> str:
    """`Unknown` on a machine that is not a Kata host; a warning alone does not make it False."""
    bad = [result for result in found.results if result.state is State.BAD]
    told = "; ".join(
        f"{result.row.name}: {one.what}" for result in bad for one in result.judgements if one.state is State.BAD
    )
    status = "Unknown" if not found.is_kata_host else "False" if bad else "True"
    reason = {"Unknown": "NotAKataHost", "False": "ConditionsMissing", "True": "ConditionsMet"}[status]
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_s))
    return (
        json.dumps(
            {
                "status": {
                    "conditions": [
                        {
                            "type": KIND,
                            "status": status,
                            "reason": reason,
                            "message": told[:MESSAGE_LIMIT],
                            "lastHeartbeatTime": stamp,
                        }
                    ]
                }
            }
        )
        + "\n"
    )


def export(found: Preflight, folder: str, now_s: float) -> None:
    for name, text in ((METRICS, metrics(found, now_s)), (CONDITION, condition(found, now_s))):
        _put(folder, name, text)


def _put(folder: str, name: str, text: str) -> None:
    """The folder may be another account's, as node_exporter's is: what lies there is never written to."""
    unfinished = f"{folder}/.{name}.{os.getpid()}"
    if os.path.lexists(unfinished):  # of one that was killed
        os.unlink(unfinished)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)
        os.rename(unfinished, f"{folder}/{name}")
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unfinished)
        raise
