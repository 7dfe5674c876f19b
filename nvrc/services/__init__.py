# SPDX-License-Identifier: Apache-2.0
"""The daemons of a GPU VM: their table, how each is started, and how it says that it is ready."""
