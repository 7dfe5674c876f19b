# SPDX-License-Identifier: Apache-2.0
"""The live status for the host, read-only: a vsock port that answers a connection with the document and closes it.

Only where `nvrc.status.vsock` names the port. There is nothing to ask for, so nothing is read. Only the host (CID 2) is
answered: who else can reach a port of the guest's is no host, and takes no more of a turn than one. A host that does
not read costs a few descriptors until its time is over, and PID 1 no waiting.
"""

from __future__ import annotations

import _socket
import os

from guest_cdi.lean.light import TYPE_CHECKING, Callable

if TYPE_CHECKING:
    from nvrc.machine.loop import Loop

HOST_CID = 2
NOBODY, STRANGER = -1, -2  # in place of a descriptor
MOST, PATIENCE_S, BATCH = 4, 10.0, 4


class Window:
    """`answer` makes the document, once for each batch of connections."""

    def __init__(self, loop: Loop, listener: int, answer: Callable[[], bytes], now: Callable[[], float]) -> None:
        self._loop, self._listener, self._answer, self._now = loop, listener, answer, now
        self._left: dict[int, bytes] = {}
        self._serials: dict[int, int] = {}
        self._served = 0
        loop.watch(listener, self._accept)

    @property
    def is_busy(self) -> bool:
        return bool(self._left)

    def _accept(self) -> None:
        document = b""
        for _ in range(BATCH):
            descriptor = accept(self._listener)
            if descriptor == NOBODY:
                return
            if descriptor == STRANGER:
                continue
            if len(self._left) >= MOST:
                os.close(descriptor)
                continue
            self._loop.watch(descriptor, self._writer(descriptor), writing=True)
            document = document or self._answer()
            self._served += 1
            self._left[descriptor], self._serials[descriptor] = document, self._served
            self._loop.at(self._now() + PATIENCE_S, self._expiry(descriptor, self._served))

    def _writer(self, descriptor: int) -> Callable[[], None]:
        return lambda: self._write(descriptor)

    def _expiry(self, descriptor: int, serial: int) -> Callable[[], None]:
        """A later connection may have the same number."""

        def expired() -> None:
            if self._serials.get(descriptor) == serial:
                self._close(descriptor)

        return expired

    def _write(self, descriptor: int) -> None:
        try:
            sent = os.write(descriptor, self._left[descriptor])
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._left[descriptor])  # it has gone away
        self._left[descriptor] = self._left[descriptor][sent:]
        if not self._left[descriptor]:
            self._close(descriptor)

    def _close(self, descriptor: int) -> None:
        del self._left[descriptor], self._serials[descriptor]
        self._loop.unwatch(descriptor)
        os.close(descriptor)


def accept(listener: int) -> int:
    """The descriptor of the next connection, if that is the host's; any other is closed."""
    sock = _socket.socket(fileno=listener)
    try:
        descriptor, address = sock._accept()  # type: ignore[attr-defined]  # what socket.accept is made of
        os.set_blocking(descriptor, False)
    except OSError:
        return NOBODY
    finally:
        sock.detach()
    if is_host(address):
        return int(descriptor)
    os.close(descriptor)
    return STRANGER


def is_host(address: object) -> bool:
    """(CID, port) of a vsock; a unix socket, on which tests listen, has no name."""
    return not isinstance(address, tuple) or address[0] == HOST_CID
