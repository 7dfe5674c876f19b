# SPDX-License-Identifier: Apache-2.0
"""System calls by number: by a function of the frozen program (build/nvrc_build/products/frozen/kernel.c), as PID 1 and
every hook start and ctypes was a tenth of that; anywhere else by ctypes.

    call(number, *arguments)         what the kernel returns, an error as a negative number; other threads run meanwhile
    call_locked(number, *arguments)  the same with the interpreter held: the child of a clone has no other thread that
                                     could give it back
    address(data)                    of bytes that the caller keeps, for structures with pointers
    give_back()                      of memory, what was needed once; the collector of garbage has to have run before
"""

from __future__ import annotations

from guest_cdi.lean.light import TYPE_CHECKING

__all__ = ["address", "call", "call_locked", "give_back"]

if TYPE_CHECKING:
    from guest_cdi.lean.by_ctypes import address, call, call_locked, give_back
else:
    try:
        from _kernel import address, call, call_locked, give_back
    except ImportError:
        from guest_cdi.lean.by_ctypes import address, call, call_locked, give_back
