# SPDX-License-Identifier: Apache-2.0
"""Declarations for tests of the factory to start from."""

from __future__ import annotations

from nvrc_build.declared.declared import Slice

EMPTY = Slice(name="one", why="a test", needs=(), takes=(), folders=(), links=(), texts=(), filelists=(), expects=(),
              configs=(), libraries=(), embeds=(), kernel_needs=(), console=False, users=(),
              unscripted=())
