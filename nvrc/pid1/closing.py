# SPDX-License-Identifier: Apache-2.0
"""Stops the daemons before the machine's power goes: asked first, last started first, then killed when time is up.

After a failed boot as well as at the end of a life. A daemon that its step did not finish starting is not among them:
nvidia-persistenced at work on a GPU is never ended by a signal.
"""

from __future__ import annotations

from guest_cdi.lean.light import Iterable
from nvrc.engine.executor import unforeseen
from nvrc.engine.facts import Facts
from nvrc.machine.loop import Loop
from nvrc.machine.system import Kernel, System
from nvrc.pid1.daemons import Daemons
from nvrc.vocabulary import console

KILL_DEADLINE_S = 5.0


def stop_daemons(system: System, loop: Loop, daemons: Daemons, limit_s: float) -> None:
    """Ends of children are told to `daemons` by the reaper meanwhile. Nothing that goes wrong here is raised."""
    try:
        daemons.stop()
        _wait(system, loop, daemons, limit_s)
        if daemons.is_any_alive:
            names = ", ".join(one.name for one in daemons.records if one.pid is not None)
            system.say(console.warning_line(f"{names} did not stop within {limit_s:g} s"))
            daemons.kill()
            _wait(system, loop, daemons, KILL_DEADLINE_S)
    except Exception as err:
        system.say(console.warning_line(f"supervision: {unforeseen(err)}"))


def _wait(system: Kernel, loop: Loop, daemons: Daemons, limit_s: float) -> None:
    until_s = system.now() + limit_s
    loop.at(until_s, lambda: None)
    loop.run(lambda: not daemons.is_any_alive or system.now() >= until_s)


def daemons_of(system: System, facts: Facts, ended: Iterable[tuple[int, int]]) -> Daemons:
    """Those that a boot had brought up when it failed, less those that `ended` meanwhile. They are only stopped."""
    daemons = Daemons(system, facts.services, is_confidential=True, is_strict=False,
                      later=lambda _after_s, _act: None, changed=lambda _news: None)
    for child in ended:
        daemons.child_ended(*child)
    return daemons
