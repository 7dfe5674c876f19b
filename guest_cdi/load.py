# SPDX-License-Identifier: Apache-2.0
"""A CDI file as plain data, with what a reader normally throws away: line numbers, keys given twice, missing quotes.

JSON and YAML 1.1. What this program has written itself is read by canonical.py, other YAML through its node graph: a
value alone does not tell that `1:0` without quotes became 60. Limits bound what a hostile file can cost. Does not know
CDI: schema.py and validate.py judge the data.
"""

from __future__ import annotations

import os
import stat

from guest_cdi import canonical
from guest_cdi.bounds import LONGEST_PLACE, MAX_BYTES, MAX_DEPTH, MAX_NODES, TOO_LARGE, is_bounded_json
from guest_cdi.lean.coded import printable
from guest_cdi.lean.light import TYPE_CHECKING, Iterator, Mapping, NamedTuple, TypeAlias, dataclass, field

if TYPE_CHECKING:
    import yaml

Data: TypeAlias = "canonical.Data"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One broken rule: where in which file, under a stable rule name, in words that say what to do."""

    file: str
    line: int               # 0 where the format or the finding has none
    place: str              # e.g. devices[1].containerEdits.hooks[0].hookName; empty for the whole document
    rule: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return printable(": ".join(part for part in (where, self.place, f"{self.message} [{self.rule}]") if part))


class Bare(NamedTuple):
    """A YAML scalar without quotes as it stands in the file, and what YAML 1.1 makes of it."""

    text: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The data of one file. `lines` and `bare` are by place and empty for JSON."""

    file: str
    data: Data
    lines: Mapping[str, int] = field(default_factory=dict)
    bare: Mapping[str, Bare] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    def finding(self, place: str, rule: str, message: str) -> Finding:
        return Finding(file=self.file, line=self.lines.get(place, 0), place=place, rule=rule, message=message)


