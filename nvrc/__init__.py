# SPDX-License-Identifier: Apache-2.0
"""The guest init: PID 1, its supervisor, and the command line that explains both."""

__version__ = "0.1.0"
