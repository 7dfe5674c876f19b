# SPDX-License-Identifier: Apache-2.0
"""THE table of what each program that PID 1 starts may do; docs/privileges.md is made from it.

What a row keeps is what the program is known to need, with the reason. Those that NVIDIA's driver wants to be root are
root in name: without the capabilities of root, with a group of their own, and with nothing of the machine to write but
their own folders. NVIDIA's driver asks for CAP_SYS_ADMIN where it asks for an administrator (os_is_administrator); what
else that capability means is refused by the list of system calls.
"""

from __future__ import annotations

from guest_cdi.lean.light import TYPE_CHECKING, NamedTuple, replace
from nvrc.machine.rights import Account, Calls, Folder, Privileges, View
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError

if TYPE_CHECKING:
    from nvrc.machine.system import Files
    from nvrc.vocabulary.errors import Code

# Numbers that no image gives to anybody: Debian's policy leaves 60000 to 64999 to itself and asks before it uses one.
_FIRST = 64900
PERSISTENCED_ACCOUNT = Account(_FIRST, _FIRST)
METRICS_ACCOUNT = Account(_FIRST + 9, _FIRST + 9)
_FABRIC = Folder(paths.FABRIC_RUN, sockets=("socket",))  # that of the subnet manager is between the two

WORKER = Privileges(
    name="worker", account=Account(0, _FIRST + 1), calls=Calls.WORKER, capabilities=("CAP_SYS_ADMIN",), data_mib=2048,
    open_files=4096, view=View(
        shown=(paths.EXTENSIONS, paths.PERSISTENCED_HOME, paths.FABRIC_RUN, paths.TOPOLOGY_HOME),
        devices=("nvidia", "dri")),
    why="NVIDIA's library sets clocks, MIG and the ready state, for which the driver requires an administrator; it "
        "describes the CDI document, which PID 1 judges and writes")
LDCONFIG = Privileges(
    name="ldconfig", account=Account(0, _FIRST + 2), calls=Calls.SINGLE, data_mib=512, view=View(
        own=(Folder(paths.LDCONFIG_HOME, 0o700),), shown=(paths.EXTENSIONS,)),
    why="reads the libraries of image and extension, and makes the loader's cache of them, which PID 1 takes")
SUBNET_MANAGER = Privileges(
    name="nvlsm", account=Account(0, _FIRST + 3), calls=Calls.ALONE, capabilities=("CAP_IPC_LOCK",), data_mib=4096,
    open_files=4096, view=View(
        own=(_FABRIC,), shown=(paths.EXTENSIONS,), devices=("nvidia", "infiniband"),
        scratch=("/tmp", "/var/log", "/var/cache")),  # noqa: S108 - an empty one, of the program's own
    why="root opens /dev/infiniband/umad*, whose buffers are locked in memory; its socket is in the fabric manager's "
        "folder")
FABRIC_MANAGER = Privileges(
    name="nv-fabricmanager", account=Account(0, _FIRST + 4), calls=Calls.ALONE, capabilities=("CAP_SYS_ADMIN",),
    data_mib=4096, open_files=4096, view=View(
        own=(_FABRIC,), shown=(paths.EXTENSIONS, paths.FABRIC_CONFIG),
        devices=("nvidia", "infiniband"),
        scratch=("/tmp", "/var/log", "/var/cache")),  # noqa: S108
    why="the NVSwitch driver takes its requests from an administrator on /dev/nvidia-nvswitch*")
PERSISTENCED = Privileges(
    name="nvidia-persistenced", account=PERSISTENCED_ACCOUNT, calls=Calls.DAEMON, data_mib=1024, processes=64,
    open_files=4096, view=View(
        own=(Folder(paths.PERSISTENCED_HOME, sockets=("socket",)),), shown=(paths.EXTENSIONS,), devices=("nvidia",)),
    why="opens the GPUs and holds them, for which no right is needed; root where the driver's DeviceFileMode shuts "
        "others out")
HOST_ENGINE = Privileges(
    name="nv-hostengine", account=Account(_FIRST + 5, _FIRST + 5), calls=Calls.DAEMON, capabilities=("CAP_SYS_ADMIN",),
    data_mib=4096, open_files=4096, view=View(
        own=(Folder(paths.HOSTENGINE_HOME),), shown=(paths.EXTENSIONS, paths.PERSISTENCED_HOME), devices=("nvidia",),
        scratch=("/tmp", "/var/log")),  # noqa: S108
    why="the driver gives profiling counters to an administrator only")
