# SPDX-License-Identifier: Apache-2.0
"""The CDI document of GPUs that are not attached yet: with the hook that waits for them, and held to its word later.

For nvrc.agent.early. Everything here is about documents that PID 1 has judged.
"""

from __future__ import annotations

from guest_cdi.lean.light import Iterator, Mapping, NamedTuple, Sequence
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError

ALL = "all"
UUIDS = ("GPU-", "MIG-")
# Where the sockets of daemons and NCCL's file are to be, and where containers look for them. Root's, and nobody else
# writes there; a socket is connected to through a read-only mount, too.
FOLDERS = {paths.PERSISTENCED_HOME: paths.PERSISTENCED_HOME, paths.FABRIC_RUN: paths.FABRIC_RUN,
           paths.TOPOLOGY_HOME: f"/var{paths.TOPOLOGY_HOME}"}
READ_ONLY = ("ro", "nosuid", "nodev", "noexec", "rbind", "rprivate")
PROGRAM = ("ro", "nosuid", "nodev", "bind", "rprivate")
# Of the runtime's patience beyond PID 1's own limit: who has more to say speaks first.
RUNTIME_SPARE_S = 60


class Promise(NamedTuple):
    """What containers were told: the nodes of each device by its name. `gate`: what keeps the devices shut."""

    nodes: Mapping[str, tuple[str, ...]]
    gate: int


def add_wait(document: Mapping[str, object], limit_s: int, folders: Sequence[str] = ()) -> dict[str, object]:
    """The document, with a hook that waits where the container's program would start, and what that needs there.

    Not while the container is created: kata-agent and Kata's Go runtime answer nobody else meanwhile. `folders` of
    daemons are mounted whole, as what containers find in them is yet to be made.
    """
    edits = document.get("containerEdits")
    common = dict(edits) if isinstance(edits, dict) else {}
    mounts = [_mount(paths.AWAIT, paths.AWAIT_INSIDE, PROGRAM), _mount(paths.GPUS_FOLDER, paths.GPUS_FOLDER, READ_ONLY),
              *(_mount(path, FOLDERS[path], READ_ONLY) for path in folders)]
    wait = {"hookName": "startContainer", "path": paths.AWAIT_INSIDE, "args": ["await"],
            "timeout": limit_s + RUNTIME_SPARE_S}
    return {**document, "containerEdits": {**common, "mounts": [*_list(common, "mounts"), *mounts],
                                            "hooks": [*_list(common, "hooks"), wait]}}


def _mount(source: str, target: str, options: Sequence[str]) -> dict[str, object]:
    return {"hostPath": source, "containerPath": target, "options": [*options]}


def read_nodes(document: Mapping[str, object]) -> dict[str, tuple[str, ...]]:
    """By the names that follow from the order on the bus: what a promise and what becomes of it have in common."""
    return {name: tuple(sorted(str(node["path"]) for node in _nodes(device)))
            for device in _list(document, "devices") if isinstance(device, dict)
            and (name := str(device.get("name"))) != ALL and not name.startswith(UUIDS)}


def read_majors(document: Mapping[str, object]) -> tuple[int, ...]:
    """Of every node that containers are to have."""
    owners = (document, *(device for device in _list(document, "devices") if isinstance(device, dict)))
    return tuple(sorted({major for owner in owners for node in _nodes(owner)
                         if isinstance(major := node.get("major"), int)}))


def check_kept(promise: Promise, document: Mapping[str, object]) -> None:
    """That each name stands for the same nodes: containers were given them by name."""
    found = read_nodes(document)
    wrong = sorted(name for name in promise.nodes.keys() | found.keys() if promise.nodes.get(name) != found.get(name))
    if wrong:
        told, is_now = (", ".join(list(row.get(wrong[0], ())) or ["nothing"]) for row in (promise.nodes, found))
        raise NvrcError("E_AGENT_EARLY", f"containers were promised other devices than there are: "
                                         f"{', '.join(wrong[:8])}; {wrong[0]} was {told} and is {is_now}",
                        "drop nvrc.agent.early: with MIG instances and display GPUs the names are known only after the "
                        "attach")


def _nodes(owner: Mapping[str, object]) -> Iterator[dict[str, object]]:
    edits = owner.get("containerEdits")
    rows = _list(edits if isinstance(edits, dict) else {}, "deviceNodes")
    yield from (node for node in rows if isinstance(node, dict))


def _list(owner: Mapping[str, object], key: str) -> list[object]:
    found = owner.get(key)
    return found if isinstance(found, list) else []
