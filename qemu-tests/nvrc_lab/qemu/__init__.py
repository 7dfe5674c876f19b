# SPDX-License-Identifier: Apache-2.0
"""QEMU: finding it, what it can do here, and its command line."""
