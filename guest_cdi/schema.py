# SPDX-License-Identifier: Apache-2.0
"""The shape of a CDI document, one row per key: its type, its range, whether it must be there, and its own rule.

Rows follow the published JSON schema of CDI 1.1.0 and, where the schema says nothing, the checks that the reference
library makes on a value. Rules that need more than one value are in validate.py. The keys are spec.py's; a test
compares them.
"""

from __future__ import annotations

import re

from guest_cdi.lean.light import Callable, Iterator, Mapping, TypeAlias, assert_never, dataclass
from guest_cdi.load import Bare, Data, Finding, Source, member
from guest_cdi.naming import is_device_name, is_kind_part

# A rule looks at a value of the right type and returns what is wrong with it.
Rule: TypeAlias = Callable[[str], "str | None"]

UINT32 = (0, 0xFFFFFFFF)
UINT63 = (0, (1 << 63) - 1)
HOOK_NAMES = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
NODE_TYPES = ("b", "c", "u", "p")
LONGEST_KIND = 1024
CLOS_ID_LIMIT = 4096
ANNOTATION_BYTES = 256 << 10

_ANNOTATION_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_DOMAIN = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    name: str = "text"          # the rule's name in a finding
    check: Rule | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Integer:
    low: int
    high: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOf:
    item: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotations:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    keys: Mapping[str, Shape]
    required: tuple[str, ...] = ()


Shape: TypeAlias = "Text | Integer | Flag | ListOf | Annotations | Record"


def _check_kind(text: str) -> str | None:
    if len(text) > LONGEST_KIND:
        return f"has {len(text)} characters; at most {LONGEST_KIND} are possible, as every device is called by it"
    vendor, slash, kind_class = text.partition("/")
    if slash and is_kind_part(vendor) and is_kind_part(kind_class):
        return None
    return f'"{text}" is not <vendor>/<class>, each starting with a letter and ending with a letter or digit, with ' \
        "only letters, digits, _ - . between, such as nvidia.com/gpu"


def _check_device_name(text: str) -> str | None:
    if is_device_name(text):
        return None
    return f'"{text}" must start and end with a letter or digit and have only letters, digits, _ - . : between'


def _check_env(text: str) -> str | None:
    return None if text.find("=") > 0 else f'"{text}" must be NAME=value with a name before the ='


def _check_hook_name(text: str) -> str | None:
    return None if text in HOOK_NAMES else f'"{text}" is not a hook; the hooks are {", ".join(HOOK_NAMES)}'


def _check_node_type(text: str) -> str | None:
    if text in {"", *NODE_TYPES}:
        return None
    return f'"{text}" is not a node type: b (block), c or u (character), p (FIFO), or leave it out'


def _check_permissions(text: str) -> str | None:
    if text == "none" or not text.strip("rwm"):
        return None
    return f'"{text}" must be made of r, w and m, or be none'


def _check_not_empty(text: str) -> str | None:
    return None if text else "must not be empty"


def _check_clos_id(text: str) -> str | None:
    if text == "/" or (text not in {".", ".."} and "/" not in text and "\n" not in text
                       and len(text.encode(errors="surrogatepass")) < CLOS_ID_LIMIT):
        return None
    return "must be a file name without / and line feed, or / itself"


TEXT = Text()
TEXTS = ListOf(item=TEXT)
ENV = ListOf(item=Text(name="env", check=_check_env))
PATH = Text(name="empty-path", check=_check_not_empty)
GID = Integer(low=UINT32[0], high=UINT32[1])
# The schema allows negative device numbers; no kernel has them.
NUMBER = Integer(low=UINT63[0], high=UINT63[1])

DEVICE_NODE = Record(required=("path",), keys={
    "path": PATH,
    "hostPath": TEXT,
    "type": Text(name="node-type", check=_check_node_type),
    "major": NUMBER,
    "minor": NUMBER,
    "fileMode": GID,
    "permissions": Text(name="permissions", check=_check_permissions),
    "uid": GID,
    "gid": GID,
})
NET_DEVICE = Record(required=("hostInterfaceName", "name"), keys={
    "hostInterfaceName": Text(name="net-device", check=_check_not_empty),
    "name": Text(name="net-device", check=_check_not_empty),
})
HOOK = Record(required=("hookName", "path"), keys={
    "hookName": Text(name="hook-name", check=_check_hook_name),
    "path": PATH,
    "args": TEXTS,
    "env": ENV,
    "timeout": GID,
})
MOUNT = Record(required=("hostPath", "containerPath"), keys={
    "hostPath": PATH,
    "containerPath": PATH,
    "options": TEXTS,
    "type": TEXT,
})
INTEL_RDT = Record(keys={
    "closID": Text(name="clos-id", check=_check_clos_id),
    "l3CacheSchema": TEXT,
    "memBwSchema": TEXT,
    "schemata": TEXTS,
    "enableMonitoring": Flag(),
})
EDITS = Record(keys={
    "env": ENV,
    "deviceNodes": ListOf(item=DEVICE_NODE),
    "netDevices": ListOf(item=NET_DEVICE),
    "hooks": ListOf(item=HOOK),
    "mounts": ListOf(item=MOUNT),
    "intelRdt": INTEL_RDT,
    "additionalGids": ListOf(item=GID),
})
DEVICE = Record(required=("name", "containerEdits"), keys={
    "name": Text(name="device-name", check=_check_device_name),
    "annotations": Annotations(),
    "containerEdits": EDITS,
})
DOCUMENT = Record(required=("cdiVersion", "kind", "devices"), keys={
    "cdiVersion": TEXT,
    "kind": Text(name="kind", check=_check_kind),
    "annotations": Annotations(),
    "devices": ListOf(item=DEVICE),
    "containerEdits": EDITS,
})


