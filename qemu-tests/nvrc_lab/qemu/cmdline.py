# SPDX-License-Identifier: Apache-2.0
"""The kernel command line that the lab boots with: what Kata's runtime passes, on a serial console, plus the caller's.

The kernel, the init and the agent all take the last value of a repeated key, so the caller's words come last.
"""

from __future__ import annotations

from nvrc_lab.ground.errors import LabError

# An emulated processor looks vulnerable, and the kernel then changes page tables at every entry, which emulation pays
# for dearly: a third of the time of a start. A guest of the lab has nothing to keep from itself.
LAB_ONLY = ("mitigations=off",)
LIMIT_BYTES = 2047  # COMMAND_LINE_SIZE of x86 less the final NUL
BASE = (
    "console=ttyS0", "panic=1", "reboot=k", "quiet", "tsc=reliable", "no_timer_check", "rcupdate.rcu_expedited=1",
    "cryptomgr.notests", "net.ifnames=0", "selinux=0", "cgroup_no_v1=all", *LAB_ONLY,
)
# The stand-in agent reports what it was given and powers off, as kata-agent does at the end of a pod.
STANDIN = ("lab.agent=poweroff",)


def make_cmdline(extra: str, *, has_standin: bool) -> str:
    line = " ".join((*BASE, *(STANDIN if has_standin else ()), *([extra.strip()] if extra.strip() else ())))
    if len(line.encode(errors="surrogateescape")) > LIMIT_BYTES:
        raise LabError(f"the kernel command line is longer than the kernel's {LIMIT_BYTES} bytes", "shorten --cmdline")
    if "\n" in line or "\0" in line:
        raise LabError("the kernel command line holds a line break or NUL", "write --cmdline on one line")
    return line
