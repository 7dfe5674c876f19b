# SPDX-License-Identifier: Apache-2.0
"""Whether a line was said by a daemon itself: by its own pipe, or by a process that comes from the one started for it.

The kernel tells the sender's pid, user and group with each datagram on /dev/log. The right user alone is not enough:
some daemons are root, and so are many containers. Nor is the pid: with CAP_SYS_ADMIN a daemon may write any into its
datagram. The group is each row's own, and no row may write another one. A daemon that went into the background by
forking twice has PID 1 as its parent; then its PID file names it, or before there is one, its command line and a start
that was not before the service's. Follows proc(5) and unix(7).
"""

from __future__ import annotations

from guest_cdi.lean.light import TYPE_CHECKING, NamedTuple, dataclass

if TYPE_CHECKING:
    from nvrc.machine.journal import Line
    from nvrc.machine.program import Program
    from nvrc.machine.system import Files
    from nvrc.services.table import Service

DEEPEST = 8
TICKS_PER_S = 100   # USER_HZ, the same on every architecture of this kernel
SLACK_S = 0.05      # between the clock of a service's start and the kernel's, which counts ticks


@dataclass(slots=True)
class Speaker:
    """Who may speak as a service: what was started of it, and when. `born_s`: of that very process, as the kernel says.

    A pid alone is not enough: that of a process which was reaped is given to others. `believed`: pid and start of the
    one whose descent was looked at last, as most of what a service says is said by one process.
    """

    service: Service
    program: Program
    started_pid: int
    since_s: float
    born_s: float | None
    believed: tuple[int, float] | None = None


class _Process(NamedTuple):
    parent: int
    started_s: float


def introduce(system: Files, service: Service, program: Program, pid: int, since_s: float) -> Speaker:
    """Of what has just been started and not been reaped: so long its pid is nobody else's."""
    found = _read(system, pid)
    return Speaker(service, program, pid, since_s, found.started_s if found else None)


def speaks_for(system: Files, line: Line, speaker: Speaker) -> bool:
    """Asked when a line is used, because then the process that said it is there, and written down if it is ours."""
    if line.source:
        return line.source == speaker.service.name
    row = speaker.program.privileges
    if row is None or (line.uid, line.gid) != row.account or line.pid <= 0:
        return False
    found = _read(system, line.pid)
    if found is None:
        return False
    one = line.pid, found.started_s
    if one not in (speaker.believed, (speaker.started_pid, speaker.born_s)):
        if not _is_descendant(system, line.pid, found, speaker):
            return False
        speaker.believed = one
    return True


def _is_started(system: Files, speaker: Speaker) -> bool:
    """Whether the process that was started is still what has its pid."""
    found = _read(system, speaker.started_pid)
    return found is not None and found.started_s == speaker.born_s


def _is_descendant(system: Files, pid: int, found: _Process, speaker: Speaker) -> bool:
    from nvrc.services.table import read_pid

    if found.started_s < speaker.since_s - SLACK_S:
        return False
    process = found
    for _ in range(DEEPEST):
        if process.parent == speaker.started_pid:
            return _is_started(system, speaker)
        if process.parent <= 1:
            break
        above = _read(system, process.parent)
        if above is None:  # it ended between two looks, so whoever was below it has another parent now
            again = _read(system, pid)
            if again is None or again.started_s != found.started_s:
                return False
            found = above = again
        process = above
    if found.parent != 1:
        return False
    is_named = bool(speaker.service.pid_file) and read_pid(system, speaker.service) == pid
    return is_named or _command(system, pid) == speaker.program.path


def _read(system: Files, pid: int) -> _Process | None:
    """From /proc/PID/stat; the name in it may hold anything, so fields count from behind its last bracket."""
    try:
        fields = system.read(f"/proc/{pid}/stat", 4096).rpartition(b")")[2].split()
        return _Process(int(fields[1]), int(fields[19]) / TICKS_PER_S)
    except (OSError, ValueError, IndexError):
        return None


def _command(system: Files, pid: int) -> str:
    try:
        return system.read(f"/proc/{pid}/cmdline", 4096).partition(b"\0")[0].decode("utf-8", "replace")
    except OSError:
        return ""
