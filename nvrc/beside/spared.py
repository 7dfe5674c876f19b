# SPDX-License-Identifier: Apache-2.0
"""What pyroute2 and psutil import of the standard library for other uses than ours, and two megabytes with it.

The image's maker writes these names in the place of those imports (build/nvrc_build/products/beside.py). Elsewhere both
packages are as they were made.
"""

from __future__ import annotations

__all__ = [
    "Any", "Callable", "Dict", "Literal", "Optional", "TypeVar", "Union", "datetime", "logging", "subprocess",
    "traceback",
]


class Any:
    """A word of an annotation, which nobody reads."""

    def __init__(self, *_about: object, **_more: object) -> None:
        """As TypeVar is called."""

    def __class_getitem__(cls, _item: object) -> type[Any]:
        return cls


Callable = Dict = Literal = Optional = Union = TypeVar = Any


class logging:  # noqa: N801
    """What a parser remarks on a message that it does not understand; the message is passed over anyway."""

    @staticmethod
    def getLogger(_name: str) -> type[logging]:  # noqa: N802
        return logging

    @staticmethod
    def warning(*_words: object) -> None:
        """Nothing is written down."""

    error = warning


class traceback:  # noqa: N801
    @staticmethod
    def format_exc() -> str:
        return ""


# Of programs that psutil starts, and of times that it prints.
datetime = subprocess = None
