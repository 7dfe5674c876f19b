# SPDX-License-Identifier: Apache-2.0
"""A good Kata host of which one file says something else, without a file system: its answers were recorded once."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from fakes.kata_host import make_host
from nvrc.preflight.host import Document, Host
from nvrc.preflight.row import Row
from nvrc.preflight.rows import ROWS

# All that a host is asked, and what it answers where nothing is.
ABSENT = {"place": None, "read": None, "listing": (), "link": None, "is_link": False, "is_socket": False, "is_file": False,
          "block": None, "register": None}
Asked = tuple[object, ...]
Documents = dict[tuple[Callable[[bytes], Document], bytes], Document]


@dataclass(frozen=True)
class GoodHost:
    """`readers`: of each file the rows that read it."""

    node: bytes
    answers: Mapping[Asked, object]
    documents: Documents
    readers: Mapping[str, tuple[Row, ...]]

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(self.readers)

    def ask(self, path: str, _data: bytes) -> tuple[Row, ...]:
        return self.readers[path]

    def but(self, path: str, data: bytes) -> Host:
        host = Host("/proc/self/fdinfo", self.node)  # an empty folder, whatever is asked of it past these
        host._documents = self.documents.copy()
        for name, nothing in ABSENT.items():
            setattr(host, name, partial(self._answer, name, nothing, path, data))
        return host

    def _answer(self, name: str, nothing: object, path: str, data: bytes, *asked: object) -> object:
        if name == "read" and asked == (path,):
            return data
        if name == "block" and asked[:1] == (path,):
            return data[slice(asked[1], asked[1] + asked[2])]  # type: ignore[operator]
        return self.answers.get((name, *asked), nothing)


@cache
def good_host() -> GoodHost:
    with tempfile.TemporaryDirectory() as folder:
        node = make_host(Path(folder)).node_json()
        answers, documents, readers = dict[Asked, object](), Documents(), dict[str, list[Row]]()
        for row in ROWS:
            host, asked = Host(folder, node), dict[Asked, object]()
            for name in ABSENT:
                setattr(host, name, partial(_record, asked, name, getattr(host, name)))
            list(row.judge(host))
            for path in dict.fromkeys(str(path) for name, path, *_ in asked if name in ("read", "block")):
                readers.setdefault(path, []).append(row)
            answers |= asked
            documents |= host._documents
    # One GPU's files are as another's; one that is there is worth more than one that is not.
    alike = {path.rpartition("/")[2]: path for path in sorted(readers, key=lambda path: bool(answers.get(("read", path))))}
    return GoodHost(node, answers, documents, {path: tuple(readers[path]) for path in sorted(alike.values())})


def _record(answers: dict[Asked, object], name: str, ask: Callable[..., object], *asked: object) -> object:
    answers[name, *asked] = found = ask(*asked)
    return found
