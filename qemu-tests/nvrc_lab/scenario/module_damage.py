# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with a kernel module file, done to the bytes of a good one. Pure; the kernel finds the rest.

Each damage is what a real mistake leaves behind: a driver of another set, one stripped after it was signed, one
without the module it builds upon.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

from nvrc_lab.ground.errors import LabError

OTHER_RELEASE = "5.10.0-28-cloud-amd64"
# What scripts/sign-file puts at the end of a module: a signature, struct module_signature, and this text.
_SIGNED = b"~Module signature appended~\n"
_PKCS7 = 2
_NO_KEY = b"a signature that no key has made"
_CRC_BYTES = 8
# The symbol that every module has, and one of nvidia.ko that only nvidia-uvm.ko asks for.
_EVERY_MODULES = b"module_layout"
_OF_THE_DRIVER = b"nvUvmInterfaceRegisterUvmCallbacks"


def build_for_other(image: bytes) -> bytes:
    """The name of the kernel it was built for, all of it: with symbol versions the release alone is passed over."""
    start = image.index(b"\0vermagic=") + len(b"\0vermagic=")
    end = image.index(b"\0", start)
    other = f"{OTHER_RELEASE} SMP mod_unload modversions ".encode()
    return image[:start] + other.ljust(end - start, b"\0") + image[end:]


def configure_differently(image: bytes) -> bytes:
    """Built for a kernel of this very name, with other options: the checksum of what all modules use differs."""
    at = image.index(_EVERY_MODULES + b"\0") - _CRC_BYTES
    (crc,) = struct.unpack_from("<Q", image, at)
    return image[:at] + struct.pack("<Q", crc ^ 1) + image[at + _CRC_BYTES:]


def spoil_signature(image: bytes) -> bytes:
    """A signature that is none. Refused by every kernel that knows signatures, whether it demands them or not."""
    info = struct.pack(">BBBBB3xI", 0, 0, _PKCS7, 0, 0, len(_NO_KEY))
    return image + _NO_KEY + info + _SIGNED


def rename_symbol(image: bytes) -> bytes:
    """Needs a symbol that an nvidia.ko of another release has, and this one has not."""
    if _OF_THE_DRIVER not in image:
        raise LabError("module-lacks-symbol: the module takes no symbol of nvidia.ko", "use nvidia-uvm, which does")
    return image.replace(_OF_THE_DRIVER, _OF_THE_DRIVER[:-1] + b"2")


DAMAGES: Mapping[str, Callable[[bytes], bytes]] = {
    "other-kernel": build_for_other,
    "other-config": configure_differently,
    "bad-signature": spoil_signature,
    "lacks-symbol": rename_symbol,
}
