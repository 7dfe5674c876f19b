# SPDX-License-Identifier: Apache-2.0
"""`guest-cdi inject`: devices by name into an OCI bundle, so that a document can be tried with any OCI runtime.

Which file a device comes from, what a conflict is and what is applied first follows pkg/cdi/cache.go of the Container
Device Interface; oci.py makes the changes.
"""

from __future__ import annotations

import os
import stat
import sys

from guest_cdi.bounds import TOO_LARGE, is_bounded_json
from guest_cdi.host import LinuxHost
from guest_cdi.lean.errors import CdiError
from guest_cdi.lean.light import TYPE_CHECKING, Iterable, Mapping, Sequence, TextIO, dataclass, field
from guest_cdi.load import Finding
from guest_cdi.oci import Config, Lstat, apply_edits, join_edits
from guest_cdi.spec import ContainerEdits, Device, Spec
from guest_cdi.validate import Checked, check_files

if TYPE_CHECKING:
    import argparse

    from guest_cdi.load import Data

NAME = "inject"
HELP = "apply devices to the config.json of an OCI bundle"
EPILOG = """examples:
  guest-cdi inject --bundle /run/bundle nvidia.com/gpu=0
  guest-cdi inject --bundle . --spec nvidia.yaml --dry-run nvidia.com/gpu=all

Without --spec and --spec-dir documents are taken from /etc/cdi and, with precedence, /var/run/cdi.
Exit status: 0 applied, 1 a device or a document cannot be used, 2 wrong usage.
"""

SPEC_DIRS = ("/etc/cdi", "/var/run/cdi")
EXTENSIONS = (".json", ".yaml")
MAX_CONFIG_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A device and where it is from; a higher priority wins over a lower one."""

    device: Device
    spec: Spec
    file: str
    priority: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """Devices by qualified name. `conflicts` are names that two files of one priority define; nobody gets those."""

    devices: Mapping[str, Entry]
    conflicts: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


def read_registry(files: Sequence[str], directories: Sequence[str]) -> Registry:
    """Files given by name count most and must be valid; an invalid file of a directory is told and left out."""
    layers = [check_files_alone(_list_specs(directory)) for directory in directories]
    named = check_files(files)
    bad = [finding for one in named for finding in one.findings]
    if bad:
        raise CdiError("E_CDI_INVALID", "; ".join(map(str, bad)))
    return build_registry([*layers, named])


def check_files_alone(paths: Iterable[str]) -> tuple[Checked, ...]:
    """Each without regard to the others: between files of a directory the registry decides."""
    return tuple(one for path in paths for one in check_files([path]))


def build_registry(layers: Sequence[Sequence[Checked]]) -> Registry:
    devices: dict[str, Entry] = {}
    conflicts: dict[str, tuple[str, str]] = {}
    for priority, layer in enumerate(layers):
        for one in layer:
            for name, entry in _entries(one, priority):
                old = devices.get(name)
                if old is not None and old.priority == priority:
                    conflicts[name] = (old.file, entry.file)
                else:
                    devices[name] = entry
    findings = tuple(finding for layer in layers for one in layer for finding in one.findings)
    # As in the reference library a conflict in a lower directory also bars the name in a higher one.
    usable = {name: entry for name, entry in devices.items() if name not in conflicts}
    return Registry(devices=usable, conflicts=conflicts, findings=findings)


def _entries(one: Checked, priority: int) -> list[tuple[str, Entry]]:
    if one.spec is None:
        return []
    return [(f"{one.spec.kind}={device.name}", Entry(device=device, spec=one.spec, file=one.file, priority=priority))
            for device in one.spec.devices]


def _list_specs(directory: str) -> list[str]:
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    except OSError as err:
        raise CdiError("E_CDI_READ", f"{directory}: {err.strerror}") from err
    paths = [os.path.join(directory, name) for name in names if os.path.splitext(name)[1] in EXTENSIONS]
    return [path for path in paths if not os.path.isdir(path)]


def resolve(registry: Registry, names: Sequence[str]) -> ContainerEdits:
    """The edits of these devices in the order of the request, each document's common edits before its first device."""
    unresolved = [name for name in names if name not in registry.devices]
    if unresolved:
        raise _unresolvable(registry, unresolved)
    parts: list[ContainerEdits] = []
    seen: list[Spec] = []
    for name in names:
        entry = registry.devices[name]
        if not any(spec is entry.spec for spec in seen):
            seen.append(entry.spec)
            parts.append(entry.spec.container_edits)
        parts.append(entry.device.container_edits)
    return join_edits(tuple(parts))


def _unresolvable(registry: Registry, names: Sequence[str]) -> CdiError:
    reasons = []
    for name in names:
        if name in registry.conflicts:
            first, second = registry.conflicts[name]
            reasons.append(f"{name} (defined by both {first} and {second})")
        else:
            reasons.append(name)
    known = ", ".join(sorted(registry.devices)) or "no device at all"
    bad = "".join(f"; {finding}" for finding in registry.findings)
    what = f"unresolvable CDI devices: {', '.join(reasons)}{bad}"
    return CdiError("E_CDI_INJECT", what, f"use one that the documents have: {known}")


