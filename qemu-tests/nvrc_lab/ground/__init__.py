# SPDX-License-Identifier: Apache-2.0
"""What every room of the lab stands on: its exception, its places, its scratch folders."""
