# SPDX-License-Identifier: Apache-2.0
"""`guest-cdi validate`: is a document a CDI document, by the schema's rules and by those the schema does not know?

Every mistake of every file at once, each with file, line, place and a stable rule name. schema.py judges single
values; here are the rules between values: version, duplicates, empty devices, two files with one device. Follows
SPEC.md of CDI 1.1.0 and the checks of its reference library.
"""

from __future__ import annotations

import sys

from guest_cdi import spec as cdi
from guest_cdi.lean.coded import printable
from guest_cdi.lean.light import TYPE_CHECKING, Iterable, Iterator, Mapping, Sequence, TextIO, dataclass, field
from guest_cdi.load import Data, Finding, Source, parse_source, read_source
from guest_cdi.model import as_mapping, as_sequence, to_spec
from guest_cdi.schema import check_shape
from guest_cdi.spec import ContainerEdits, Spec

if TYPE_CHECKING:
    import argparse

NAME = "validate"
HELP = "check CDI documents: the published schema and the rules it does not know"
EPILOG = """examples:
  guest-cdi validate /var/run/cdi/nvidia.yaml
  guest-cdi validate --json /etc/cdi/*.yaml

Exit status: 0 all documents are valid, 1 something was found, 2 wrong usage.
"""

# Every rule's name, who has it, and what it says. SCHEMA: the published JSON schema. LIBRARY: the reference library,
# and not the schema. OWN: consumers differ or come to harm, and neither of the two says so.
SCHEMA, LIBRARY, OWN = "schema", "library", "own"
RULES = (
    ("read", OWN, "the file can be read, is a regular file and of a size that documents have"),
    ("syntax", LIBRARY, "the text is one document of JSON or YAML in UTF-8, without tags, of bounded depth and size"),
    ("duplicate-key", LIBRARY, "no key is given twice"),
    ("quotes", OWN, "text that YAML 1.1 reads as something else, such as 0, 1:0 or yes, is in quotes"),
    ("type", SCHEMA, "every value is of its type; null is of none"),
    ("missing-key", SCHEMA, "required keys are present"),
    ("range", SCHEMA, "integers are in range; that device numbers are not negative is a rule of our own"),
    ("unknown-key", LIBRARY, "there are no other keys, also not in another case"),
    ("version-unknown", LIBRARY, "cdiVersion is a released version from 0.3.0 on"),
    ("version-low", LIBRARY, "cdiVersion is not lower than what the fields in use need"),
    ("kind", LIBRARY, "kind is <vendor>/<class>"),
    ("device-name", LIBRARY, "a device name has the characters that a name may have"),
    ("duplicate-device", LIBRARY, "no two devices have one name"),
    ("no-devices", LIBRARY, "there is at least one device"),
    ("empty-edits", LIBRARY, "a device changes something"),
    ("env", LIBRARY, "an environment entry is NAME=value"),
    ("node-type", LIBRARY, "a device node's type is b, c, u or p"),
    ("permissions", LIBRARY, "a device node's permissions are made of r, w and m, or are none"),
    ("hook-name", LIBRARY, "a hook's name is one of OCI's six"),
    ("empty-path", LIBRARY, "paths of nodes, hooks and mounts are not empty"),
    ("net-device", LIBRARY, "network devices have names, and no two have the same"),
    ("clos-id", LIBRARY, "closID is a file name or /"),
    ("annotation", LIBRARY, "annotation keys are as Kubernetes writes them, and all together below 256 KiB"),
    ("conflict", LIBRARY, "no two of the files define one device"),
)

