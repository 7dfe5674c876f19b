# SPDX-License-Identifier: Apache-2.0
"""Why a module was refused, in words. The kernel gives a number and, in its log, a sentence: both go into the message.

Numbers are those of init_module(2) and of kernel/module/ in Linux 5.17 to 6.18.
"""

from __future__ import annotations

import errno

from guest_cdi.lean.light import TYPE_CHECKING, Mapping, NamedTuple
from nvrc.machine.system import Kernel
from nvrc.vocabulary.errors import NvrcError

if TYPE_CHECKING:
    from nvrc.vocabulary.errors import Code

_SHOWN = 3
_USER_FACILITY = 8  # priorities from here on are not the kernel's own


class Refused(NamedTuple):
    """The module, its file, and what vermagic the file carries ("" where it cannot be read)."""

    name: str
    path: str
    release: str
    vermagic: str


# What the number means for a module, and its code.
_SIGNATURE: tuple[Code, str] = ("E_MODULE_SIGNATURE", "is not signed with a key that this kernel trusts")
_MEANINGS: Mapping[int, tuple[Code, str]] = {
    errno.ENOKEY: _SIGNATURE, errno.EKEYREJECTED: _SIGNATURE, errno.EBADMSG: _SIGNATURE,
    errno.ENOPKG: _SIGNATURE, errno.ENODATA: _SIGNATURE,
    errno.ENOEXEC: ("E_MODULE_VERSION", "is not a module for this kernel"),
    errno.ENOENT: ("E_MODULE_SYMBOL", "needs a symbol that neither the kernel nor a loaded module has"),
    errno.ENODEV: ("E_MODULE_DEVICE", "found no device to drive"),
    errno.EINVAL: ("E_MODULE_OPTIONS", "was refused for an invalid parameter, or was built against another kernel"),
    errno.ERANGE: ("E_MODULE_OPTIONS", "was refused for a parameter out of range"),
    errno.EPERM: ("E_MODULE_LOAD", "may not be loaded: module loading is disabled or locked down"),
    errno.EBUSY: ("E_MODULE_LOAD", "is being loaded or unloaded by another program"),
    errno.ENOMEM: ("E_MODULE_LOAD", "does not fit into the VM's memory"),
    errno.EOPNOTSUPP: ("E_MODULE_COMPRESSION", "is compressed, and this kernel cannot unpack it"),
}

_OF_ANOTHER_KERNEL = (errno.ENOEXEC, errno.EINVAL, errno.ENOENT)


def explain(system: Kernel, refused: Refused, err: OSError) -> NvrcError:
    said = kernel_words(system, refused.name)
    code, meaning = _meaning(refused, err.errno or 0, said)
    name = errno.errorcode.get(err.errno or 0, str(err.errno))
    what = f"module {refused.name} {meaning} ({name}, {refused.path})"
    return NvrcError(code, what + (f'; the kernel says "{said[-1][:160]}"' if said else ""), details=said[:-1])


def _meaning(refused: Refused, number: int, said: tuple[str, ...]) -> tuple[Code, str]:
    """A kernel with symbol versions takes files of other releases, so a vermagic alone explains nothing."""
    if number == errno.EINVAL and any("invalid for parameter" in line for line in said):
        return "E_MODULE_OPTIONS", "was refused for an invalid parameter"
    if number == errno.EINVAL and any("disagrees about version of symbol" in line for line in said):
        return "E_MODULE_VERSION", "was built against another configuration of this kernel"
    built_for = refused.vermagic.split(" ", 1)[0][:80]
    if number in _OF_ANOTHER_KERNEL and built_for not in ("", refused.release):
        return "E_MODULE_VERSION", f"is built for kernel {built_for}, this is {refused.release}"
    return _MEANINGS.get(number, ("E_MODULE_LOAD", "was refused by the kernel"))


def kernel_words(system: Kernel, module: str) -> tuple[str, ...]:
    """The kernel's last lines about a module."""
    starts: tuple[str, ...] = (f"{module}:", f"{module.replace('_', '-')}:", "Loading of ")
    if module.startswith("nvidia"):
        starts += ("NVRM:",)
    return tuple(text for text in map(_text, system.kernel_records()) if text.startswith(starts))[-_SHOWN:]


def _text(record: bytes) -> str:
    """The message of a record of /dev/kmsg, if the kernel itself wrote it."""
    prefix, _, message = record.partition(b";")
    priority = prefix.split(b",", 1)[0]
    if not priority.isdigit() or int(priority) >= _USER_FACILITY:
        return ""
    text = message.split(b"\n", 1)[0].decode("utf-8", "replace")
    return "".join(char if char.isprintable() else "?" for char in text)


def find_vermagic(image: bytes) -> str:
    """`6.12.1 SMP preempt mod_unload` out of a module's .modinfo, which is a row of NUL-terminated assignments.

    It is searched for, not looked up: nothing is decided by it but the wording of a message.
    """
    at = image.find(b"\0vermagic=")
    if at < 0:
        return ""
    start = at + len(b"\0vermagic=")
    value = image[start:start + 200].partition(b"\0")[0]
    return value.decode("ascii", "replace") if value.isascii() else ""