def check_shape(source: Source) -> Iterator[Finding]:
    """Everything that is wrong with single values, in the order of the document."""
    return _check(source, source.data, DOCUMENT, "")


def _check(source: Source, data: Data, shape: Shape, place: str) -> Iterator[Finding]:
    match shape:
        case Text():
            yield from _check_text(source, data, shape, place)
        case Integer():
            yield from _check_integer(source, data, shape, place)
        case Flag():
            if not isinstance(data, bool):
                yield _wrong_type(source, data, "true or false", place)
        case ListOf():
            if not isinstance(data, list):
                yield _wrong_type(source, data, "a list", place)
                return
            for index, item in enumerate(data):
                yield from _check(source, item, shape.item, f"{place}[{index}]")
        case Annotations():
            yield from _check_annotations(source, data, place)
        case Record():
            yield from _check_record(source, data, shape, place)
        case _:
            assert_never(shape)


def _check_text(source: Source, data: Data, shape: Text, place: str) -> Iterator[Finding]:
    bare = source.bare.get(place)
    if not isinstance(data, str) or bare:
        yield _needs_quotes(source, bare, place) if bare else _wrong_type(source, data, "text", place)
    elif shape.check and (problem := shape.check(data)):
        yield source.finding(place, shape.name, problem)


def _needs_quotes(source: Source, bare: Bare, place: str) -> Finding:
    written = bare.text or "an empty value"
    return source.finding(place, "quotes", f'{written} without quotes is {bare.kind} in YAML 1.1: write "{bare.text}"')


def _check_integer(source: Source, data: Data, shape: Integer, place: str) -> Iterator[Finding]:
    if not isinstance(data, int) or isinstance(data, bool):
        yield _wrong_type(source, data, "an integer", place)
    elif not shape.low <= data <= shape.high:
        yield source.finding(place, "range", f"{data} is not between {shape.low} and {shape.high}")


def _check_record(source: Source, data: Data, shape: Record, place: str) -> Iterator[Finding]:
    if not isinstance(data, dict):
        yield _wrong_type(source, data, "a mapping", place)
        return
    for key in shape.required:
        if key not in data:
            yield source.finding(place, "missing-key", f"{key} is missing")
    for key, value in data.items():
        below = member(place, key)
        if key in shape.keys:
            yield from _check(source, value, shape.keys[key], below)
        else:
            yield source.finding(below, "unknown-key", _unknown(key, shape.keys))


def _unknown(key: str, known: Mapping[str, Shape]) -> str:
    from difflib import get_close_matches

    by_lower = {name.lower(): name for name in known}
    near = get_close_matches(key.lower(), by_lower, n=1)
    return f'no such key; did you mean "{by_lower[near[0]]}"?' if near else f"no such key; there are {', '.join(known)}"


def _check_annotations(source: Source, data: Data, place: str) -> Iterator[Finding]:
    if not isinstance(data, dict):
        yield _wrong_type(source, data, "a mapping", place)
        return
    for key, value in data.items():
        below = member(place, key)
        yield from _check_text(source, value, TEXT, below)
        if not _is_annotation_key(key):
            yield source.finding(below, "annotation", f'"{key}" is not [domain/]name as Kubernetes writes annotations')
    size = sum(len(f"{key}{value}".encode(errors="surrogatepass")) for key, value in data.items())
    if size > ANNOTATION_BYTES:
        yield source.finding(place, "annotation", f"{size} bytes in all; the limit is {ANNOTATION_BYTES}")


def _is_annotation_key(key: str) -> bool:
    domain, slash, name = key.lower().rpartition("/")
    if slash and not (len(domain) <= 253 and _DOMAIN.fullmatch(domain)):
        return False
    return _ANNOTATION_NAME.fullmatch(name) is not None


TYPE_NAMES: tuple[tuple[type, str], ...] = (
    (bool, "a boolean"), (int, "an integer"), (float, "a number with a fraction"), (str, "text"), (list, "a list"),
    (dict, "a mapping"),
)


def _wrong_type(source: Source, data: Data, wanted: str, place: str) -> Finding:
    found = next((name for kind, name in TYPE_NAMES if isinstance(data, kind)), "null")
    return source.finding(place, "type", f"must be {wanted}, not {found}")
