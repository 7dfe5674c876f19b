# SPDX-License-Identifier: Apache-2.0
"""Scenarios as values: the machine, its faults, what must come of it."""
