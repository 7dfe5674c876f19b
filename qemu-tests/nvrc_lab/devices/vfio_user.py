# SPDX-License-Identifier: Apache-2.0
"""A vfio-user server for virtual functions: QEMU (`vfio-user-pci`, 10.1 and newer) attaches each over its own socket.

Follows QEMU's docs/interop/vfio-user.rst, version 0.0, as far as configuration space and registers go: no interrupt is
ever raised and no memory of the guest is touched. A function whose server is gone reads all ones, like a GPU that has
fallen off the bus. A message that makes no sense is answered with an error, or ends the connection where its length
cannot be trusted.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from enum import IntEnum
from pathlib import Path

from nvrc_lab.devices.virtual_function import BARS, CONFIG_SIZE, VirtualFunction
from nvrc_lab.ground.errors import LabError

HEADER, REGION = struct.Struct("<HHIII"), struct.Struct("<QII")
REPLY, NO_REPLY, ERROR = 0x1, 0x10, 0x20
MAX_TRANSFER, MAX_FDS = 1 << 20, 16
MAX_MESSAGE = HEADER.size + REGION.size + MAX_TRANSFER
CONFIG_REGION, REGIONS, IRQS = 7, 9, 5
_SOCKET_PATH_MAX = 107


class Command(IntEnum):
    VERSION = 1
    DMA_MAP = 2
    DMA_UNMAP = 3
    DEVICE_INFO = 4
    REGION_INFO = 5
    REGION_FDS = 6
    IRQ_INFO = 7
    SET_IRQS = 8
    REGION_READ = 9
    REGION_WRITE = 10
    RESET = 13


class RefusedError(Exception):
    """A request that cannot be served; `number` is what the client is told."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.number = number


Handler = Callable[[VirtualFunction, bytes], bytes]


def answer(function: VirtualFunction, message: bytes) -> bytes:
    """The reply to one whole message; empty when none is wanted."""
    number, command, _, flags, _ = HEADER.unpack_from(message)
    body, error = b"", 0
    try:
        handler = _HANDLERS.get(command)
        if handler is None:
            raise RefusedError(errno.EOPNOTSUPP)
        body = handler(function, message[HEADER.size:])
    except RefusedError as refused:
        error = refused.number
    except struct.error:
        error = errno.EINVAL
    if flags & NO_REPLY:
        return b""
    return HEADER.pack(number, command, HEADER.size + len(body), REPLY | (ERROR if error else 0), error) + body


def _version(_function: VirtualFunction, body: bytes) -> bytes:
    major, _minor = struct.unpack_from("<HH", body)
    if major != 0:
        raise RefusedError(errno.EINVAL)
    offered = {"capabilities": {"max_msg_fds": MAX_FDS, "max_data_xfer_size": MAX_TRANSFER}}
    return struct.pack("<HH", 0, 0) + json.dumps(offered).encode() + b"\0"


def _device_info(_function: VirtualFunction, _body: bytes) -> bytes:
    can_reset, is_pci = 1, 2
    return struct.pack("<IIII", 16, can_reset | is_pci, REGIONS, IRQS)


def _region_info(function: VirtualFunction, body: bytes) -> bytes:
    (index,) = struct.unpack_from("<I", body, 8)
    size = _region_size(function, index)
    return struct.pack("<IIIIQQ", 32, 3 if size else 0, index, 0, size, 0)


def _region_size(function: VirtualFunction, index: int) -> int:
    if index >= REGIONS:
        raise RefusedError(errno.EINVAL)
    return CONFIG_SIZE if index == CONFIG_REGION else function.bar_sizes[index] if index < BARS else 0


def _irq_info(_function: VirtualFunction, body: bytes) -> bytes:
    (index,) = struct.unpack_from("<I", body, 8)
    if index >= IRQS:
        raise RefusedError(errno.EINVAL)
    intx, msi = 0, 1
    return struct.pack("<IIII", 16, 1, index, 1 if index in (intx, msi) else 0)


