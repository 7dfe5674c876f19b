# SPDX-License-Identifier: Apache-2.0
"""Extension images: disks found, verified by dm-verity and laid over the root."""
