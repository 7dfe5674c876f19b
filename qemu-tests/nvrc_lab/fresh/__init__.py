# SPDX-License-Identifier: Apache-2.0
"""A machine that nobody has worked on: a minimal Debian, entered as a root of its own, with a clone of HEAD in it."""
