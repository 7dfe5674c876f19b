# SPDX-License-Identifier: Apache-2.0
"""An HTTP server for one page, in one thread, that no client can hold up: RFC 9112 as far as a scraper speaks it.

Requests are bounded in size and time, answers lie in a buffer of their own, connections are few. What is too many, too
slow or not HTTP is closed and counted.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable
from typing import Protocol

from nvrc.beside.families import CONTENT_TYPE

MOST_CONNECTIONS, REQUEST_LIMIT, PATIENCE_S = 16, 8 << 10, 10.0


class Source(Protocol):
    def fileno(self) -> int: ...


class _Connection:
    def __init__(self, sock: socket.socket, until_s: float) -> None:
        self.socket, self.until_s = sock, until_s
        self.request, self.answer = b"", b""


class Server:
    """`page` makes the answer; `loop` runs until `is_over`."""

    def __init__(self, listener: socket.socket, page: Callable[[], bytes], now: Callable[[], float]) -> None:
        self._page, self._now = page, now
        self._selector = selectors.DefaultSelector()
        self._listener = listener
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._open: dict[int, _Connection] = {}
        self.scrapes = self.refused = 0

    def watch(self, source: Source, ready: Callable[[], None]) -> None:
        self._selector.register(source, selectors.EVENT_READ, ready)

    def watch_descriptor(self, descriptor: int, ready: Callable[[], None]) -> None:
        self._selector.register(descriptor, selectors.EVENT_READ, ready)

    def unwatch_descriptor(self, descriptor: int) -> None:
        self._selector.unregister(descriptor)

    def serve(self, limit_s: float) -> None:
        """What is ready within the limit, and an end of those that are overdue. Who was closed by what came before in
        the same turn is ready no more.
        """
        for key, _events in self._selector.select(limit_s):
            if self._is_watched(key.fd, key.data):
                key.data()
        now_s = self._now()
        for connection in [one for one in self._open.values() if now_s >= one.until_s]:
            self._refuse(connection)

    def _is_watched(self, descriptor: int, ready: object) -> bool:
        """The descriptor may be another's by now."""
        now = self._selector.get_map().get(descriptor)
        return now is not None and now.data is ready

    def close(self) -> None:
        for connection in tuple(self._open.values()):
            self._close(connection)
        self._selector.close()
        self._listener.close()

    def _accept(self) -> None:
        try:
            sock, _address = self._listener.accept()
        except OSError:
            return
        sock.setblocking(False)
        connection = _Connection(sock, self._now() + PATIENCE_S)
        if len(self._open) >= MOST_CONNECTIONS:
            self._refuse(min(self._open.values(), key=lambda one: one.until_s))
        self._open[sock.fileno()] = connection
        self._selector.register(sock, selectors.EVENT_READ, lambda: self._read(connection))

    def _read(self, connection: _Connection) -> None:
        try:
            piece = connection.socket.recv(REQUEST_LIMIT)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        connection.request += piece
        if b"\r\n\r\n" in connection.request or b"\n\n" in connection.request:
            self._answer(connection)
        elif not piece or len(connection.request) >= REQUEST_LIMIT:
            self._refuse(connection)

    def _answer(self, connection: _Connection) -> None:
        words = connection.request.split(b"\n", 1)[0].split()
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            self._refuse(connection)
            return
        method, path = words[0], words[1].partition(b"?")[0]
        if method not in (b"GET", b"HEAD"):
            connection.answer = _response("405 Method Not Allowed", b"GET /metrics\n")
        elif path != b"/metrics":
            connection.answer = _response("404 Not Found", b"/metrics\n")
        else:
            self.scrapes += 1
            connection.answer = _response("200 OK", self._page(), CONTENT_TYPE)
        if method == b"HEAD":
            connection.answer = connection.answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        self._selector.modify(connection.socket, selectors.EVENT_WRITE, lambda: self._write(connection))

    def _write(self, connection: _Connection) -> None:
        try:
            sent = connection.socket.send(connection.answer)
        except BlockingIOError:
            return
        except OSError:
            self._close(connection)
            return
        connection.answer = connection.answer[sent:]
        if not connection.answer:
            self._close(connection)

    def _refuse(self, connection: _Connection) -> None:
        self.refused += 1
        self._close(connection)

    def _close(self, connection: _Connection) -> None:
        del self._open[connection.socket.fileno()]
        self._selector.unregister(connection.socket)
        connection.socket.close()


def _response(status: str, body: bytes, kind: str = "text/plain") -> bytes:
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    ).encode() + body
