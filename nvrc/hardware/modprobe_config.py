# SPDX-License-Identifier: Apache-2.0
"""What /etc/modprobe.d and the kernel command line decide about modules. Follows modprobe.d(5).

Understood: `options` and `softdep`. `install` replaces loading by a shell command; the guest has no shell, and loading
regardless could load what the image's owner switched off that way, so the module is refused. `blacklist` and `alias`
speak of loading by alias, which nothing here does; `remove` and `weakdep` change nothing either. As with kmod, a file
in an earlier folder hides one of the same name in a later one, and options on the command line come after all files.
"""

from __future__ import annotations

from types import MappingProxyType

from guest_cdi.lean.light import Mapping, NamedTuple
from nvrc.hardware.module_tree import Softdep, canonical, read_softdeps
from nvrc.machine.system import Files
from nvrc.params.module_options import ModuleOption
from nvrc.vocabulary.errors import NvrcError

FOLDERS = ("/etc/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d")
_IGNORED = ("blacklist", "alias", "remove", "weakdep")


class ModprobeConfig(NamedTuple):
    """`installs`: module to the line that replaces its loading. `remarks`: lines that nobody understands."""

    options: tuple[tuple[str, str], ...] = ()
    softdeps: Mapping[str, Softdep] = MappingProxyType({})
    installs: Mapping[str, str] = MappingProxyType({})
    remarks: tuple[str, ...] = ()

    def options_of(self, module: str) -> tuple[str, ...]:
        return tuple(text for name, text in self.options if name == module)


class _Line(NamedTuple):
    place: str
    text: str


def read_config(system: Files, given: tuple[ModuleOption, ...] = ()) -> ModprobeConfig:
    lines = [line for path in _files(system) for line in _logical_lines(path, _read(system, path))]
    options: list[tuple[str, str]] = []
    installs: dict[str, str] = {}
    remarks: list[str] = []
    for line in lines:
        word, _, rest = line.text.replace("\t", " ").partition(" ")
        name, _, detail = rest.strip().partition(" ")
        if word == "options" and detail.strip():
            options.append((canonical(name), detail.strip()))
        elif word == "install" and name:
            installs[canonical(name)] = f"{line.place}: {line.text}"
        elif word != "softdep" and word not in _IGNORED:
            remarks.append(f"{line.place}: {line.text[:80]!a} is not understood and changes nothing")
    return ModprobeConfig(options=(*options, *given), installs=installs, remarks=tuple(remarks),
                          softdeps=read_softdeps(line.text for line in lines))


def _files(system: Files) -> list[str]:
    """The files that count, in the order of their names."""
    found: dict[str, str] = {}
    for folder in FOLDERS:
        try:
            names = system.list_dir(folder)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as err:
            raise NvrcError("E_MODULE_CONFIG", f"{folder}: {err.strerror}") from err
        for name in names:
            if name.endswith(".conf"):
                found.setdefault(name, f"{folder}/{name}")
    return [path for _, path in sorted(found.items())]


def _read(system: Files, path: str) -> str:
    try:
        return system.read(path).decode("utf-8", "surrogateescape")
    except OSError as err:
        raise NvrcError("E_MODULE_CONFIG", f"{path}: {err.strerror}") from err


def _logical_lines(path: str, text: str) -> list[_Line]:
    """Lines without comments, a backslash at the end joined with what follows."""
    found: list[_Line] = []
    pending, started = "", 0
    for number, raw in enumerate(text.split("\n"), 1):
        started = started if pending else number
        if raw.endswith("\\"):
            pending += raw[:-1] + " "
            continue
        line = (pending + raw).strip()
        pending = ""
        if line and not line.startswith("#"):
            found.append(_Line(f"{path}:{started}", line))
    if pending.strip() and not pending.lstrip().startswith("#"):
        found.append(_Line(f"{path}:{started}", pending.strip()))
    return found
