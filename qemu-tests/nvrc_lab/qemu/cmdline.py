# SPDX-License-Identifier: Apache-2.0
"""The kernel command line that the lab boots with: what Kata's runtime passes, plus the caller's.

Consoles and clock are the machine's (machine.py), whose words come first.

The kernel, the init and the agent all take the last value of a repeated key, so the caller's words come last.
"""

from __future__ import annotations

from nvrc_lab.ground.errors import LabError

# COMMAND_LINE_SIZE of x86 less the final NUL, and less what the machine puts before it.
KERNEL_BYTES, MACHINE_BYTES = 2047, 136
LIMIT_BYTES = KERNEL_BYTES - MACHINE_BYTES
BASE = (
    "panic=1", "reboot=k", "quiet", "rcupdate.rcu_expedited=1",
    "cryptomgr.notests", "net.ifnames=0", "selinux=0", "cgroup_no_v1=all",
)
# The stand-in agent reports what it was given and powers off, as kata-agent does at the end of a pod.
STANDIN = ("lab.agent=poweroff",)


def make_cmdline(extra: str, *, has_standin: bool) -> str:
    line = " ".join((*BASE, *(STANDIN if has_standin else ()), *([extra.strip()] if extra.strip() else ())))
    if len(line.encode(errors="surrogateescape")) > LIMIT_BYTES:
        raise LabError(f"the kernel command line is longer than {LIMIT_BYTES} of the kernel's {KERNEL_BYTES} bytes",
                       "shorten --cmdline")
    if "\n" in line or "\0" in line:
        raise LabError("the kernel command line holds a line break or NUL", "write --cmdline on one line")
    return line
