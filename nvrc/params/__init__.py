# SPDX-License-Identifier: Apache-2.0
"""What the kernel command line says, and what the image's policy lets it say: parsed, checked and explained."""