def _region_read(function: VirtualFunction, body: bytes) -> bytes:
    at, index, count = _checked_region(function, body)
    data = function.read(at, count) if index == CONFIG_REGION else function.read_bar(index, at, count)
    return REGION.pack(at, index, count) + data


def _region_write(function: VirtualFunction, body: bytes) -> bytes:
    at, index, count = _checked_region(function, body)
    data = body[REGION.size:REGION.size + count]
    if len(data) != count:
        raise RefusedError(errno.EINVAL)
    if index == CONFIG_REGION:
        function.write(at, data)
    else:
        function.write_bar(index, at, data)
    return REGION.pack(at, index, count)


def _checked_region(function: VirtualFunction, body: bytes) -> tuple[int, int, int]:
    at, index, count = REGION.unpack_from(body)
    if count > MAX_TRANSFER or at + count > _region_size(function, index):
        raise RefusedError(errno.EINVAL)
    return at, index, count


def _reset(function: VirtualFunction, _body: bytes) -> bytes:
    function.power_on()
    return b""


def _unmapped(_function: VirtualFunction, body: bytes) -> bytes:
    return body[:24]


def _accepted(_function: VirtualFunction, _body: bytes) -> bytes:
    return b""


_HANDLERS: Mapping[int, Handler] = {
    Command.VERSION: _version, Command.DMA_MAP: _accepted, Command.DMA_UNMAP: _unmapped,
    Command.DEVICE_INFO: _device_info, Command.REGION_INFO: _region_info, Command.IRQ_INFO: _irq_info,
    Command.SET_IRQS: _accepted, Command.REGION_READ: _region_read, Command.REGION_WRITE: _region_write,
    Command.RESET: _reset,
}


class Server:
    """One function at one socket, served by one thread, for one client after another until it is closed."""

    def __init__(self, function: VirtualFunction, path: Path) -> None:
        if len(os.fsencode(path)) > _SOCKET_PATH_MAX:
            raise LabError(f"the socket path {path} is longer than {_SOCKET_PATH_MAX} bytes", "set TMPDIR to a shorter")
        self.function = function
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._client: socket.socket | None = None
        self._is_closed = False
        self._thread = threading.Thread(target=self._serve, name=f"vfio-user {path.name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """For a client the function has fallen off the bus: its next read is all ones."""
        self._is_closed = True
        for one in (self._listener, self._client):
            if one is not None:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        self.path.unlink(missing_ok=True)

    def _serve(self) -> None:
        while not self._is_closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, contextlib.suppress(OSError):
                self._client = client
                if not self._is_closed:
                    self._talk(client)
            self._client = None

    def _talk(self, client: socket.socket) -> None:
        while (message := receive(client)) is not None:
            reply = answer(self.function, message)
            if reply:
                client.sendall(reply)


def receive(client: socket.socket) -> bytes | None:
    """One whole message; None at the end, and where its length cannot be true. Descriptors are of no use here."""
    head = _exactly(client, HEADER.size)
    if head is None:
        return None
    size = HEADER.unpack(head)[2]
    if not HEADER.size <= size <= MAX_MESSAGE:
        return None
    body = _exactly(client, size - HEADER.size)
    return None if body is None else head + body


def _exactly(client: socket.socket, count: int) -> bytes | None:
    data = bytearray()
    while len(data) < count:
        piece, fds, _flags, _address = socket.recv_fds(client, count - len(data), MAX_FDS)
        for fd in fds:
            os.close(fd)
        if not piece:
            return None
        data += piece
    return bytes(data)


@contextlib.contextmanager
def serve(functions: Mapping[str, VirtualFunction], folder: Path) -> Iterator[Mapping[str, Server]]:
    """Servers by bus id; their sockets lie in `folder` and go with them."""
    with contextlib.ExitStack() as stack:
        servers: dict[str, Server] = {}
        for number, (bdf, function) in enumerate(functions.items()):
            servers[bdf] = Server(function, folder / f"{number}.sock")
            stack.callback(servers[bdf].close)
        yield servers
