# SPDX-License-Identifier: Apache-2.0
"""What the lab lays over an image: stand-ins, modules, configuration."""
