# SPDX-License-Identifier: Apache-2.0
"""Dispatch only: PID 1 boots and ignores its arguments, which come from the kernel command line; all else is a command.

The frozen program carries several names (links to one file); `guest-cdi` and `nvidia-cdi-hook` select those commands.
"""

from __future__ import annotations

import os
import sys


def main() -> int:
    if os.getpid() == 1:
        from nvrc.pid1.main import main as boot

        boot()
    name = os.path.basename(sys.argv[0])
    if name in ("guest-cdi", "nvidia-cdi-hook", "nvidia-ctk"):
        from guest_cdi.__main__ import main as guest_cdi

        return guest_cdi()
    if name == "nvrc-metrics":
        return _run_beside()
    from nvrc.cli import main as command
    from nvrc.vocabulary.manners import prepare_streams

    prepare_streams()
    return command(sys.argv[1:], sys.stdout, sys.stderr)


def _run_beside() -> int:
    """What only the agent beside the pod needs lies in the folder of that name, where an image has it."""
    import nvrc

    folder = os.path.dirname(sys.argv[0])
    sys.path += [folder, f"{folder}/lib-dynload"]
    nvrc.__path__.append(f"{folder}/nvrc")
    from nvrc.beside.main import main as watch

    return watch(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
