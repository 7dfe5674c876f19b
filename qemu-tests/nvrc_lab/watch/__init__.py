# SPDX-License-Identifier: Apache-2.0
"""What a machine said, read and judged."""