def inject(registry: Registry, names: Sequence[str], config: Config, lstat: Lstat) -> Config:
    return apply_edits(resolve(registry, names), config, lstat)


@dataclass(slots=True, kw_only=True)
class Arguments:
    """What the parser fills in."""

    bundle: str = ""
    specs: list[str] = field(default_factory=list)
    spec_dirs: list[str] = field(default_factory=list)
    root: str = "/"
    dry_run: bool = False
    json: bool = False
    names: list[str] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--bundle", required=True, metavar="DIR", help="the OCI bundle; its config.json is changed")
    add("--spec", dest="specs", action="append", metavar="FILE", help="take devices from this document")
    add("--spec-dir", dest="spec_dirs", action="append", metavar="DIR",
        help="take devices from the documents of this directory; a later one has precedence")
    add("--root", metavar="DIR", help="look for device nodes below DIR")
    add("--dry-run", action="store_true", help="print the new config.json instead of writing it")
    add("--json", action="store_true", help="report on standard error as JSON")
    add("names", nargs="+", metavar="NAME", help="a qualified device name, such as nvidia.com/gpu=0")


def run(arguments: Arguments, out: TextIO, err: TextIO) -> int:
    try:
        directories = arguments.spec_dirs or ([] if arguments.specs else list(SPEC_DIRS))
        registry = read_registry(arguments.specs, directories)
        path = os.path.join(arguments.bundle, "config.json")
        config, mode = _read_config(path)
        text = _dump(path, _inject_into(path, registry, arguments, config))
        if arguments.dry_run:
            out.write(text.decode())
        else:
            _write_config(path, text, mode)
    except CdiError as failure:
        _report_error(failure, err, as_json=arguments.json)
        return 1
    for finding in registry.findings:
        print(f"guest-cdi: warning: left out {finding}", file=err)
    return 0


def _inject_into(path: str, registry: Registry, arguments: Arguments, config: Config) -> Config:
    try:
        return inject(registry, arguments.names, config, LinuxHost(arguments.root).lstat)
    except RecursionError as err:
        raise CdiError("E_CDI_BUNDLE", f"{path} is nested too deep") from err


def _read_config(path: str) -> tuple[Config, int]:
    import json

    try:
        # A FIFO must not stop the command.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as stream:
            status = os.fstat(descriptor)
            content = stream.read(MAX_CONFIG_BYTES + 1) if stat.S_ISREG(status.st_mode) else None
        if content is None or len(content) > MAX_CONFIG_BYTES:
            raise CdiError("E_CDI_BUNDLE", f"{path} is not a regular file of at most {MAX_CONFIG_BYTES >> 20} MiB")
        text = content.decode()
        if not is_bounded_json(text):
            raise CdiError("E_CDI_BUNDLE", f"{path} has {TOO_LARGE}")
        config: Config = json.loads(text, parse_constant=_refuse)
    except OSError as err:
        raise CdiError("E_CDI_BUNDLE", f"{path}: {err.strerror}") from err
    except (ValueError, RecursionError) as err:
        raise CdiError("E_CDI_BUNDLE", f"{path} is not JSON: {err}") from err
    if not isinstance(config, dict):
        raise CdiError("E_CDI_BUNDLE", f"{path} must hold an object")
    return config, stat.S_IMODE(status.st_mode)


def _refuse(constant: str) -> Data:
    raise ValueError(f"{constant} is not a JSON value")


def _dump(path: str, config: Config) -> bytes:
    import json

    try:
        return (json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except UnicodeEncodeError as err:
        raise CdiError("E_CDI_BUNDLE", f"{path}: a text in it is not Unicode") from err
    except ValueError as err:  # 1e999 is read as infinite
        raise CdiError("E_CDI_BUNDLE", f"{path}: a number in it is out of range") from err


def _write_config(path: str, text: bytes, mode: int) -> None:
    """Whole or not at all, with the mode it had: it may hold what only its owner is to see."""
    scratch = f"{path}.{os.urandom(6).hex()}.tmp"
    try:
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with open(descriptor, "wb") as stream:
                stream.write(text)
                os.fchmod(stream.fileno(), mode)
            os.replace(scratch, path)
        except BaseException:
            os.unlink(scratch)
            raise
    except OSError as err:
        raise CdiError("E_CDI_BUNDLE", f"{path} could not be written: {err.strerror}") from err


def _report_error(failure: CdiError, err: TextIO, *, as_json: bool) -> None:
    if as_json:
        from guest_cdi.parser import write_error

        write_error(failure, err)
    else:
        print(f"guest-cdi: error: {failure}", file=err)


def main(argv: Sequence[str]) -> int:
    from guest_cdi.parser import Parser

    parser = Parser(NAME, HELP, EPILOG, argv)
    add_arguments(parser)
    return run(parser.parse_args(list(argv), Arguments()), sys.stdout, sys.stderr)
