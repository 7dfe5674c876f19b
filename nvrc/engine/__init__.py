# SPDX-License-Identifier: Apache-2.0
"""The executor of a boot table, and the facts that steps pass on."""
