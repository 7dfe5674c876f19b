# SPDX-License-Identifier: Apache-2.0
"""Waiting for hardware without polling: the kernel says on a netlink socket that something about a device changed.

What a message says is never read: it only wakes the waiter, who looks at sysfs again. So a lost, forged or foreign
message can do no harm. Follows netlink(7) and lib/kobject_uevent.c.
"""

from __future__ import annotations

from guest_cdi.lean.light import TYPE_CHECKING, Callable
from nvrc.machine.system import Kernel

if TYPE_CHECKING:
    from _socket import socket

NETLINK_KOBJECT_UEVENT = 15
KERNEL_GROUP = 1


class Uevents:
    """An open subscription; events that came since the last wait end the next one at once."""

    def __init__(self, sock: socket) -> None:
        self._socket = sock

    def wait(self, timeout_s: float) -> None:
        """Return when there was an event, or when the time is up."""
        self._socket.settimeout(max(timeout_s, 0.001))
        try:
            self._socket.recv(1)
            self._socket.setblocking(False)
            while True:
                self._socket.recv(1)
        except OSError:
            return  # the time is up; or all is read; or the queue overflowed, which is an event as well

    def close(self) -> None:
        self._socket.close()


def listen() -> Uevents:
    from _socket import (  # the module socket makes enumerations of all its names
        AF_NETLINK,
        SOCK_CLOEXEC,
        SOCK_RAW,
        socket,
    )

    sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT)
    sock.bind((0, KERNEL_GROUP))
    return Uevents(sock)


def wait_until_complete(system: Kernel, missing: Callable[[], tuple[str, ...]], patience_s: float) -> tuple[str, ...]:
    """What is still missing when nothing is, or when nothing new has come for `patience_s`."""
    left = missing()
    if not left:
        return left
    events, began_s = system.listen_uevents(), system.now()
    try:
        left = missing()  # what came before the subscription
        give_up = system.now() + patience_s
        while left and system.now() < give_up:
            events.wait(give_up - system.now())
            now_left = missing()
            if len(now_left) < len(left):
                give_up = system.now() + patience_s
            left = now_left
        return left
    finally:
        system.waits.add(system.now() - began_s)
        events.close()
