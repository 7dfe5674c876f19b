# SPDX-License-Identifier: Apache-2.0
"""What this guest is: its host name, whom ctrl-alt-del goes to, and the agent it is there to run.

The name is the first word of /etc/hostname, `localhost` without one, as kata-agent does it in init mode. That the
agent is present is asked here, before minutes of hardware work, not after.
"""

from __future__ import annotations

from nvrc.engine.facts import Facts
from nvrc.engine.table import SHORT, nothing
from nvrc.machine.system import Files, System
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError

LONGEST = 64  # __NEW_UTS_LEN


deadline_s, tell = SHORT, nothing


def run(system: System, facts: Facts) -> Facts:
    _check_agent(system)
    name = _first_word(system) or "localhost"
    if len(name) > LONGEST or not name.isascii() or not name.isprintable():
        raise NvrcError("E_IDENTITY", f"{paths.HOSTNAME} holds no host name: {name[:80]!r}")
    try:
        system.set_hostname(name)
        system.write(paths.CTRL_ALT_DEL, b"0")  # to PID 1 as SIGINT, instead of an immediate restart
    except OSError as err:
        what = f"cannot set the host name {name!r} or take ctrl-alt-del: {err.strerror}"
        raise NvrcError("E_IDENTITY", what) from err
    return facts


def _first_word(system: Files) -> str:
    try:
        words = system.read(paths.HOSTNAME, 4096).decode("ascii", "replace").split()
    except FileNotFoundError:
        return ""
    except OSError as err:
        raise NvrcError("E_IDENTITY", f"cannot read {paths.HOSTNAME}: {err.strerror}") from err
    return words[0] if words else ""


def _check_agent(system: Files) -> None:
    if not system.exists(paths.AGENT):
        raise NvrcError("E_AGENT_MISSING", f"{paths.AGENT} does not exist")
    if not system.exists(paths.AGENT, executable=True):
        raise NvrcError("E_AGENT_MISSING", f"{paths.AGENT} is not an executable file",
                        f"make {paths.AGENT} a regular file with mode 755 in the image")
