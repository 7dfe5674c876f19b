# SPDX-License-Identifier: Apache-2.0
"""Whether the CDI document that the worker describes names nothing but what containers are to be given.

The document tells the agent what to mount into containers and what to execute for them, with every right. It is made in
a process with NVIDIA's library in it, so PID 1 takes its parts for claims: nodes are compared with those in /dev,
sources of mounts lie where the driver's files and sockets are, hooks are the one program for them, with what it is to
do in the container that it was started for. Unknown keys are refused.
"""

from __future__ import annotations

from guest_cdi.lean.hookwords import HOOK_PROGRAM, split_calls
from guest_cdi.lean.light import TYPE_CHECKING, Callable, Iterable, Iterator, Mapping, Sequence
from nvrc.machine.system import Files
from nvrc.nvml.identity import quoted
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError

if TYPE_CHECKING:
    from nvrc.vocabulary.errors import Code

CODE: Code = "E_NVML_DOCUMENT"
KIND, MOST_TOLD, LONGEST_HOOK_S = "nvidia.com/gpu", 4, 60
# What a hook may be told. Never --container-spec, which has it work in another folder of the guest with every right.
LDCONFIG = "--ldconfig-path"
HOOKS: Mapping[str, tuple[str, ...]] = {
    "create-symlinks": ("--link",), "update-ldcache": (LDCONFIG, "--folder"), "chmod": ("--mode", "--path"),
    "enable-cuda-compat": ("--host-driver-version", "--host-cuda-version", "--cuda-compat-container-root"),
    "disable-device-node-modification": (), "update-application-profile": (),
}
# Of the image, whose root is read-only, and of extensions, which are verified; then what daemons keep for containers.
PROGRAMS = ("/usr/", "/bin/", "/opt/", f"{paths.EXTENSIONS}/")
SOURCES = (*PROGRAMS, "/lib/", "/lib64/", "/sbin/", "/etc/", "/var/lib/nvidia/", f"{paths.PERSISTENCED_HOME}/",
           f"{paths.FABRIC_RUN}/", f"{paths.TOPOLOGY_HOME}/", "/tmp/nvidia-mps")  # noqa: S108 - what the reference mounts where it exists
NODES = ("/dev/nvidia", "/dev/dri/")
OPTIONS = frozenset({"ro", "nosuid", "nodev", "noexec", "rbind", "bind", "rprivate", "private"})
WITH_WRITING = f"{paths.PERSISTENCED_HOME}/", f"{paths.FABRIC_RUN}/", "/tmp/nvidia-mps"  # noqa: S108
_DOCUMENT = {"cdiVersion": str, "kind": str, "devices": list, "containerEdits": dict}
_DEVICE = {"name": str, "containerEdits": dict}
_EDITS = {"env": list, "deviceNodes": list, "mounts": list, "hooks": list, "additionalGids": list}
_NODE = {"path": str, "hostPath": str, "type": str, "major": int, "minor": int, "fileMode": int, "permissions": str,
         "uid": int, "gid": int}
_MOUNT = {"hostPath": str, "containerPath": str, "options": list, "type": str}
_HOOK = {"hookName": str, "path": str, "args": list, "env": list, "timeout": int}


def check_document(files: Files, document: object) -> Mapping[str, object]:
    """The document, or NvrcError with what is wrong in it."""
    wrong = list(_faults(files, document))
    if wrong or not isinstance(document, dict):
        more = f"; and {len(wrong) - MOST_TOLD} more" if len(wrong) > MOST_TOLD else ""
        raise NvrcError(CODE, f"the CDI document would give containers what they must not have: "
                              f"{'; '.join(wrong[:MOST_TOLD])}{more}")
    return document


def _faults(files: Files, document: object) -> Iterator[str]:
    yield from _shape("the document", document, _DOCUMENT)
    if not isinstance(document, dict):
        return
    if document.get("kind") != KIND:
        yield f"it is of the kind {quoted(str(document.get('kind')))}"
    # A device has two names, and `all` has the nodes of each. As texts: in a list many take long, and True is 1.
    judged: set[str] = set()
    devices = document.get("devices")
    for device in devices if isinstance(devices, list) else ():
        yield from _shape("a device", device, _DEVICE)
        if isinstance(device, dict) and (text := repr(edits := device.get("containerEdits", {}))) not in judged:
            judged.add(text)
            yield from _edits(files, edits, judged)
    yield from _edits(files, document.get("containerEdits", {}), judged)


