# SPDX-License-Identifier: Apache-2.0
"""From a scenario to a machine that ran."""
