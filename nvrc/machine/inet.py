# SPDX-License-Identifier: Apache-2.0
"""A socket that whoever reaches the pod's addresses can reach; ip(7), ipv6(7)."""

from __future__ import annotations

import _socket

MOST_WAITING = 16


def listen(port: int) -> int:
    """On every address of the guest, IPv4 and IPv6, which are the pod's; IPv4 alone where the kernel has no IPv6."""
    try:
        sock = _open(_socket.AF_INET6)
        sock.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 0)
        everywhere = "::"
    except OSError:
        sock, everywhere = _open(_socket.AF_INET), ""
    try:
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        sock.bind((everywhere, port))
        sock.listen(MOST_WAITING)
        return sock.detach()
    finally:
        sock.close()


def _open(family: int) -> _socket.socket:
    return _socket.socket(family, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