def _edits(files: Files, edits: object, judged: set[str]) -> Iterator[str]:
    yield from _shape("an edit", edits, _EDITS)
    if not isinstance(edits, dict):
        return
    yield from _each("deviceNodes", _NODE, _new_nodes(edits, judged), lambda row: _node(files, row))
    yield from _each("mounts", _MOUNT, _list(edits, "mounts"), _mount)
    yield from _each("hooks", _HOOK, _list(edits, "hooks"), _hook)
    yield from (f"the variable {quoted(str(word))}" for word in _list(edits, "env")
                if not (isinstance(word, str) and word.startswith("NVIDIA_") and word.isprintable()))
    yield from (f"the group {quoted(str(group))}" for group in _list(edits, "additionalGids")
                if type(group) is not int or group <= 0)


def _new_nodes(edits: Mapping[str, object], judged: set[str]) -> Iterator[object]:
    for row in _list(edits, "deviceNodes"):
        if (text := f"node {row!r}") not in judged:
            judged.add(text)
            yield row


def _each(key: str, shape: Mapping[str, type], rows: Iterable[object],
          judge: Callable[[Mapping[str, object]], Iterator[str]]) -> Iterator[str]:
    for row in rows:
        wrong = list(_shape(f"an item of {key}", row, shape))
        yield from wrong
        if isinstance(row, dict) and not wrong:
            yield from judge(row)


def _list(edits: Mapping[str, object], key: str) -> list[object]:
    found = edits.get(key, [])
    return found if isinstance(found, list) else []


def _shape(name: str, value: object, keys: Mapping[str, type]) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{name} is not a mapping"
        return
    for key, item in value.items():
        if key not in keys or type(item) is not keys[key]:
            yield f"{name} has {quoted(str(key))}: {quoted(str(item))}"


def _node(files: Files, row: Mapping[str, object]) -> Iterator[str]:
    path = str(row.get("path", ""))
    place = str(row.get("hostPath", path))
    if not (_lies(path, NODES) and (place == path or _lies(place, NODES))) or row.get("type", "c") != "c":
        yield f"the node {quoted(place)} as {quoted(path)}"
        return
    found = files.find_node(place)
    told = (row.get("major", found and found.major), row.get("minor", found and found.minor))
    if found is None or not _is_character(found.mode) or told != (found.major, found.minor):
        yield f"the node {quoted(place)} as {told[0]}:{told[1]}, which it is not"


def _is_character(mode: int) -> bool:
    return mode & 0o170000 == 0o020000


def _mount(row: Mapping[str, object]) -> Iterator[str]:
    source, target = str(row.get("hostPath", "")), str(row.get("containerPath", ""))
    options = _list(row, "options")
    is_read_only = "ro" in options or _lies(source, WITH_WRITING)
    if not _lies(source, SOURCES) or not _lies(target, ("/",)) or row.get("type", "bind") != "bind":
        yield f"the mount of {quoted(source)} at {quoted(target)}"
    elif not is_read_only or not OPTIONS.issuperset(str(option) for option in options):
        yield f"the mount of {quoted(source)} with the options {quoted(','.join(map(str, options)))}"


def _hook(row: Mapping[str, object]) -> Iterator[str]:
    path, args, env = str(row.get("path", "")), _list(row, "args"), _list(row, "env")
    is_program = _lies(path, PROGRAMS) and path.rpartition("/")[2] == HOOK_PROGRAM
    is_ours = row.get("hookName") == "createContainer" and is_program
    words = [word for word in args if isinstance(word, str) and word.isprintable()]
    is_plain = len(words) == len(args) and args[:1] == [HOOK_PROGRAM] and all(map(_is_call, split_calls(words[1:])))
    limit = row.get("timeout", 1)
    is_limited = isinstance(limit, int) and 0 < limit <= LONGEST_HOOK_S
    if not (is_ours and is_plain and is_limited) or not all(str(word).startswith("NVIDIA_CTK_DEBUG=") for word in env):
        yield f"the hook {quoted(path)} with {quoted(' '.join(map(str, args)))}"


def _is_call(words: Sequence[str]) -> bool:
    """A hook with options of its own, each with its value; an ldconfig is a program of image or extension."""
    options = HOOKS.get(words[0]) if words else None
    rest = iter(words[1:])
    for word in rest:
        option, has_value, value = word.partition("=")
        told = value if has_value else next(rest, None)
        if told is None or options is None or option not in options:
            return False
        if option == LDCONFIG and not _lies(told, (*PROGRAMS, "/sbin/")):
            return False
    return options is not None


def _lies(path: str, places: tuple[str, ...]) -> bool:
    """Below one of them, in words that mean themselves."""
    return path.startswith(places) and path.isprintable() and not {"", ".", ".."}.intersection(path.split("/")[1:])
