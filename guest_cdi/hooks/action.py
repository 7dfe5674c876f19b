# SPDX-License-Identifier: Apache-2.0
"""What a hook is between its arguments and its effect."""

from __future__ import annotations

from guest_cdi.hooks.root import Root
from guest_cdi.lean.light import Callable, Mapping, Sequence

Values = Mapping[str, tuple[str, ...]]
"""Option name to the values given for it, in order."""

Action = Callable[[Root], Sequence[str]]
"""Does the work in a container and says what it changed, one line each."""
