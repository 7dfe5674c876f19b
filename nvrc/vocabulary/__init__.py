# SPDX-License-Identifier: Apache-2.0
"""The words that everybody uses: codes, verdicts, paths, the console grammar, JSON. Imports no other room."""
