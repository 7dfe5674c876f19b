# SPDX-License-Identifier: Apache-2.0
"""disable-device-node-modification: the container sees driver parameters that forbid making device nodes.

Libraries of the driver read /proc/driver/nvidia/params and make nodes for every GPU they hear of, which breaks
isolation and clutters /dev. A copy with the permission withdrawn is put over the file. Both mounts are made and
attached by descriptor: no path of the container is looked up by mount. The file covered must lie on procfs and be
reached without a single link.
"""

from __future__ import annotations

import os

from guest_cdi.hooks.action import Action, Values
from guest_cdi.hooks.root import IN_ROOT, Handle, Root, create_file, random_name, read_bounded
from guest_cdi.lean import linux
from guest_cdi.lean.errors import CdiError

PARAMS = "/proc/driver/nvidia/params"
SCRATCH_PREFIX = "/run/nvidia-ctk-hook"
COPY_NAME = "nvct-params"
PARAMS_LIMIT_BYTES = 64 << 10
ALLOWED = b"ModifyDeviceFiles: 1"
FORBIDDEN = b"ModifyDeviceFiles: 0"
HARMLESS = linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NODEV | linux.MOUNT_ATTR_NOEXEC
SEALED = HARMLESS | linux.MOUNT_ATTR_RDONLY | linux.MOUNT_ATTR_NOSYMFOLLOW


def prepare(_values: Values) -> Action:
    return cover_params


def cover_params(root: Root, source: str = PARAMS, target: str = PARAMS) -> list[str]:
    """source is read on this machine, target is covered in the container."""
    content = _read_source(source)
    if ALLOWED not in content.splitlines():
        return []
    wanted = forbid(content)
    with root.open(target, resolve=IN_ROOT | linux.RESOLVE_NO_SYMLINKS) as covered:
        if linux.filesystem_type(covered.fd) != linux.PROC_SUPER_MAGIC:
            return _accept_covered(root, target, wanted)
        _cover(root, covered, wanted)
    return [f"{target} covered"]


def _cover(root: Root, covered: Handle, content: bytes) -> None:
    with _scratch(root, content) as scratch, Handle(linux.clone_tree(scratch.fd, COPY_NAME)) as copy:
        linux.set_mount_attributes(copy.fd, SEALED)
        linux.set_mount_attributes(scratch.fd, SEALED)
        linux.attach_mount(copy.fd, covered.fd)


def _accept_covered(root: Root, target: str, wanted: bytes) -> list[str]:
    """What is not on procfs is right only if it already says what it should, as after an earlier call."""
    try:
        if root.read(target, PARAMS_LIMIT_BYTES) == wanted:
            return []
    except OSError as err:
        raise _not_procfs(target) from err
    raise _not_procfs(target)


def _not_procfs(target: str) -> CdiError:
    return CdiError("E_CDI_HOOK_ROOT", f"{target} of the container is not on procfs",
                    "check the mounts of the container's config.json: its /proc must be a mount of proc")


def forbid(content: bytes) -> bytes:
    return b"".join(
        (FORBIDDEN if line == ALLOWED else line) + b"\n" for line in content.splitlines()
    )


def _read_source(source: str) -> bytes:
    try:
        with Handle(os.open(source, os.O_RDONLY | os.O_CLOEXEC)) as opened:
            return read_bounded(opened.fd, PARAMS_LIMIT_BYTES, source)
    except FileNotFoundError:
        return b""  # no driver, nothing to forbid


def _scratch(root: Root, content: bytes) -> Handle:
    """A tmpfs with the copy in it, mounted where the container's own files cannot be meant."""
    path = SCRATCH_PREFIX + random_name()
    with root.make_directories(path) as place:
        mount = Handle(linux.new_filesystem("tmpfs", HARMLESS, size=str(len(content)), mode="0755"))
        create_file(mount, COPY_NAME, content, 0o444)
        linux.attach_mount(mount.fd, place.fd)
    return mount
