# SPDX-License-Identifier: Apache-2.0
"""PID 1: runs the boot table, hands over to the agent, looks after the VM, and ends it. Never returns.

Whatever goes wrong ends in one line on the console and the table in nvrc.pid1.ending; never in
the kernel's panic about a dead init.
"""

from __future__ import annotations

from guest_cdi.lean.light import TYPE_CHECKING, Callable, NoReturn
from nvrc.boot import BOOT
from nvrc.engine.table import Table
from nvrc.machine.linux_system import LinuxSystem
from nvrc.machine.system import System
from nvrc.pid1.crash import hold_standard_descriptors, tell, tell_uncaught
from nvrc.pid1.init import Init
from nvrc.vocabulary.errors import make_trouble

if TYPE_CHECKING:
    from nvrc.vocabulary.ending import Ending


def main() -> NoReturn:
    """The real thing, on the real machine."""
    hold_standard_descriptors()
    run(LinuxSystem(), BOOT)


def run(system: System, table: Table, last: Callable[[], None] = lambda: None) -> NoReturn:
    """From the first mount to the end of the machine. `last` is called when all is said, before the power goes."""
    system.forbid_tracing()
    tell_uncaught(system)
    init: Init | None = None
    try:
        init = Init(system, table)
        ending: Ending = init.live()
    except BaseException as err:
        ending = make_trouble("E_INTERNAL", tell(err), step="pid1")
    try:
        from nvrc.pid1.ending import Stage, end  # nobody pays for it before

        end(Stage(system=system, ending=ending, init=init, last=last))
    finally:
        system.power_off()
