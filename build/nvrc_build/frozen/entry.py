# SPDX-License-Identifier: Apache-2.0
"""Entry of the frozen program: the name it was started by says which command it is."""

import sys

if sys.argv[0].rpartition("/")[2] == "guest-cdi":
    from guest_cdi.__main__ import main
else:
    from nvrc.__main__ import main

sys.exit(main())
