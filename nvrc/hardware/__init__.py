# SPDX-License-Identifier: Apache-2.0
"""What is on the bus, and the kernel modules and device nodes that it needs."""
