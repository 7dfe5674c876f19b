# SPDX-License-Identifier: Apache-2.0
"""What is done with a finished image: measured, overlaid, enrolled, handed to Kata."""
