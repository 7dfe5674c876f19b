# SPDX-License-Identifier: Apache-2.0
"""The real machine behind the seam, as the sum of its four roles."""

from __future__ import annotations

from nvrc.machine.console import LinuxConsole
from nvrc.machine.files import LinuxFiles
from nvrc.machine.kernel import LinuxKernel
from nvrc.machine.processes import LinuxProcesses


class LinuxSystem(LinuxConsole, LinuxFiles, LinuxKernel, LinuxProcesses):
    """The machine below `root`, which all roles share."""
