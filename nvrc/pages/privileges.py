# SPDX-License-Identifier: Apache-2.0
"""The page about what each program may do, from the table that is in force. Off the boot path."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence

from nvrc.machine.calls import refused_calls
from nvrc.machine.confine import BASE_DEVICES, COVERED_OF_PROC, READ_ONLY_OF_PROC
from nvrc.machine.privileges import AGENT, PRIVILEGES
from nvrc.machine.rights import Calls, Privileges, View

_LISTS = (("BASE", BASE_DEVICES), ("LOCKED", READ_ONLY_OF_PROC), ("COVERED", COVERED_OF_PROC))
TEXT = """\
PID 1 starts every program with a row of this table. The child puts it in force between fork and exec, or before a
worker begins; a row that cannot be put in force is a program that does not start. For all of them: `no_new_privs`, no
core dumps, a session of their own, a list of system calls, and no capability but those of the row, in every set.

**Account.** The kernel lets a process look into another one, and shows it in `/proc`, only if user *and* group are the
same, or it has `CAP_SYS_PTRACE`. So each row has a group of its own, also those that the driver requires to be root.
All are in one more, 64910, which alone may write to `/dev/log` after the hand-over.

**What it sees.** A mount namespace in which all file systems are read-only, and IPC and UTS namespaces. `/proc` is a
new one that shows the program itself; in it LOCKED are read-only and COVERED are covered. `/dev` has BASE, an empty
`shm`, `log`, and what the row says; `/run` has only what the row says; `/tmp` and other scratch folders are empty and
the program's own. The network is shared: the daemons talk to each other there, as DCGM's do.

**Sockets for others.** The folder of such a program is its own. At the same path all others, the agent and the mounts
of containers among them, find a folder of root's, into which PID 1 puts a second name of the socket. So what the
program puts in the place of its socket, a link for instance, is followed by no other.

**ldconfig** makes its cache in a file system of its own, from which nothing can be executed, and leaves no process. PID
1 takes the cache if it is a plain file, and gives others its own copy.

The ldconfig of a container hook is not started by PID 1 and has narrower rules: [guest-cdi.md](guest-cdi.md).

**System calls.** A deny list, since NVIDIA's programs are closed. It answers EPERM.

**PID 1** is not dumpable: its memory, root and descriptors in `/proc/1` open for processes with `CAP_SYS_PTRACE`
alone, and those are kata-agent and the last row. Of itself and of its children it reads as before.

"""
_JUDGED = f"""\
By arguments: `clone` with flags of namespaces (`clone3` answers ENOSYS), `fcntl` and `ioctl` that name who gets the
signals of a descriptor, `fcntl` that takes a lease or a delegation of a file, `ioctl` that types into a terminal,
freezes or stops a file system, or is about the kernel's entropy, `madvise` that takes memory away as broken, sockets of
the families VSOCK and ALG, and of netlink those for events of devices and of processes, `kill` of PID 1 and of
everybody.

*{Calls.ALONE.value}*: signals to itself only, and no session of its own, which keeps its pid its own.
*{Calls.SILENT.value}*: none, for nvidia-persistenced where the driver requires root.
*{Calls.SINGLE.value}*: the same, and threads only.
*{Calls.WORKER.value}*: threads only, and signals to itself."""


def render_privileges(table: Callable[[Sequence[str], Iterable[Sequence[str]]], list[str]]) -> str:
    """`table` makes one of its head and its rows."""
    rows = [_row(row) for row in PRIVILEGES]
    head = ("program", "user:group", "capabilities", "refused calls", "sees of /run and /dev", "limits")
    calls = ", ".join(f"`{name}`" for name in sorted(refused_calls("x86_64")))
    text = TEXT
    for word, names in _LISTS:
        text = text.replace(word, ", ".join(f"`{name}`" for name in names))
    text = "\n".join(line for part in text.split("\n\n") for line in (*textwrap.wrap(part, 120), ""))
    return "\n".join([
        "# Privileges", "",
        "<!-- Written by `python -m nvrc.pages.reference`; edit the table in nvrc/machine/privileges.py instead. -->",
        "",
        text + "## The table", "", *table(head, rows), "",
        *table(("program", "why"), [*((row.name, row.why) for row in PRIVILEGES),
                                    (AGENT.name, f"keeps all that PID 1 has: {AGENT.why}")]), "",
        "## Refused system calls", "",
        *textwrap.wrap(f"By every list: {calls}.", 120), "",
        _JUDGED,
    ]) + "\n"


def _row(row: Privileges) -> Sequence[str]:
    limits = [f"{row.data_mib} MiB", f"{row.open_files} files"]
    if row.processes is not None:
        limits.append(f"{row.processes} processes")
    account = f"{row.account.uid}:{row.account.gid}"
    return (row.name, account, " ".join(f"`{name}`" for name in row.capabilities) or "none", row.calls.value,
            _sees(row.view), ", ".join(limits))


def _sees(view: View | None) -> str:
    if view is None:
        return "as PID 1"
    own = [f"writes `{folder.path}`" + "".join(f", gives `{name}` to others" for name in folder.sockets)
           for folder in view.own]
    shown = [f"reads `{path}`" for path in view.shown]
    devices = [f"`/dev/{name}*`" for name in view.devices]
    processes = ["all processes in `/proc`, with their command lines"] if view.all_processes else []
    return "; ".join([*own, *shown, *devices, *processes])
