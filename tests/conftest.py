# SPDX-License-Identifier: Apache-2.0
"""Property tests are the same on every run and on every machine: a fixed seed, no clock, nothing kept on disk."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("fixed", derandomize=True, database=None, deadline=None, max_examples=60)
settings.load_profile("fixed")
