# SPDX-License-Identifier: Apache-2.0
"""Which extensions a class attaches then. The list replaces the class's own, so nothing of that may be lost unsaid.

A class with GPUs needs a driver (`gpu`), a class of a TEE the guest components (`coco`). Each comes from the image
itself, from an extension given, or from the class's own list where its configuration is given; or is let go by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nvrc.vocabulary.tomltext import parse_toml
from nvrc_build.ground.errors import BuildError, WrongCallError, reason
from nvrc_build.kata.classes import KataClass, Tee
from nvrc_build.output.verity import parse_parameters
from nvrc_build.papers.inventory import Inventory

MOST_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9_-]{1,10}")
# What in an image says that it needs no such extension.
_OWN: Mapping[str, tuple[re.Pattern[str], str]] = {
    "gpu": (re.compile(r".*/libnvidia-ml\.so\.[0-9.]+"), "the driver"),
    "coco": (re.compile(r"/usr/local/bin/attestation-agent"), "the guest components"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """`path` on the node. `is_ours`: an image of the factory, whose file can be looked for."""

    name: str
    path: str
    parameters: str
    is_ours: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What the call says: extensions given, names let go, and the rows of the class's own configuration, if known."""

    given: tuple[Extension, ...] = ()
    dropped: tuple[str, ...] = ()
    of_the_class: tuple[Extension, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassConfig:
    """What a drop-in replaces of a class's installed configuration."""

    kernel_params: str
    extensions: tuple[Extension, ...]


def read_toml(path: Path) -> Mapping[str, object]:
    """A file of the runtime's configuration; ValueError says what is wrong with it."""
    with path.open("rb") as stream:
        data = stream.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"has more than {MOST_BYTES >> 10} KiB")
    try:
        return parse_toml(data.decode())
    except ValueError as wrong:
        raise ValueError(f"cannot be read as TOML: {wrong}") from wrong


def read_class(path: Path) -> ClassConfig:
    """A class's installed configuration-*.toml: its line and its list, to be carried over whole."""
    try:
        if not path.is_file():
            raise ValueError("it is not a file")
        hypervisors = read_toml(path)["hypervisor"]
        if not isinstance(hypervisors, dict):
            raise TypeError("hypervisor is not a table")
        qemu = hypervisors["qemu"]
        rows = tuple(Extension(name=str(row["name"]), path=str(row["path"]), is_ours=False,
                               parameters=str(row["verity_params"])) for row in qemu.get("guest_extension_images", []))
        return ClassConfig(kernel_params=str(qemu.get("kernel_params", "")), extensions=rows)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as wrong:
        raise BuildError(f"{path} is not a configuration of a class: {reason(wrong)}",
                         "give --class-config the configuration-*.toml of the class from a node") from wrong


def choose_extensions(image: Inventory, kata: KataClass, choice: Choice
                      ) -> tuple[tuple[Extension, ...], tuple[str, ...]]:
    """The whole list in the order given, then what is carried over; and what was left away, to be told."""
    _check_names(choice)
    own = {name: what for name, (pattern, what) in _OWN.items() if any(map(pattern.fullmatch, image.files))}
    given = {row.name: row for row in choice.given}
    if twice := sorted(given.keys() & own.keys()):
        raise BuildError(f"image {image.image} has {own[twice[0]]} itself; extension {twice[0]} would be a second one",
                         "leave the extension out, or take a base image without")
    carried = {row.name: row for row in choice.of_the_class}
    wanted = dict.fromkeys((*_needs(kata), *carried))
    if unknown := sorted(set(choice.dropped) - wanted.keys()):
        raise WrongCallError(f"--drop {unknown[0]}: class {kata.name} has no such extension",
                             f"name one of: {', '.join(wanted) or 'none'}")
    open_names = [name for name in wanted if name not in given]
    notes = tuple(f"extension {name} of the class is dropped, as --drop says" if name in choice.dropped else
                  f"extension {name} of the class is left out: image {image.image} has {own[name]} itself"
                  for name in open_names if name in choice.dropped or name in own)
    kept = [name for name in open_names if name not in choice.dropped and name not in own]
    if missing := [name for name in kept if name not in carried]:
        raise BuildError(
            f"class {kata.name} needs {' and '.join(missing)}, which neither image {image.image} nor an extension has",
            "give --extension NAME=IMAGE; or --class-config with the class's configuration-*.toml from a node, to keep "
            "its own; or --drop NAME to do without", findings=tuple(f"{name}: {_OWN[name][1]}" for name in missing))
    for name in kept:
        _check_measured(carried[name])
    return (*choice.given, *(carried[name] for name in kept)), notes


def _needs(kata: KataClass) -> tuple[str, ...]:
    """Equal to the lists of the Rust runtime's classes; those of the Go runtime expect it all in one image."""
    return (*(("gpu",) if kata.has_gpus else ()), *(("coco",) if kata.tee is not Tee.NONE else ()))


def _check_measured(row: Extension) -> None:
    if not row.parameters.strip():
        raise BuildError(f"extension {row.name} of the class has no verity parameters, and the guest would refuse it",
                         f"give a measured one with --extension {row.name}=IMAGE, or --drop {row.name}")
    parse_parameters(row.parameters)


def _check_names(choice: Choice) -> None:
    names = [row.name for row in choice.given]
    for name in names:
        if not _NAME.fullmatch(name):
            raise WrongCallError(f"extension name {name!r} does not fit",
                                 "1 to 10 letters, digits, '-' or '_': the disk's serial has 20 bytes")
        if names.count(name) > 1 or name in choice.dropped:
            raise WrongCallError(f"extension {name} is given and given or dropped again", "name each extension once")
