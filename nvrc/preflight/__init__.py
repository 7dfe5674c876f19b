# SPDX-License-Identifier: Apache-2.0
"""The preflight of a Kata host: `nvrc doctor --host`. Runs on hosts only and is left out of the frozen init."""
