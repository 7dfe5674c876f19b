# SPDX-License-Identifier: Apache-2.0
"""Writes nvrc/machine/filters.py: the filters of system calls as the kernel takes them, from the lists in calls.py.

Assembled here, and not in a child of PID 1 for each program that it starts: there it took a third of a millisecond.
"""

from __future__ import annotations

import sys
import textwrap

from nvrc.machine.calls import ARCHITECTURES, make_filter
from nvrc.machine.rights import Calls

# No pid, as pid_max is 2^22 at most: here the program has its own.
OWN_PID = 0x7FFFFFF1
HEAD = '''\
# SPDX-License-Identifier: Apache-2.0
"""Filters of system calls as the kernel takes them, by machine and list. Written by `python -m nvrc.pages.filters`.

Edit nvrc/machine/calls.py instead, which has the lists and makes these programs; a test compares.
"""

from __future__ import annotations

OWN_PID = 0x{own_pid:08X}  # stands for the pid of the program itself
# By machine (uname -m) and list; eight bytes are an instruction.
FILTERS = {{
{rows}
}}
'''


def render_filters() -> str:
    rows = []
    for machine in ARCHITECTURES:
        for calls in Calls:
            lines = textwrap.wrap(make_filter(machine, calls, OWN_PID).hex(), 112)
            rows.append(f'    ("{machine}", "{calls.name}"):\n' + "\n".join(f'    "{line}"' for line in lines) + ",")
    return HEAD.format(own_pid=OWN_PID, rows="\n".join(rows))


if __name__ == "__main__":
    sys.stdout.write(render_filters())
