# SPDX-License-Identifier: Apache-2.0
"""The tree of an image as a value, and the archives written from it."""
