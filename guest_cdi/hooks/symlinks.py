# SPDX-License-Identifier: Apache-2.0
"""create-symlinks: the links that the driver's libraries are found by.

A link that already says the right thing is left alone; a file or another link gives way in one rename; missing
parents are made. The target is text and is never looked at: it may be relative, dangling, or lead anywhere, because
only the container follows it.
"""

from __future__ import annotations

import os
import posixpath

from guest_cdi.hooks.action import Action, Values
from guest_cdi.hooks.root import Handle, Root, clean, replace_link
from guest_cdi.lean.errors import CdiError
from guest_cdi.lean.light import NamedTuple, Sequence, partial


class Link(NamedTuple):
    target: str
    path: str


def prepare(values: Values) -> Action:
    return partial(create_links, tuple(dict.fromkeys(parse_link(text) for text in values.get("link", ()))))


def parse_link(text: str) -> Link:
    target, separator, path = text.partition("::")
    if not (separator and target and path) or "::" in path or clean(path) == "/":
        raise CdiError("E_CDI_USAGE", f"create-symlinks: --link {text!r} is not TARGET::LINK")
    return Link(target, clean(path))


def create_links(links: Sequence[Link], root: Root) -> list[str]:
    return [f"{link.path} -> {link.target}" for link in links if _create(root, link)]


def _create(root: Root, link: Link) -> bool:
    directory, name = posixpath.split(link.path)
    with root.make_directories(directory) as parent:
        if _says(parent, name, link.target):
            return False
        replace_link(parent, name, link.target)
    return True


def _says(parent: Handle, name: str, target: str) -> bool:
    try:
        return os.readlink(name, dir_fd=parent.fd) == target
    except OSError:  # not there, or not a link
        return False
