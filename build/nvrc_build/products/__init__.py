# SPDX-License-Identifier: Apache-2.0
"""What the build makes itself: frozen program, kernel, driver modules, components."""
