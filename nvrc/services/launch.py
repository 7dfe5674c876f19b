# SPDX-License-Identifier: Apache-2.0
"""Starts a daemon and waits until it is ready: it said so itself after its start, or left a daemon and ended well.

An end that is not part of that is a failure whatever the status: nv-fabricmanager ends with 0 over a configuration
item it dislikes. Messages carry the daemon's last words, and what is known about them.
"""

from __future__ import annotations

from guest_cdi.lean.light import TYPE_CHECKING, Mapping, deque
from nvrc.machine.journal import Journal
from nvrc.machine.privileges import hand_out
from nvrc.machine.system import Files, System
from nvrc.machine.wait import ChildEnded, Events, OverdueError
from nvrc.services.lineage import Speaker, introduce, speaks_for
from nvrc.services.table import Running, Service, find_daemon, start
from nvrc.vocabulary.errors import NvrcError

if TYPE_CHECKING:
    Words = deque[str]

KILLED = ("give the VM more memory: the kernel killed it, probably out of memory; reset the GPU that the daemon worked "
          "on from the host if it does not attach")
MOST_WORDS = 2048  # of what was said, the newest
LAST_WORDS_S = 0.3  # for lines that were sent before a process ended and are read after


def new_words() -> Words:
    """For the lines that a message or an explanation may take from."""
    return deque(maxlen=MOST_WORDS)


def launch(system: System, service: Service, limit_s: float, *, root: str, journal: Journal | None,
           values: Mapping[str, str] | None = None) -> Running:
    """`root`: what the paths of the driver's files begin with; `journal`: where the daemon's lines are heard."""
    with Events(system, limit_s, journal) as events:
        program, pid = start(system, service, root, events.ended, values)
        said = new_words()
        try:
            wait_until_ready(system, introduce(system, service, program, pid, events.started_s), events, said)
        except OverdueError as overdue:
            if not has_ready_path(system, service):
                raise _overdue(service, overdue, said) from overdue
    hand_out(system, service.privileges, service.code)
    daemon = find_daemon(system, service) if service.pid_file else pid
    return Running(service=service, program=program, started_pid=pid, pid=daemon, since_s=events.started_s)


def wait_until_ready(system: Files, speaker: Speaker, events: Events, said: Words) -> None:
    service = speaker.service
    while True:
        event = events.take()
        if isinstance(event, ChildEnded):
            if service.pid_file and event.is_success:
                return
            raise ended_early(service, event, events, said)
        said.append(event.text)
        is_marked = bool(service.marker) and service.marker in event.text
        if (is_marked or has_ready_path(system, service)) and speaks_for(system, event, speaker):
            return


def has_ready_path(system: Files, service: Service) -> bool:
    return bool(service.ready_path) and system.exists(service.ready_path)


def ended_early(service: Service, end: ChildEnded, events: Events, said: Words) -> NvrcError:
    """Why the daemon ended before it was ready, with the words that are still under way."""
    from nvrc.services.signatures import enrich  # a boot that goes well never reads them

    said += [event.text for event in events.within(LAST_WORDS_S) if not isinstance(event, ChildEnded)]
    what = f"{service.name} {end.text()} {events.waited_s:.1f} s after its start, before it was ready"
    return enrich(NvrcError(service.code, what + quote(service, said), KILLED if end.is_killed else "",
                            service=service.name), said)


def _overdue(service: Service, overdue: OverdueError, said: Words) -> NvrcError:
    from nvrc.services.signatures import explain

    found = explain(said)
    what = f"{service.name} was not ready {overdue.waited_s:.1f} s after its start"
    return NvrcError(service.stall_code, what + quote(service, said), found.advice if found else "",
                     service=service.name)


def quote(service: Service, said: Words) -> str:
    """The daemon's newest own line, for the end of a message."""
    own = [text.partition(service.name)[2].partition(": ")[2] for text in said if service.name in text]
    return f"; its last message: {own[-1]}" if own else "; it printed nothing"
