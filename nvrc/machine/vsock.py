# SPDX-License-Identifier: Apache-2.0
"""A socket that the host of a VM can reach; vsock(7)."""

from __future__ import annotations

import _socket
import errno

from nvrc.machine import linux

MOST_WAITING = 8
GET_LOCAL_CID = 0x7B9  # IOCTL_VM_SOCKETS_GET_LOCAL_CID
NO_CID = b"\xff\xff\xff\xff"
ANY_CID = 0xFFFFFFFF


def listen(device: str, port: int) -> int:
    """A listening socket on a vsock port. `device` is /dev/vsock, which knows whether the machine has a transport:
    binding succeeds without one, and nobody would ever come."""
    if linux.ioctl(device, GET_LOCAL_CID, bytes(4)) == NO_CID:
        raise OSError(errno.ENODEV, "the machine has no vsock device")
    sock = _socket.socket(_socket.AF_VSOCK, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC)
    try:
        sock.bind((ANY_CID, port))
        sock.listen(MOST_WAITING)
        return sock.detach()
    finally:
        sock.close()
