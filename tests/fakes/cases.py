# SPDX-License-Identifier: Apache-2.0
"""A row of a table within one test: a failure names it.

A test of its own takes pytest a thousand times what most rows take. Rows with folders, fixtures or marks are parameters.
"""

from __future__ import annotations

from types import TracebackType


class Case:
    def __init__(self, *name: object) -> None:
        self.name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: type[BaseException] | None, wrong: BaseException | None, _where: TracebackType | None) -> None:
        if wrong is not None:
            wrong.add_note(f"in the case {' '.join(map(ascii, self.name))}")
