# SPDX-License-Identifier: Apache-2.0
"""The fabric manager's configuration for this boot: the stock file with our items, for where the driver's files are.

A line whose text starts with `KEY=` is replaced as a whole, every such line; a missing key is appended; all other
lines stay as they are. The fabric manager ends with status 0 over an item it dislikes, so every path in the result
is checked before it starts.
"""

from __future__ import annotations

import posixpath

from guest_cdi.lean.light import Mapping
from nvrc.machine.system import Files
from nvrc.params.values import FabricMode, RailPolicy
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError

STOCK = "/usr/share/nvidia/nvswitch/fabricmanager.cfg"
TOPOLOGY = "/usr/share/nvidia/nvswitch"
LIMIT = 1 << 16
# What the daemon writes, kept where a read-only root does not matter. The socket is what containers can be given.
WRITTEN = {
    "LOG_FILE_NAME": f"{paths.FABRIC_RUN}/fabricmanager.log",
    "STATE_FILE_NAME": f"{paths.FABRIC_RUN}/fabricmanager.state",
    "FM_CMD_UNIX_SOCKET_PATH": f"{paths.FABRIC_RUN}/socket",
}
# The daemon makes these itself as well; wherever they are set to, their folder has to be there.
ALSO_WRITTEN = ("UNIX_SOCKET_PATH", "PID_FILE_PATH", "FM_SM_IPC_INTERFACE")


def write_config(system: Files, root: str, mode: FabricMode, rail: RailPolicy) -> None:
    """Render the configuration to /run, or E_FABRIC_CONFIG with every item that cannot work."""
    stock = _read_stock(system, root + STOCK)
    text = edit(stock, {
        "FABRIC_MODE": mode.value,
        "PARTITION_RAIL_POLICY": rail.value,
        "DAEMONIZE": "0",
        "LOG_USE_SYSLOG": "1",
        "TOPOLOGY_FILE_PATH": items(stock).get("TOPOLOGY_FILE_PATH") or TOPOLOGY,
        **WRITTEN,
    })
    text, missing = relocate(system, text, root)
    if missing:
        raise NvrcError("E_FABRIC_CONFIG", f"{root}{STOCK}: " + "; ".join(missing))
    try:
        system.make_dir(paths.FABRIC_RUN, 0o755)
        system.publish(paths.FABRIC_CONFIG, text.encode("utf-8", "surrogateescape"), 0o400)
    except OSError as err:
        raise NvrcError("E_RUN_FULL", f"cannot write {paths.FABRIC_CONFIG}: {err.strerror}") from err


def _read_stock(system: Files, path: str) -> str:
    try:
        return system.read(path, LIMIT).decode("utf-8", "surrogateescape")
    except OSError as err:
        raise NvrcError("E_FABRIC_CONFIG", f"cannot read {path}: {err.strerror}",
                        "install the fabric manager's package, which has the file") from err


def edit(text: str, changes: Mapping[str, str]) -> str:
    """The text with these items, each once for every time it was there, or at the end."""
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    for key, value in changes.items():
        here = [number for number, line in enumerate(lines) if line.strip().startswith(f"{key}=")]
        for number in here:
            lines[number] = f"{key}={value}"
        if not here:
            lines.append(f"{key}={value}")
    return "\n".join(lines) + "\n"


def items(text: str) -> dict[str, str]:
    """Key to value of every item; the last one holds."""
    pairs = (line.strip().partition("=") for line in text.split("\n") if not line.strip().startswith("#"))
    return {key.strip(): value.strip() for key, is_item, value in pairs if is_item}


def relocate(system: Files, text: str, root: str) -> tuple[str, tuple[str, ...]]:
    """Paths below `root` where the driver's files are there; and a sentence per path that leads nowhere."""
    missing: list[str] = []
    for key, value in items(text).items():
        if not value.startswith("/"):
            continue
        if key in WRITTEN or key in ALSO_WRITTEN:
            folder = posixpath.dirname(value)
            if folder != paths.FABRIC_RUN and not system.exists(folder):
                missing.append(f"{key}={value}: there is no {folder} to write to")
            continue
        found = _find(system, value, root)
        if found is None:
            missing.append(f"{key}={value} does not exist" + (f", nor below {root}" if root else ""))
        elif found != value:
            text = edit(text, {key: found})
    return text, tuple(missing)


def _find(system: Files, path: str, root: str) -> str | None:
    """The extension's own copy before one of the base image, which may be an empty folder."""
    candidates = (path,) if not root or path.startswith(f"{root}/") else (root + path, path)
    return next((one for one in candidates if system.exists(one)), None)
