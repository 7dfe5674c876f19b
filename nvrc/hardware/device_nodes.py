# SPDX-License-Identifier: Apache-2.0
"""The character devices of NVIDIA's driver, which registers numbers but makes no node: devtmpfs stays empty.

Numbers come from what the driver registered (/proc/devices, its own procfs), never from a table; modes and owners from
its parameters, because NVIDIA's libraries would change other ones back. With ModifyDeviceFiles=0 those libraries make
nothing, so the nodes are made all the same. A node that is right stays; anything else under its name is refused,
because nobody but us has a reason to make one. Nothing here opens a device.
"""

from __future__ import annotations

import stat

from guest_cdi.lean.light import Callable, Mapping, NamedTuple
from nvrc.machine.system import Files, Node, System
from nvrc.vocabulary import paths
from nvrc.vocabulary.digits import is_number
from nvrc.vocabulary.errors import NvrcError

PARAMS = f"{paths.NVIDIA_PROC}/params"
SWITCHES = "/proc/driver/nvidia-nvswitch"
NVLINK = "/proc/driver/nvidia-nvlink"
CAPABILITIES = (f"{paths.NVIDIA_PROC}/capabilities", f"{NVLINK}/capabilities")
CAPS_FOLDER = "/dev/nvidia-caps"
IMEX_FOLDER = "/dev/nvidia-caps-imex-channels"
_GPU_MAJOR = ("nvidia", "nvidia-frontend")
_GPU_MINORS = 254    # 254 and 255 of the same major are nvidia-modeset and nvidiactl
_LAST_MINOR = (1 << 20) - 1
_LAST_ID = (1 << 32) - 2
_DEEPEST = 8         # gpu0/mig/gi0/ci0/access needs five


class Wanted(NamedTuple):
    path: str
    node: Node


class Fixed(NamedTuple):
    """A node with a minor of its own. It is made if `when` says so, and then its major must be registered."""

    path: str
    majors: tuple[str, ...]
    minor: int
    when: Callable[[Files, Mapping[str, int]], bool]
    owner: str = PARAMS


def _always(_system: Files, _majors: Mapping[str, int]) -> bool:
    return True


def _registered(name: str) -> Callable[[Files, Mapping[str, int]], bool]:
    return lambda _system, majors: name in majors


FIXED = (
    Fixed("/dev/nvidiactl", ("nvidiactl", *_GPU_MAJOR), 255, _always),
    # nvidia.ko itself registers the name nvidia-modeset; the node is for the module of that name.
    Fixed("/dev/nvidia-modeset", ("nvidia-modeset", *_GPU_MAJOR), 254,
          lambda system, _majors: system.exists("/sys/module/nvidia_modeset")),
    Fixed("/dev/nvidia-uvm", ("nvidia-uvm",), 0, _registered("nvidia-uvm")),
    Fixed("/dev/nvidia-uvm-tools", ("nvidia-uvm",), 1, _registered("nvidia-uvm")),
    Fixed("/dev/nvidia-nvlink", ("nvidia-nvlink",), 0, _registered("nvidia-nvlink"), f"{NVLINK}/permissions"),
    Fixed("/dev/nvidia-nvswitchctl", ("nvidia-nvswitch",), 255,
          lambda system, _majors: bool(_switches(system)), f"{SWITCHES}/permissions"),
    # devtmpfs makes this one itself where the kernel module created the device.
    Fixed(f"{IMEX_FOLDER}/channel0", ("nvidia-caps-imex-channels",), 0,
          lambda system, _majors: _values(system, PARAMS).get("CreateImexChannel0") == "1"),
)


def make_nodes(system: System, gpus: tuple[str, ...]) -> tuple[str, ...]:
    """Every node that the loaded driver has numbers for; `gpus` are the bus ids that must be among them."""
    driver = _Driver(system)
    wanted = [*(driver.node(row.path, row.majors, row.minor, row.owner) for row in FIXED
                if row.when(system, driver.majors)),
              *_gpu_nodes(driver, gpus), *_switch_nodes(driver), *_capability_nodes(driver)]
    return _make(system, wanted)


def make_capability_nodes(system: System) -> tuple[str, ...]:
    """The nodes of capabilities alone: to be called again when the MIG layout has changed.

    Nodes of instances that are gone stay: the driver refuses them, and their numbers are never another instance's.
    """
    return _make(system, _capability_nodes(_Driver(system)))


def read_majors(system: Files) -> Mapping[str, int]:
    """Name to major of the character devices; the first of several equal names."""
    characters, _, _ = _text(system, paths.PROC_DEVICES).partition("Block devices:")
    found: dict[str, int] = {}
    for line in characters.splitlines():
        match line.split():
            case [number, name] if is_number(number, 10):
                found.setdefault(name, int(number))
    return found


class _Driver:
    """What the driver registered, and what its files say of modes and owners, each of them read once."""

    def __init__(self, system: Files) -> None:
        self.system = system
        self.majors = read_majors(system)
        self._owners: dict[str, tuple[int, int, int]] = {}

    def major(self, names: tuple[str, ...], what: str) -> int:
        for name in names:
            if name in self.majors:
                return self.majors[name]
        raise NvrcError("E_DEVICE_NODES", f"no number for {what}: {paths.PROC_DEVICES} lists no character device "
                        f"{' or '.join(names)}")

    def node(self, path: str, names: tuple[str, ...], minor: int, owner: str) -> Wanted:
        mode, uid, gid = self._owner(owner)
        return Wanted(path, Node(stat.S_IFCHR | mode, self.major(names, path), minor, uid, gid))

    def _owner(self, path: str) -> tuple[int, int, int]:
        """Mode, uid and gid; the driver's own defaults for what the file does not say."""
        if path not in self._owners:
            values = {"DeviceFileMode": "438", "DeviceFileUID": "0", "DeviceFileGID": "0", **_values(self.system, path)}
            self._owners[path] = (_number(values, "DeviceFileMode", path, 0o777),
                                  _number(values, "DeviceFileUID", path, _LAST_ID),
                                  _number(values, "DeviceFileGID", path, _LAST_ID))
        return self._owners[path]


