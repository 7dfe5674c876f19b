# SPDX-License-Identifier: Apache-2.0
"""The agent beside the pod: a process of its own that watches the guest and serves metrics. Never loaded by PID 1."""
