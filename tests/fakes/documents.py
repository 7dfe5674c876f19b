# SPDX-License-Identifier: Apache-2.0
"""The commands of the four programs as their parsers have them, and what is wrong with a document that one printed."""

from __future__ import annotations

from collections.abc import Iterator

from nvrc.pages.manual import describe_cdi, describe_nvrc
from nvrc.vocabulary.manual import options_of
from nvrc_lab.manual import IMAGE, LAB

# Commands that boot machines or build an image: the words after them. Their tests are in the QEMU tier.
BOOTED: dict[str, list[str]] = {
    "nvrc-image build": ["lab"],
    "nvrc-lab boot": ["cpu"],
    "nvrc-lab matrix": ["parameters-malformed"],
    "nvrc-lab bench": ["cpu", "--runs", "1"],
    "nvrc-lab soak": ["parameters-malformed", "--boots", "1"],
    "nvrc-lab life": ["--hours", "0.001"],
}


def walk_commands() -> Iterator[tuple[str, frozenset[str]]]:
    """Each command that is no group of others, with its options."""
    for program in (describe_nvrc(), describe_cdi(), IMAGE, LAB):
        for command in program.commands:
            if command.words and not program.below(command.words):
                names = (name for action in options_of(command.parser) for name in action.option_strings)
                yield " ".join((program.name, *command.words)), frozenset(names)


def unset(value: object, at: str = "") -> Iterator[str]:
    """Places of empty strings: what is unset is null. An empty item of a list is an item."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from ([f"{at}.{key}"] if item == "" else unset(item, f"{at}.{key}"))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from unset(item, f"{at}[{index}]")
