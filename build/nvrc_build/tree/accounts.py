# SPDX-License-Identifier: Apache-2.0
"""The users that an image's slices add, as /etc/passwd and /etc/group. Nobody has a shell or a password."""

from __future__ import annotations

from collections.abc import Sequence

from nvrc_build.declared.declared import Slice
from nvrc_build.declared.parts import User
from nvrc_build.tree.tree import Origin, Tree


def add_accounts(slices: Sequence[Slice], tree: Tree, findings: list[str]) -> None:
    """Written for the first slice that has users; two users with one name or number are a finding."""
    owners: dict[str | int, str] = {}
    users: list[User] = []
    for row in slices:
        for user in row.users:
            for key in (user.name, user.number):
                if owners.setdefault(key, row.name) != row.name or user in users:
                    findings.append(f"slice {row.name!r}: user {user.name} ({user.number}) is already one of slice "
                                    f"{owners[key]!r}")
            users.append(user)
    if not users:
        return
    users.sort(key=lambda user: user.number)
    origin = Origin(slice=next(row.name for row in slices if row.users))
    passwd = "".join(f"{user.name}:x:{user.number}:{user.number}:{user.name}:{user.home}:/nonexistent\n"
                     for user in users)
    group = "".join(f"{user.group or user.name}:x:{user.number}:\n" for user in users)
    tree.add_file("/etc/passwd", passwd.encode(), origin)
    tree.add_file("/etc/group", group.encode(), origin)
