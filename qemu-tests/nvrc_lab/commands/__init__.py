# SPDX-License-Identifier: Apache-2.0
"""What people type: nvrc-lab's commands, and the tiers of ./dev test."""