def _gpu_nodes(driver: _Driver, gpus: tuple[str, ...]) -> list[Wanted]:
    minors: dict[int, str] = {}
    for bdf in gpus:
        path = f"{paths.NVIDIA_PROC}/gpus/{bdf}/information"
        given = _values(driver.system, path).get("Device Minor", "")
        if not is_number(given, 10) or int(given) >= _GPU_MINORS:
            raise NvrcError("E_DEVICE_NODES", f"{path}: Device Minor is {given[:40]!a}, not 0 to {_GPU_MINORS - 1}")
        if other := minors.get(int(given)):
            raise NvrcError("E_DEVICE_NODES", f"{bdf} and {other} both have Device Minor {int(given)}")
        minors[int(given)] = bdf
    return [driver.node(f"/dev/nvidia{minor}", _GPU_MAJOR, minor, PARAMS) for minor in minors]


def _switch_nodes(driver: _Driver) -> list[Wanted]:
    """Counted from 0 in the order of the bus, which is how the driver gives their minors."""
    return [driver.node(f"/dev/nvidia-nvswitch{number}", ("nvidia-nvswitch",), number, f"{SWITCHES}/permissions")
            for number, _ in enumerate(_switches(driver.system))]


def _capability_nodes(driver: _Driver) -> list[Wanted]:
    return [_capability(driver, path) for root in CAPABILITIES for path in _files_below(driver.system, root)]


def _capability(driver: _Driver, path: str) -> Wanted:
    values = _values(driver.system, path)
    minor = _number(values, "DeviceFileMinor", path, _LAST_MINOR)
    mode = _number(values, "DeviceFileMode", path, 0o777)
    major = driver.major(("nvidia-caps",), path)
    return Wanted(f"{CAPS_FOLDER}/nvidia-cap{minor}", Node(stat.S_IFCHR | mode, major, minor))


def _switches(system: Files) -> tuple[str, ...]:
    return _names(system, f"{SWITCHES}/devices")


def _make(system: System, wanted: list[Wanted]) -> tuple[str, ...]:
    """All or nothing, as far as looking first can make it so."""
    wrong = [trouble for want in wanted if (trouble := _in_the_way(system, want))]
    if wrong:
        raise NvrcError("E_DEVICE_NODES", "; ".join(wrong), "find what makes device nodes in this image and remove it: "
                        "the numbers belong to the driver that is loaded now")
    for folder in sorted({want.path.rpartition("/")[0] for want in wanted} - {"/dev"}):
        system.make_dir(folder)
    for path, node in wanted:
        try:
            system.make_node(path, node)
        except OSError as err:
            raise NvrcError("E_DEVICE_NODES", f"cannot make {path} ({node.major}:{node.minor}): {err.strerror}",
                            "make /dev a writable file system without the option nodev") from err
    return tuple(want.path for want in wanted)


def _in_the_way(system: Files, want: Wanted) -> str:
    found = system.find_node(want.path)
    if found is None:
        return ""
    if not stat.S_ISCHR(found.mode):
        return f"{want.path} exists and is not a character device"
    if found[1:3] == want.node[1:3]:
        return ""
    return (f"{want.path} exists with numbers {found.major}:{found.minor}, "
            f"the driver has {want.node.major}:{want.node.minor}")


def _number(values: Mapping[str, str], name: str, path: str, highest: int) -> int:
    given = values.get(name, "")
    if not is_number(given, 10) or int(given) > highest:
        raise NvrcError("E_DEVICE_NODES", f"{path}: {name} is {given[:40]!a}, not 0 to {highest}")
    return int(given)


def _values(system: Files, path: str) -> Mapping[str, str]:
    """`Name: value` lines of one of the driver's files."""
    pairs = (line.partition(":") for line in _text(system, path).splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _text(system: Files, path: str) -> str:
    try:
        return system.read(path, 1 << 16).decode("utf-8", "replace")
    except OSError as err:
        raise NvrcError("E_DEVICE_NODES", f"{path}: {err.strerror}") from err


def _names(system: Files, folder: str) -> tuple[str, ...]:
    try:
        return system.list_dir(folder)
    except FileNotFoundError:
        return ()
    except OSError as err:
        raise NvrcError("E_DEVICE_NODES", f"{folder}: {err.strerror}") from err


def _files_below(system: Files, folder: str, depth: int = 0) -> list[str]:
    try:
        names = system.list_dir(folder)
    except NotADirectoryError:
        return [folder]
    except FileNotFoundError:
        return []
    except OSError as err:
        raise NvrcError("E_DEVICE_NODES", f"{folder}: {err.strerror}") from err
    if depth == _DEEPEST:
        raise NvrcError("E_DEVICE_NODES", f"{folder}: capabilities are nested deeper than {_DEEPEST}")
    return [path for name in names for path in _files_below(system, f"{folder}/{name}", depth + 1)]
