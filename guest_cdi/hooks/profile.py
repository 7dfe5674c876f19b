# SPDX-License-Identifier: Apache-2.0
"""update-application-profile: tell EGL and Vulkan which GPUs the container has.

The driver takes a mask of GPU minors from its application profiles; without one it tries every GPU of the machine.
"""

from __future__ import annotations

import os
import posixpath
import stat

from guest_cdi.hooks.action import Action, Values
from guest_cdi.hooks.root import DIRECTORY, Root, replace_file
from guest_cdi.lean.light import Iterable

PROFILE = "/etc/nvidia/nvidia-application-profiles-rc.d/10-container.conf"
MASK_BITS = 64


def prepare(_values: Values) -> Action:
    return write_profile


def write_profile(root: Root) -> list[str]:
    mask = gpu_mask(gpu_minors(root))
    if not mask:
        return []
    directory, name = posixpath.split(PROFILE)
    with root.make_directories(directory, 0o555) as parent:
        replace_file(parent, name, render(mask), 0o444)
    return [f"{PROFILE} mask {mask:#x}"]


def gpu_minors(root: Root) -> list[int]:
    """Minors of the character devices /dev/nvidia<N>, whatever N says."""
    try:
        names = [name for name in root.list("/dev") if is_gpu_name(name)]
    except FileNotFoundError:
        return []
    with root.open("/dev", DIRECTORY) as dev:
        found = [os.stat(name, dir_fd=dev.fd, follow_symlinks=False) for name in names]
    return [os.minor(node.st_rdev) for node in found if stat.S_ISCHR(node.st_mode)]


def is_gpu_name(name: str) -> bool:
    number = name.removeprefix("nvidia")
    return number != name and number.isascii() and number.isdigit()


def gpu_mask(minors: Iterable[int]) -> int:
    """A minor that the mask has no bit for is left out."""
    mask = 0
    for minor in minors:
        if minor < MASK_BITS:
            mask |= 1 << minor
    return mask


def render(mask: int) -> bytes:
    # The number is hexadecimal, which JSON does not have: the driver's parser wants it so.
    return (
        '{"profiles":[{"name":"_container_","settings":["EGLVisibleDGPUDevices",'
        f'{mask:#x}'
        ']}],"rules":[{"pattern":[],"profile":"_container_"}]}'
    ).encode("ascii")
