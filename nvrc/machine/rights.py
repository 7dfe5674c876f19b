# SPDX-License-Identifier: Apache-2.0
"""What a process that PID 1 starts may do, as a value: account, capabilities, system calls, what it sees, limits.

`confine` puts it in force in the child. Which program has which row is said in nvrc/machine/privileges.py.
"""

from __future__ import annotations

from guest_cdi.lean.light import Enum, NamedTuple, dataclass
from nvrc.vocabulary import paths

MIB = 1 << 20


class Account(NamedTuple):
    """User and group. The kernel lets a process look into another one only if both are the same, so
    programs that have to be root have a group of their own.
    """

    uid: int
    gid: int


class Calls(Enum):
    """Which list of system calls is refused. What every list refuses is in nvrc/machine/calls.py."""

    DAEMON = "privileged ones"
    ALONE = "privileged ones, signals to others"
    SILENT = "privileged ones, signals"
    SINGLE = "privileged ones, signals to others, new processes"
    WORKER = "privileged ones, signals to others, new processes and programs"


class Folder(NamedTuple):
    """A folder below /run that PID 1 makes for the program, and that the program may write.

    With `sockets`, the program alone has its own folder there. All others find one of root's at the same path, into
    which PID 1 puts those sockets: what the program makes of the names in its own is nothing that others follow.
    """

    path: str
    mode: int = 0o755
    sockets: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """Where the program's own is for PID 1."""
        return f"{paths.RUN}/{self.path.rpartition('/')[2]}" if self.sockets else self.path


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What of the machine is there: all file systems read-only, but /proc, /dev, /run and scratch folders of its own.

    `own` are folders to write below /run, `shown` what else is there of /run, to read; `devices` begin the names in
    /dev that are there beside null, zero, full, random and urandom. `all_processes`: /proc shows that others
    exist, what they use, and their names and command lines; nothing else of what is in them.
    """

    own: tuple[Folder, ...] = ()
    shown: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    scratch: tuple[str, ...] = ("/tmp",)  # noqa: S108 - an empty one, of the program's own
    all_processes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Privileges:
    """One program's row. `data_mib` bounds its memory (RLIMIT_DATA), `processes` those of its user (RLIMIT_NPROC), from
    which the kernel spares root and whoever has CAP_SYS_ADMIN.

    Nothing can be gained back: no_new_privs is set for all, core dumps are off. Without a `view` it sees the machine
    as PID 1 does. `small_pages`: the kernel gives it no pages of 2 MiB, of which a small program uses a part.
    """

    name: str
    account: Account
    calls: Calls
    view: View | None
    data_mib: int
    capabilities: tuple[str, ...] = ()
    open_files: int = 1024
    processes: int | None = None
    small_pages: bool = False
    why: str = ""
