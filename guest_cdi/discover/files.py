# SPDX-License-Identifier: Apache-2.0
"""Firmware, programs and sockets of the driver: files that are mounted where they are, without links or hooks."""

from __future__ import annotations

from guest_cdi.discover.driver import READ_ONLY, Driver, Found
from guest_cdi.discover.tree import Tree
from guest_cdi.host import Host, read_file
from guest_cdi.lean.light import Iterable, Iterator
from guest_cdi.spec import ContainerEdits, Mount

FIRMWARE_PARAMETER = "/sys/module/firmware_class/parameters/path"

PROGRAM_DIRS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
PROGRAMS = ("nvidia-smi", "nvidia-debugdump", "nvidia-persistenced", "nvidia-cuda-mps-control",
            "nvidia-cuda-mps-server", "nvidia-imex", "nvidia-imex-ctl")

# No "ro": connecting to a socket needs write permission. Nothing behind it is to be executed.
IPC_OPTIONS = ("nosuid", "nodev", "rbind", "rprivate", "noexec")
SOCKET_DIRS = ("/run", "/var/run")
SOCKETS = ("nvidia-persistenced/socket", "nvidia-fabricmanager/socket")
MPS = "tmp/nvidia-mps"
# Where NCCL looks for the machine without being told to.
TOPOLOGY = "/run/nvidia-topologyd/virtualTopology.xml"


def find_firmware(driver: Driver) -> Found:
    pattern = f"nvidia/{driver.version}/gsp*.bin"
    paths = dict.fromkeys(driver.tree.find(_firmware_dirs(driver), pattern))
    return Found(edits=ContainerEdits(mounts=tuple(driver.bind(path) for path in paths)),
                 missing=() if paths else (pattern,))


def _firmware_dirs(driver: Driver) -> tuple[str, ...]:
    """The kernel's own search order (drivers/base/firmware_loader)."""
    release = driver.kernel_release
    return (*_custom_firmware_dirs(driver.tree.host), f"/lib/firmware/updates/{release}", "/lib/firmware/updates",
            f"/lib/firmware/{release}", "/lib/firmware")


def _custom_firmware_dirs(host: Host) -> tuple[str, ...]:
    try:
        value = read_file(host, FIRMWARE_PARAMETER).decode(errors="surrogateescape").strip()
    except OSError:
        return ()
    return tuple(part for part in value.split(":") if part and "\0" not in part)


def find_programs(driver: Driver) -> Found:
    return find_named_programs(driver, PROGRAMS)


def find_named_programs(driver: Driver, names: Iterable[str]) -> Found:
    """The first executable of each name; links stay links, since /bin itself may be one."""
    paths = {name: locate_program(driver.tree, name) for name in names}
    return Found(edits=ContainerEdits(mounts=tuple(driver.bind(path) for path in paths.values() if path)),
                 missing=tuple(name for name, path in paths.items() if not path))


def locate_program(tree: Tree, name: str) -> str | None:
    candidates = (tree.place(f"{directory}/{name}") for directory in PROGRAM_DIRS)
    return next((path for path in candidates if tree.is_executable(path)), None)


def find_sockets(driver: Driver) -> Found:
    if not driver.sockets:
        return Found()
    mounts = {name: next(_locate_socket(driver, name), None) for name in (*SOCKETS, MPS)}
    return Found(edits=ContainerEdits(mounts=tuple(mount for mount in mounts.values() if mount)),
                 missing=tuple(name for name, mount in mounts.items() if not mount))


def find_topology(driver: Driver) -> Found:
    """The machine in NCCL's format, where something has written it. The reference knows no such file."""
    host = driver.tree.host
    if not driver.strict or not Tree(host).is_file(TOPOLOGY):
        return Found()
    mount = Mount(host_path=TOPOLOGY, container_path=f"/var{TOPOLOGY}", options=(*READ_ONLY, "noexec"))
    return Found(edits=ContainerEdits(mounts=(mount,)))


def _locate_socket(driver: Driver, name: str) -> Iterator[Mount]:
    """Below the driver root, as the reference does, and then where daemons make their sockets: in /run of the machine.

    With the driver in an extension image the first place never has one.
    """
    directories = ("/",) if name == MPS else SOCKET_DIRS
    options = (*READ_ONLY, "noexec") if driver.release.ipc_read_only else IPC_OPTIONS
    for path in driver.tree.find(directories, name):
        yield driver.bind(path, options)
    if driver.strict and driver.tree.root and name != MPS:
        for path in Tree(driver.tree.host).find(directories, name):
            yield Mount(host_path=path, container_path=path, options=options)
