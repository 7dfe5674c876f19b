# SPDX-License-Identifier: Apache-2.0
"""What nvidia-ml-py takes of functools, threading and string, which bring `re`, `enum` and `collections` along.

The freezer writes these names in the place of the three imports (build/nvrc_build/products/freeze.py): a worker starts
at every boot with GPUs, and they were a fifth of what it runs. Anywhere else nvidia-ml-py is as NVIDIA made it.
"""

from __future__ import annotations

import _thread

from guest_cdi.lean.light import Callable, TypeVar

__all__ = ["string", "threading", "wraps"]

Function = TypeVar("Function")


class threading:  # noqa: N801
    Lock = staticmethod(_thread.allocate_lock)


class string:  # noqa: N801
    @staticmethod
    def capwords(text: str, separator: str) -> str:
        return separator.join(word.capitalize() for word in text.split(separator))


def wraps(wrapped: object) -> Callable[[Function], Function]:
    """Names the wrapper as the function that it wraps: errors say which call was refused."""

    def rename(wrapper: Function) -> Function:
        wrapper.__name__ = wrapped.__name__  # type: ignore[attr-defined]
        return wrapper

    return rename
