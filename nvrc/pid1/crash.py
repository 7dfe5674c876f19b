# SPDX-License-Identifier: Apache-2.0
"""What nobody caught, on the console: errors in threads and destructors, and faults of the interpreter itself.

A fault such as SIGSEGV cannot be survived: the kernel panics about its init, and `panic=1` on its command line ends the
machine. What can be done is to say which Python code ran, and faulthandler does that straight to the console.
"""

from __future__ import annotations

import os
import sys
from types import TracebackType

from guest_cdi.lean.light import TYPE_CHECKING
from nvrc.engine.executor import unforeseen
from nvrc.machine.system import Console
from nvrc.vocabulary import console

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

STANDARD_ERROR = 2
IGNORED = "Exception ignored in "


def hold_standard_descriptors() -> None:
    """Without a console the kernel starts its init with none of 0, 1 and 2; what is opened next must not be those."""
    while (descriptor := os.open("/", os.O_RDONLY)) <= STANDARD_ERROR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def tell_uncaught(system: Console) -> None:
    """Errors that Python would print to standard error, and programs would miss, become lines of the console."""
    import faulthandler

    def unraisable(found: UnraisableHookArgs) -> None:
        error = found.exc_value or found.exc_type
        # Of a thread Python 3.13 gives no object, but a sentence with it.
        where = repr(found.object) if found.object is not None else (found.err_msg or "").removeprefix(IGNORED)
        system.say(console.warning_line(f"uncaught in {where}: {tell(error)}"))

    def uncaught(_kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
        system.say(console.warning_line(f"uncaught: {tell(error)}"))

    sys.unraisablehook = unraisable  # threads of the executor end here as well
    sys.excepthook = uncaught
    faulthandler.enable(STANDARD_ERROR)


def tell(error: BaseException | type[BaseException]) -> str:
    """The error in words, even when it cannot print itself."""
    try:
        return unforeseen(error) if isinstance(error, BaseException) else error.__name__
    except Exception:
        return type(error).__name__
