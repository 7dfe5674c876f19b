# SPDX-License-Identifier: Apache-2.0
"""From the OCI state of a container to the path of its root directory.

The state and the bundle come from the runtime, not from the container, and are believed as far as they are well formed.
Follows "State" and "Root" of the OCI runtime specification, and the "root" member that some runtimes add.
"""

from __future__ import annotations

import os

from guest_cdi.lean.errors import CdiError
from guest_cdi.lean.jsonvalue import read_json
from guest_cdi.lean.light import BinaryIO, Callable

STATE_LIMIT_BYTES = 16 << 20
CONFIG_LIMIT_BYTES = 64 << 20


def container_root(state_file: str, stdin: BinaryIO) -> str:
    """The absolute path of the container's root directory; state_file is empty for standard input."""
    state = _members(_state_text(state_file, stdin), state_file or "the OCI state on standard input")
    bundle = _text(state, "bundle", "the OCI state")
    root = _text(state, "root", "the OCI state") or _configured_root(bundle)
    path = os.path.join(bundle, root)
    if not os.path.isabs(path):
        raise _state_error(f"the container root {path!r} is not an absolute path")
    return path


def _state_text(state_file: str, stdin: BinaryIO) -> bytes:
    if state_file:
        return _read(state_file, STATE_LIMIT_BYTES)
    return _bounded(stdin, STATE_LIMIT_BYTES, "standard input")


def _configured_root(bundle: str) -> str:
    if not bundle:
        raise _state_error("the OCI state names no bundle")
    path = os.path.join(bundle, "config.json")
    root = _members(_read(path, CONFIG_LIMIT_BYTES, _open_now), path).get("root")
    found = _text(root, "path", f"root in {path}") if isinstance(root, dict) else ""
    if not found:
        raise _state_error(f"{path} has no root.path")
    return found


def _read(path: str, limit_bytes: int, opener: Callable[[str, int], int] | None = None) -> bytes:
    try:
        with open(path, "rb", opener=opener) as stream:
            return _bounded(stream, limit_bytes, path)
    except (OSError, ValueError) as err:  # ValueError: a NUL or a lone surrogate in the name
        raise _state_error(f"{path!r} cannot be read: {err}") from err


def _open_now(path: str, flags: int) -> int:
    """A bundle's pipe that nobody writes to is empty, and not waited for."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def _bounded(stream: BinaryIO, limit_bytes: int, about: str) -> bytes:
    data = stream.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise _state_error(f"{about} is larger than {limit_bytes >> 20} MiB")
    return data


def _members(text: bytes, about: str) -> dict[str, object]:
    try:
        value = read_json(text)
    except ValueError as err:
        raise _state_error(f"{about} is not JSON: {err}") from err
    if not isinstance(value, dict):
        raise _state_error(f"{about} is not a JSON object")
    return value


def _text(members: dict[str, object], key: str, about: str) -> str:
    value = members.get(key, "")
    if not isinstance(value, str):
        raise _state_error(f"{key!r} of {about} is not a string")
    return value


def _state_error(what: str) -> CdiError:
    return CdiError("E_CDI_HOOK_STATE", what)
