# SPDX-License-Identifier: Apache-2.0
"""From a tree to the file that a machine boots from."""
