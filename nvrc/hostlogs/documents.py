# SPDX-License-Identifier: Apache-2.0
"""JSON that is one document and no log: what tools of hosts and log stores print. Each text in it is a line.

Of that kind are the answers of Loki, Elasticsearch and CloudWatch, Grafana's and Google's exports, journalctl's lines
in a list, and what crictl says of a container. A record of a log stays together, as its fields say whose it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from nvrc.hostlogs.unwrap import OF_A_CONTAINER, TEXT_FIELDS

_BEGINS = re.compile(rb'(?:\xef\xbb\xbf)?\s*(?:\{\s*["}]|\[\s*[\[{"\]])')
_STREAMED = (b'"apiVersion"', b'"MESSAGE"')  # printed line by line, and read so, however long they are
_RECORD = frozenset({*TEXT_FIELDS, "vmconsole"})
MOST_RECORDS = 8  # in each other: each is a line with all that is in it
_OURS = frozenset({"schema", "services"})


def may_be_one(head: bytes) -> bool:
    """Whether a stream that begins so may be one document; if its first line is an object of several, it is a log."""
    if not _BEGINS.match(head):
        return False
    first, _, rest = head.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")
    if parse(first) is not None:
        return not rest.strip()
    return not any(word in head for word in _STREAMED)


def parse(data: bytes) -> object:
    """None for what is no JSON."""
    try:
        value: object = json.loads(data.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        return None
    return value


def is_ours(value: object, data: bytes) -> bool:
    """A report or a status of this program, whole or broken."""
    if value is None:
        return any(f'"{name}"'.encode() in data for name in _OURS)
    return isinstance(value, dict) and bool(_OURS & value.keys())


def _write(record: object) -> str:
    """Nothing of one that is nested as deep as Python just reads: to write it, it calls itself more often."""
    try:
        return json.dumps(record)
    except RecursionError:
        return ""


def _marked(state: object) -> object:
    """A container's state in a pod: its message is its own word."""
    message = state.get("message") if isinstance(state, dict) else None
    return [f"{OF_A_CONTAINER}{line}" for line in message.split("\n")] if isinstance(message, str) else state


def texts(value: object) -> Iterator[str]:
    """Lines, in the order of the document."""
    left = [(value, 0)]
    while left:
        one, above = left.pop()
        if isinstance(one, str):
            yield from one.split("\n")
        elif isinstance(one, dict):
            is_record = above < MOST_RECORDS and bool(_RECORD & one.keys())
            if is_record and (line := _write(one)):
                yield line
            left += reversed([(_marked(item) if name == "terminated" else item, above + is_record)
                              for name, item in one.items() if not (is_record and isinstance(item, str))])
        elif isinstance(one, list):
            left += [(item, above) for item in reversed(one)]
