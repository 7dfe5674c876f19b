# SPDX-License-Identifier: Apache-2.0
"""What is done to the machine and how it is heard: the System seam, the event loop, processes, logs."""
