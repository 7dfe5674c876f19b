# SPDX-License-Identifier: Apache-2.0
"""Programs run inside a pinned root, without network."""