VERSIONS = ("0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A judged file. `spec` is there only when nothing was found in it."""

    file: str
    spec: Spec | None
    findings: tuple[Finding, ...]


def check_files(paths: Iterable[str]) -> tuple[Checked, ...]:
    """Each file by itself, then together: a device that two files define is found in the later one."""
    sources = [read_source(path) for path in paths]
    return _find_conflicts([check_source(source) for source in sources])


def check_text(name: str, content: bytes) -> Checked:
    return check_source(parse_source(name, content))


def check_source(source: Source) -> Checked:
    findings = list(source.findings)
    spec = to_spec(source.data)
    if source.data is not None or not findings:
        findings += check_shape(source)
    if isinstance(source.data, dict):
        findings += _check_devices(source, spec)
        findings += _check_version(source, spec)
    return Checked(file=source.file, spec=None if findings else spec, findings=tuple(findings))


def check_document(document: Data, name: str = "document") -> tuple[Finding, ...]:
    """The same for data in memory, such as render.document gives."""
    return check_source(Source(file=name, data=document)).findings


def _check_version(source: Source, spec: Spec) -> Iterator[Finding]:
    version = as_mapping(source.data).get("cdiVersion")
    if not isinstance(version, str) or "cdiVersion" in source.bare:
        return                                      # said already
    declared = version.removeprefix("v")
    if declared not in VERSIONS:
        yield source.finding("cdiVersion", "version-unknown",
                             f'"{version}" is not a usable version; these are: {", ".join(VERSIONS)}')
        return
    needed, reason = _needed_version(source, spec)
    if VERSIONS.index(declared) < VERSIONS.index(needed):
        yield source.finding("cdiVersion", "version-low", f"{declared} is too low: {reason} needs {needed}")


REASONS = {
    "1.1.0": "netDevices, or schemata or enableMonitoring of intelRdt,",
    "0.7.0": "intelRdt or additionalGids",
    "0.6.0": "an annotation, or a dot in the class of the kind,",
    "0.5.0": "a device name that starts with a digit, or hostPath of a device node,",
    "0.4.0": "type of a mount",
    cdi.OLDEST_VERSION: "every document",
}


def _needed_version(source: Source, spec: Spec) -> tuple[str, str]:
    # An empty list of schemata needs its version, too; a Spec has no way to hold one.
    if any("schemata" in rdt for rdt in _intel_rdts(source.data)):
        return "1.1.0", "schemata of intelRdt"
    needed = cdi.minimum_version(spec)
    return needed, REASONS[needed]


def _intel_rdts(data: Data) -> Iterator[Mapping[str, Data]]:
    document = as_mapping(data)
    for holder in (document, *map(as_mapping, as_sequence(document.get("devices")))):
        yield as_mapping(as_mapping(holder.get("containerEdits")).get("intelRdt"))


def _check_devices(source: Source, spec: Spec) -> Iterator[Finding]:
    raw = as_mapping(source.data).get("devices")
    if raw == []:
        yield source.finding("devices", "no-devices", "there must be at least one device")
    seen: dict[str, int] = {}
    for index, (device, given) in enumerate(zip(spec.devices, as_sequence(raw), strict=True)):
        place = f"devices[{index}]"
        first = seen.setdefault(device.name, index)
        if first != index and device.name:
            yield source.finding(f"{place}.name", "duplicate-device", f'"{device.name}" is already devices[{first}]')
        if device.container_edits.is_empty() and isinstance(as_mapping(given).get("containerEdits"), dict):
            yield source.finding(f"{place}.containerEdits", "empty-edits",
                                 f'device "{device.name}" changes nothing; give it an edit or remove it')
        yield from _check_net_devices(source, device.container_edits, f"{place}.containerEdits")
    yield from _check_net_devices(source, spec.container_edits, "containerEdits")


def _check_net_devices(source: Source, edits: ContainerEdits, place: str) -> Iterator[Finding]:
    for attribute, key in cdi.keys_of(cdi.NetDevice):
        seen: dict[str, int] = {}
        for index, device in enumerate(edits.net_devices):
            value = str(getattr(device, attribute))
            first = seen.setdefault(value, index)
            if value and first != index:
                yield source.finding(f"{place}.netDevices[{index}].{key}", "net-device",
                                     f'"{value}" is already netDevices[{first}]')


def _find_conflicts(checked: Sequence[Checked]) -> tuple[Checked, ...]:
    owner: dict[str, str] = {}
    result = []
    for one in checked:
        conflicts = []
        for index, device in enumerate(one.spec.devices if one.spec else ()):
            name = f"{one.spec.kind}={device.name}" if one.spec else ""
            if name in owner:
                conflicts.append(Finding(file=one.file, line=0, place=f"devices[{index}].name", rule="conflict",
                                         message=f"{name} is also defined by {owner[name]}; remove one of the two"))
            owner.setdefault(name, one.file)
        result.append(Checked(file=one.file, spec=None if conflicts else one.spec,
                              findings=(*one.findings, *conflicts)))
    return tuple(result)


@dataclass(slots=True, kw_only=True)
class Arguments:
    """What the parser fills in."""

    files: list[str] = field(default_factory=list)
    json: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="a CDI document, YAML or JSON by name or content")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: Arguments, out: TextIO) -> int:
    checked = check_files(arguments.files)
    if arguments.json:
        _print_json(checked, out)
    else:
        for one in checked:
            _print_text(one, out)
    return 1 if any(one.findings for one in checked) else 0


def _print_text(one: Checked, out: TextIO) -> None:
    for finding in one.findings:
        print(finding, file=out)
    if one.spec:
        names = ", ".join(device.name for device in one.spec.devices)
        print(f"{printable(one.file)}: valid: {one.spec.kind} with {names}", file=out)


def _print_json(checked: Iterable[Checked], out: TextIO) -> None:
    import json

    files = [{
        "file": one.file,
        "valid": not one.findings,
        "kind": one.spec.kind if one.spec else None,
        "devices": [device.name for device in one.spec.devices] if one.spec else [],
        "findings": [{"line": finding.line, "place": finding.place or None, "rule": finding.rule,
                      "message": finding.message}
                     for finding in one.findings],
    } for one in checked]
    print(json.dumps({"schema": 1, "files": files}, indent=2), file=out)


def main(argv: Sequence[str]) -> int:
    from guest_cdi.parser import Parser

    parser = Parser(NAME, HELP, EPILOG, argv)
    add_arguments(parser)
    return run(parser.parse_args(list(argv), Arguments()), sys.stdout)
