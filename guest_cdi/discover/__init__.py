# SPDX-License-Identifier: Apache-2.0
"""One function per kind of thing that a container needs: each takes the open Driver and returns what it Found."""
