# SPDX-License-Identifier: Apache-2.0
"""What a refusal of the kernel means for a hook."""

from __future__ import annotations

import errno

from guest_cdi.lean.errors import CdiError

OLD_KERNEL = "container paths can only be confined with openat2 and the mount calls of Linux 5.14; boot such a kernel"
READ_ONLY = "start the container with a writable root, or by a runtime that seals it after the hooks have run"
# EAGAIN: the path was exchanged during each of many lookups, which nobody does by accident.
ESCAPES = frozenset((errno.ELOOP, errno.EXDEV, errno.EAGAIN))


def explain(err: OSError) -> CdiError:
    what = f"{err.filename}: {err.strerror}" if err.filename else str(err)
    if err.errno == errno.ENOSYS:
        return CdiError("E_CDI_HOOK_KERNEL", what, OLD_KERNEL)
    if err.errno == errno.EROFS:
        return CdiError("E_CDI_HOOK", what, READ_ONLY)
    return CdiError("E_CDI_HOOK_ROOT" if err.errno in ESCAPES else "E_CDI_HOOK", what)
