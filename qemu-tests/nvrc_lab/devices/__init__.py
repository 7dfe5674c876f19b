# SPDX-License-Identifier: Apache-2.0
"""Virtual devices beside QEMU: PCI functions and sockets, spoken over vhost-user and vfio-user."""
