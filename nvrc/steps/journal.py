# SPDX-License-Identifier: Apache-2.0
"""Takes over /dev/log and the kernel log before any daemon exists, and sets the sysctls that logging needs."""

from __future__ import annotations

from errno import EINVAL

from nvrc.engine.facts import Facts, replace
from nvrc.engine.table import SHORT, nothing
from nvrc.machine.journal import Journal
from nvrc.machine.system import Files, System
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.trouble import Trouble, remark

# The socket sizes are those of the reference init. The queue length is ours: a Unix datagram socket is bounded by
# the number of queued datagrams (10 by default), and a daemon blocks in syslog(3) when the queue is full.
SYSCTLS = (
    ("/proc/sys/net/core/rmem_default", "16777216"),
    ("/proc/sys/net/core/wmem_default", "16777216"),
    ("/proc/sys/net/core/rmem_max", "16777216"),
    ("/proc/sys/net/core/wmem_max", "16777216"),
    ("/proc/sys/net/unix/max_dgram_qlen", "4096"),
    (paths.PRINTK_DEVKMSG, "on\n"),  # the kernel wants the newline
)


deadline_s, tell = SHORT, nothing


def _decided(system: Files) -> tuple[Trouble, ...]:
    """A word of the command line decided for good what programs may write to the kernel's log; `on` is no limit."""
    found = system.read(paths.PRINTK_DEVKMSG, 64).decode(errors="replace").strip()
    if found != "on":
        return ()
    return (remark("printk.devkmsg=on on the kernel command line lets containers fill the kernel's log and hide "
                   "messages of the driver"),)


def run(system: System, facts: Facts) -> Facts:
    for path, value in SYSCTLS:
        try:
            system.write(path, value.encode())
        except OSError as err:
            if path == paths.PRINTK_DEVKMSG and err.errno == EINVAL:
                facts = replace(facts, warnings=facts.warnings + _decided(system))
                continue
            raise NvrcError("E_JOURNAL", f"cannot write {value.strip()} to {path}: {err.strerror}",
                            "build the guest kernel with CONFIG_NET, CONFIG_UNIX and CONFIG_PRINTK") from err
    try:
        log_socket = system.bind_log(paths.DEV_LOG)
    except OSError as err:
        raise NvrcError("E_JOURNAL", f"cannot bind {paths.DEV_LOG}: {err.strerror}") from err
    try:
        kernel_log = system.open_reader(paths.KMSG)
    except OSError as err:
        raise NvrcError("E_JOURNAL", f"cannot read {paths.KMSG}: {err.strerror}") from err
    return replace(facts, journal=Journal(system, log_socket, kernel_log))
