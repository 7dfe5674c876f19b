# SPDX-License-Identifier: Apache-2.0
"""Entry of the frozen program. Nothing but what makes the start quick; nvrc.__main__ decides which command it is.

The garbage collector finds nothing while modules load, and walks everything again and again (3 ms).
"""

import gc
import os
import sys

gc.disable()

if os.getpid() == 1:
    import nvrc.pid1.main  # noqa: F401

    gc.freeze()

gc.enable()

from nvrc.__main__ import main  # noqa: E402

sys.exit(main())
