# SPDX-License-Identifier: Apache-2.0
"""The policy by which the init bounds the kernel command line: the owner's own, and the check of whatever an image has.

A slice may bring one (policy-confidential does); a file given to the build takes its place. Either is read by the
init's own parser before there is an image, so no image ends its first boot for a mistake in it.
"""

from __future__ import annotations

from pathlib import Path

from nvrc.params.policy import load_policy
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.paths import POLICY
from nvrc_build.ground.errors import BuildError
from nvrc_build.tree.tree import Kind, Origin, Tree

PRODUCT = "@policy"
PLACE = POLICY.lstrip("/")
_ORIGIN = Origin(slice="given-policy", package=PRODUCT)


def check_given(name: str, file: Path) -> bytes:
    """The content of a file that is a policy; BuildError with every mistake in it."""
    if not file.is_file():
        raise BuildError(f"policy {name} is not a file", "give --policy a policy.toml, see docs/policy.md")
    data = file.read_bytes()
    try:
        load_policy(data, name)
    except NvrcError as wrong:
        raise BuildError(f"policy {wrong.what}", "correct it; nvrc policy check FILE says the same") from wrong
    return data


def put_given(tree: Tree, root: Path) -> None:
    """In place of what a slice brought."""
    tree.replace_file(POLICY, root / PLACE, _ORIGIN)


def wrong_policy(tree: Tree) -> list[str]:
    """What the init would refuse of the policy in the image, or because it is none."""
    entry = tree.get(POLICY)
    if entry is None:
        return []
    if entry.kind is not Kind.FILE:
        return [f"slice {entry.origin.slice!r}: {POLICY} is a {entry.kind.value}; the init takes a file only"]
    try:
        load_policy(entry.read())
    except NvrcError as wrong:
        return [f"slice {entry.origin.slice!r}: {wrong.what}"]
    return []
