# SPDX-License-Identifier: Apache-2.0
"""Entry of the frozen program. Nothing but what makes the start quick; nvrc.__main__ decides which command it is.

The garbage collector finds nothing while modules load, and walks everything again and again (3 ms). dataclasses asks
inspect, which costs 5 ms and brings ast, dis and tokenize along, for two things only: a class's own annotations, and a
signature to use as doc string where there is none. It gets just that; everybody else gets the real inspect.
"""

import gc
import os
import sys


def _no_signature(_callable: object) -> str:
    raise ValueError


def _own_annotations(owner: type) -> dict[str, object]:
    return dict(vars(owner).get("__annotations__", {}))


gc.disable()
inspect = type(sys)("inspect")
vars(inspect).update(signature=_no_signature, get_annotations=_own_annotations)
sys.modules["inspect"] = inspect
import dataclasses  # noqa: E402, F401

del sys.modules["inspect"]

if os.getpid() == 1:
    import nvrc.pid1  # noqa: F401

    gc.freeze()

gc.enable()

from nvrc.__main__ import main  # noqa: E402

sys.exit(main())
