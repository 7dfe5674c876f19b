# SPDX-License-Identifier: Apache-2.0
"""What the init of a machine and the hook that waits for its word must agree on."""

# A hook of our own: it holds a container back until the init has put its word into a file.
WAIT_READY = "wait-ready"
WORD = b"ready\n"
