# SPDX-License-Identifier: Apache-2.0
"""Declarations below rootfs/ as values, and the loader that reads them."""