class _UnreadableError(Exception):
    def __init__(self, rule: str, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.rule = rule
        self.line = line


def read_source(path: str) -> Source:
    """The file's data, or None for data and a finding that says why."""
    try:
        return parse_source(path, _read(path))
    except _UnreadableError as err:
        return _unusable(path, err)


def parse_source(path: str, content: bytes) -> Source:
    """The name decides between JSON and YAML; where it says neither, the first character does."""
    try:
        text = content.decode("utf-8-sig")
        return _parse_json(path, text) if is_json(path, text) else _parse_yaml(path, text)
    except UnicodeDecodeError as err:
        return _unusable(path, _UnreadableError("syntax", f"byte {err.start} is not UTF-8"))
    except _UnreadableError as err:
        return _unusable(path, err)


def is_json(path: str, text: str) -> bool:
    extension = os.path.splitext(path)[1].lower()
    return extension == ".json" or (extension not in {".yaml", ".yml"} and text.lstrip().startswith("{"))


def member(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _unusable(path: str, err: _UnreadableError) -> Source:
    finding = Finding(file=path, line=err.line, place="", rule=err.rule, message=str(err))
    return Source(file=path, data=None, findings=(finding,))


def _read(path: str) -> bytes:
    try:
        # A FIFO must not stop the check of the other files.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _UnreadableError("read", "not a regular file")
            content = stream.read(MAX_BYTES + 1)
    except OSError as err:
        raise _UnreadableError("read", err.strerror or str(err)) from err
    if len(content) > MAX_BYTES:
        raise _UnreadableError("read", f"larger than {MAX_BYTES >> 20} MiB, which no CDI file is")
    return content


class _Doubled(dict[str, Data]):
    """An object of a JSON text that remembers which keys were given twice."""

    doubled: tuple[str, ...] = ()


def _parse_json(path: str, text: str) -> Source:
    import json

    def collect(pairs: list[tuple[str, Data]]) -> _Doubled:
        result = _Doubled(pairs)
        if len(result) != len(pairs):
            seen, twice = set[str](), set[str]()
            for key, _ in pairs:
                (twice if key in seen else seen).add(key)
            result.doubled = tuple(key for key in result if key in twice)
        return result

    def refuse(constant: str) -> Data:
        raise _UnreadableError("syntax", f"{constant} is not a JSON value")

    if not is_bounded_json(text):
        raise _UnreadableError("syntax", TOO_LARGE)
    try:
        data: Data = json.loads(text, object_pairs_hook=collect, parse_constant=refuse)
    except json.JSONDecodeError as err:
        raise _UnreadableError("syntax", err.msg, err.lineno) from err
    except (RecursionError, ValueError) as err:     # ValueError: an integer of more digits than Python converts
        raise _UnreadableError("syntax", "nested too deep, or a number is too long") from err
    source = Source(file=path, data=data)
    doubled = tuple(source.finding(place, "duplicate-key", DOUBLED) for place in _doubled_places(data, "", 0))
    return Source(file=path, data=data, findings=doubled)


DOUBLED = "the key is given more than once; readers differ in which value they take"


def _doubled_places(data: Data, place: str, depth: int) -> Iterator[str]:
    # What reads JSON goes ten times deeper than Python calls itself, from 3.12 on.
    if depth > MAX_DEPTH or len(place) > LONGEST_PLACE:
        raise _UnreadableError("syntax", TOO_LARGE)
    if isinstance(data, _Doubled):
        yield from (member(place, key) for key in data.doubled)
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _doubled_places(value, member(place, key), depth + 1)
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from _doubled_places(value, f"{place}[{index}]", depth + 1)


def _parse_yaml(path: str, text: str) -> Source:
    if own := canonical.read(text):
        kinds = {place: Bare(word, KINDS["bool"] if word in ("true", "false") else f"the integer {word}")
                 for place, word in own.bare.items()}
        return Source(file=path, data=own.data, lines=own.lines, bare=kinds)
    return parse_any_yaml(path, text)


def parse_any_yaml(path: str, text: str) -> Source:
    """Whatever the library can read."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        # Composing is recursive, in C at that: a file that is nested too deep must be refused before.
        _bound_events(yaml.parse(text, Loader=loader))
        node = yaml.compose(text, Loader=loader)
    except yaml.MarkedYAMLError as err:
        line = err.problem_mark.line + 1 if err.problem_mark else 0
        raise _UnreadableError("syntax", " ".join(filter(None, (err.context, err.problem))), line) from err
    except (yaml.YAMLError, RecursionError) as err:
        raise _UnreadableError("syntax", str(err).partition("\n")[0] or "nested too deep") from err
    if node is None:
        raise _UnreadableError("syntax", "the file is empty")
    reader = _YamlReader(path)
    data = reader.read(node, "", 0)
    return Source(file=path, data=data, lines=reader.lines, bare=reader.bare, findings=tuple(reader.findings))


def _bound_events(events: Iterator[yaml.Event]) -> None:
    from yaml import CollectionEndEvent, CollectionStartEvent

    depth = 0
    for count, event in enumerate(events):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > MAX_DEPTH or count > 2 * MAX_NODES:
            line = event.start_mark.line + 1 if event.start_mark else 0
            raise _UnreadableError("syntax", TOO_LARGE, line)


_TAG = "tag:yaml.org,2002:"
KINDS = {"int": "an integer", "float": "a number", "bool": "a boolean", "null": "null", "timestamp": "a date"}


class _YamlReader:
    """Walks the node graph once; aliases are followed, so both the count of nodes and the depth are bounded."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.lines: dict[str, int] = {}
        self.bare: dict[str, Bare] = {}
        self.findings: list[Finding] = []
        self._count = 0
        self._left = MAX_BYTES      # characters of texts: an alias has all of its text again

    def read(self, node: yaml.Node, place: str, depth: int) -> Data:
        import yaml

        self._count += 1
        if self._count > MAX_NODES or depth > MAX_DEPTH or len(place) > LONGEST_PLACE:
            raise _UnreadableError("syntax", TOO_LARGE, _line(node))
        self.lines[place] = _line(node)
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
            return self._mapping(node, place, depth)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
            return [self.read(child, f"{place}[{index}]", depth + 1) for index, child in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and node.tag.removeprefix(_TAG) in {"str", "merge", "value", *KINDS}:
            return self._scalar(node, place)
        self._find(node, place, "syntax", f"the tag {node.tag} has no meaning in a CDI file")
        return None

    def _mapping(self, node: yaml.MappingNode, place: str, depth: int) -> Data:
        import yaml

        result: dict[str, Data] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._find(key_node, place, "syntax", "a key must be text")
                continue
            key = str(key_node.value)
            below = member(place, key)
            if key in result:
                self._find(key_node, below, "duplicate-key", DOUBLED)
            result[key] = self.read(value_node, below, depth + 1)
            self.lines[below] = _line(key_node)
        return result

    def _scalar(self, node: yaml.ScalarNode, place: str) -> Data:
        self._left -= len(node.value)
        if self._left < 0:
            raise _UnreadableError("syntax", f"aliases make it larger than {MAX_BYTES >> 20} MiB", _line(node))
        kind = node.tag.removeprefix(_TAG)
        if kind not in KINDS:
            return str(node.value)
        value = _number(kind, str(node.value))
        self.bare[place] = Bare(str(node.value), f"the {_NOUN[kind]} {value}" if kind in _NOUN else KINDS[kind])
        return value

    def _find(self, node: yaml.Node, place: str, rule: str, message: str) -> None:
        self.findings.append(Finding(file=self.path, line=_line(node), place=place, rule=rule, message=message))


_NOUN = {"int": "integer", "float": "number"}
# Python converts no more than 4300 decimal digits, neither way, and takes long over what is on base 60.
_LONGEST_NUMBER = 1024


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1 if node.start_mark else 0


def _number(kind: str, text: str) -> Data:
    """The value YAML 1.1 gives a bare scalar; its own constructors do it, octal and base 60 included."""
    from yaml import ScalarNode
    from yaml.constructor import SafeConstructor

    if kind == "null":
        return None
    if kind == "timestamp" or len(text) > _LONGEST_NUMBER:
        return text
    convert = {"int": SafeConstructor.construct_yaml_int, "float": SafeConstructor.construct_yaml_float,
               "bool": SafeConstructor.construct_yaml_bool}[kind]
    try:
        value: bool | int | float = convert(SafeConstructor(), ScalarNode(f"{_TAG}{kind}", text))
    except (ValueError, KeyError):      # an explicit tag on something else, or more digits than Python converts
        return text
    return value