EXPORTER = Privileges(
    name="dcgm-exporter", account=Account(_FIRST + 6, _FIRST + 6), calls=Calls.DAEMON, capabilities=("CAP_SYS_ADMIN",),
    data_mib=4096, open_files=4096, view=View(
        own=(Folder(paths.EXPORTER_HOME),), shown=(paths.EXTENSIONS, paths.PERSISTENCED_HOME), devices=("nvidia",),
        scratch=("/tmp", "/var/log")),  # noqa: S108
    why="carries the library of the host engine, with the same counters")
METRICS = Privileges(
    name="nvrc-metrics", account=METRICS_ACCOUNT, calls=Calls.DAEMON, data_mib=256, processes=64, open_files=128,
    small_pages=True,
    view=View(shown=(paths.REPORT, paths.CONTROL, paths.EXTENSIONS, paths.PERSISTENCED_HOME), devices=("nvidia",),
              all_processes=True),
    why="our own code; PID 1 gives it the report of the boot and answers it; GPUs and the guest are read, for which no "
        "right is needed; root where the driver's DeviceFileMode shuts others out")
LAST_WORDS = Privileges(
    name="last-words", account=Account(0, _FIRST + 7), calls=Calls.DAEMON, data_mib=512, view=None,
    capabilities=("CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE"),
    why="our own code; it writes termination messages below the agent's root, to files of any owner, before the end")
DOCUMENTS = Privileges(
    name="documents", account=Account(0, _FIRST + 8), calls=Calls.WORKER, data_mib=512,
    view=View(own=(Folder(paths.CDI_RUN),)),
    why="our own code, with no library of NVIDIA's; it writes the CDI documents of network functions")
VERIFIER = Privileges(
    name="verifier", account=Account(_FIRST + 11, _FIRST + 11), calls=Calls.ALONE, data_mib=1024, open_files=1024,
    view=View(own=(Folder(paths.VERIFIER_HOME, 0o700),), shown=(), devices=()),
    why="a program of the image that judges evidence; it needs what PID 1 gives it, and files of the image")

PRIVILEGES = (WORKER, LDCONFIG, SUBNET_MANAGER, FABRIC_MANAGER, PERSISTENCED, HOST_ENGINE, EXPORTER, METRICS,
              LAST_WORDS, DOCUMENTS, VERIFIER)


def as_root(privileges: Privileges) -> Privileges:
    """The row of a program that the driver wants to be root (its parameter DeviceFileMode). The kernel lets one user
    send signals to all that is the same user's, the agent among it, so one that needs none may send none.
    """
    calls = Calls.SILENT if privileges is PERSISTENCED else privileges.calls
    return replace(privileges, account=Account(0, privileges.account.gid), calls=calls)


class Kept(NamedTuple):
    """A program that keeps what PID 1 has, and why."""

    name: str
    why: str


AGENT = Kept("kata-agent", "it makes containers: mounts, namespaces, device nodes, cgroups, users and their "
                           "capabilities, each of which takes the right to it; it hands rights down and cannot hand "
                           "down what it lacks. It has a PID and a mount namespace of its own and an environment that "
                           "PID 1 writes")


def prepare(system: Files, privileges: Privileges, code: Code) -> None:
    """Make the folders that the program writes, its own; NvrcError with `code` where that is not possible."""
    uid, gid = privileges.account
    for folder in privileges.view.own if privileges.view else ():
        try:
            if folder.sockets:
                system.make_dir(paths.RUN, 0o700)
                system.make_dir(folder.path)
            system.make_dir(folder.place, folder.mode)
            system.set_owner(folder.place, uid, gid, folder.mode)
        except OSError as err:
            raise NvrcError(code, f"cannot make {folder.path}: {err.strerror}",
                            "if /run is full, give the VM more memory") from err


def hand_out(system: Files, privileges: Privileges, code: Code) -> None:
    """Put the sockets that the program has made by now where others look for them; NvrcError where one is none.

    A second name of the very socket: what its first name leads to later is nothing to it.
    """
    for folder in privileges.view.own if privileges.view else ():
        for name in folder.sockets:
            try:
                system.share_socket(f"{folder.place}/{name}", f"{folder.path}/{name}")
            except FileNotFoundError:
                continue
            except OSError as err:
                raise NvrcError(code, f"cannot give {folder.path}/{name} to other programs: {err.strerror}") from err
