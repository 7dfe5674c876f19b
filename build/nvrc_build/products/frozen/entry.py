# SPDX-License-Identifier: Apache-2.0
"""Entry of the frozen program. Nothing but what makes the start quick; nvrc.__main__ decides which command it is.

The garbage collector finds nothing while modules load, and walks everything again and again (3 ms). What a process
loads as a whole is run in an order in which it can run: having one module after another looked for costs as much as
running them. That is for processes with one thread: a second one could meet a module that is half run.
"""

from __future__ import annotations

import _imp
import gc
import os
import sys

from start import ORDERS  # type: ignore[import-not-found]  # by write.py

gc.disable()


class Ahead:
    """Before one of the modules in the table is looked for, runs what it needs; itself it is found as any other."""

    @staticmethod
    def find_spec(name: str, _path: object = None, _target: object = None) -> None:
        for needed, is_package in ORDERS.pop(name, ()):
            if needed not in sys.modules:
                run(needed, is_package)


def run(name: str, is_package: bool) -> None:
    module = type(sys)(name)
    parent, _, child = name.rpartition(".")
    module.__package__ = name if is_package else parent
    if is_package:
        module.__path__ = []
    sys.modules[name] = module
    exec(_imp.get_frozen_object(name), module.__dict__)
    if parent:
        setattr(sys.modules[parent], child, module)


sys.meta_path.insert(0, Ahead)

if os.getpid() == 1:
    import nvrc.pid1.main  # noqa: F401

    gc.freeze()
    # What it makes until the agent runs stays, for the most part; nvrc.machine.memory goes back to the usual number.
    gc.set_threshold(50_000)

gc.enable()

from nvrc.__main__ import main  # noqa: E402

sys.exit(main())
