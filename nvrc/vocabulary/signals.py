# SPDX-License-Identifier: Apache-2.0
"""Signals without the enumerations that the module `signal` makes of them at every start: `signal` here has its
functions and numbers, `signal_name` the names.
"""

from __future__ import annotations

from guest_cdi.lean.light import TYPE_CHECKING

__all__ = ["signal", "signal_name"]

if TYPE_CHECKING:
    import signal
else:
    import _signal as signal


def signal_name(number: int) -> str:
    """`SIGTERM`; of two names of one number the first in the alphabet, which is the usual one."""
    for name in dir(signal):
        if name.startswith("SIG") and name[3] != "_" and getattr(signal, name) == number:
            return name
    return f"signal {number}"
