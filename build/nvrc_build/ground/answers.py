# SPDX-License-Identifier: Apache-2.0
"""Answers of servers that end: head, pieces and what stands around them come in time, or their connection is ended.

A timeout of a socket is one for each byte. Of these http.client reads as many as a server likes before it says
anything: a line of a head, the size of a piece of a body in pieces (chunked), lines behind the last one. And urllib
reads the whole body of an answer that sends it elsewhere.
"""

from __future__ import annotations

import http.client
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.message import Message
from typing import IO


class Answer(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, debuglevel: int = 0, method: str | None = None,
                 url: str | None = None) -> None:
        super().__init__(sock, debuglevel, method, url)
        self._connected = sock

    def begin(self) -> None:
        with _in_time(self._connected):
            super().begin()

    def read1(self, n: int = -1) -> bytes:
        if not self.chunked:  # one call to the kernel
            return super().read1(n)
        with _in_time(self._connected):
            return super().read1(n)


class Plain(http.client.HTTPConnection):
    response_class = Answer


class Secure(http.client.HTTPSConnection):
    response_class = Answer


@contextmanager
def _in_time(connected: socket.socket) -> Iterator[None]:
    """Within the timeout of the connection."""
    late = threading.Timer(connected.gettimeout() or 0.0, _end, (connected,))
    late.start()
    try:
        yield
    finally:
        late.cancel()


def _end(connected: socket.socket) -> None:
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


class _HTTP(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(Plain, req)


class _HTTPS(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(Secure, req)


class _Elsewhere(urllib.request.HTTPRedirectHandler):
    def http_error_302(self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str,
                       headers: http.client.HTTPMessage | Message) -> object:
        fp.close()
        return super().http_error_302(req, fp, code, msg, headers)  # type: ignore[arg-type]

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def open_url(url: str, timeout_s: float) -> http.client.HTTPResponse:
    """As urllib.request.urlopen."""
    opener = urllib.request.build_opener(_HTTP, _HTTPS, _Elsewhere)
    return opener.open(url, timeout=timeout_s)  # type: ignore[no-any-return]
