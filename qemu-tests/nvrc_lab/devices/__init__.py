# SPDX-License-Identifier: Apache-2.0
"""Virtual devices beside QEMU: sockets, spoken over vhost-user."""
