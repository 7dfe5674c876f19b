# SPDX-License-Identifier: Apache-2.0
"""PID 1 itself: from the first instruction through supervision to the end of the machine."""
