# SPDX-License-Identifier: Apache-2.0
"""A virtio socket device beside QEMU, which attaches it by vhost-user: the host needs no kernel module for it.

One thread answers QEMU and moves packets between the guest's rings and the streams; it is woken when a stream has
something to send, and ends with QEMU's connection. The streams are for any other thread.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
import time
from pathlib import Path

from nvrc_lab.devices.vhost_ring import ProtocolError, Ring
from nvrc_lab.devices.vhost_user import Backend, pack_reply, receive
from nvrc_lab.devices.vsock import GUEST, HEADER, Stream, Switchboard, pack, parse

RETRY_S = 0.1


class Line:
    """A connection to a port of the guest, to read from and write to."""

    def __init__(self, device: VsockDevice, stream: Stream) -> None:
        self._device, self._stream = device, stream

    def sendall(self, data: bytes) -> None:
        with self._device.changed:
            if self._stream.is_over:
                raise ConnectionResetError("the guest has closed the connection")
            self._stream.waiting += data
        self._device.wake()

    def receive_exactly(self, count: int, limit_s: float) -> bytes:
        with self._device.changed:
            stream = self._stream
            self._device.changed.wait_for(lambda: len(stream.received) >= count or stream.is_over, limit_s)
            if len(stream.received) < count:
                if stream.is_over:
                    raise ConnectionResetError("the guest has closed the connection")
                raise TimeoutError(f"no answer within {limit_s:g} s")
            data = stream.read(count)
        self._device.wake()
        return data

    def receive_some(self) -> bytes:
        """What has come, as soon as something has; nothing once the guest has closed."""
        with self._device.changed:
            stream = self._stream
            self._device.changed.wait_for(lambda: stream.received or stream.is_over)
            data = stream.read(len(stream.received))
        self._device.wake()
        return data

    def close(self) -> None:
        with self._device.changed:
            self._device.board.close(self._stream)
        self._device.wake()


class VsockDevice:
    """`changed` guards `board` and everything in it. `problem`: why the device gave up, if it did."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.changed = threading.Condition()
        self.board = Switchboard()
        self.problem = ""
        self._backend = Backend(config=struct.pack("<Q", GUEST), rings=(Ring(), Ring()))
        self._is_up = self._is_closed = False
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._serve, name="vsock", daemon=True)
        self._thread.start()

    def connect(self, port: int, limit_s: float) -> Line:
        """Like the runtime, try until somebody in the guest listens."""
        end_s = time.monotonic() + limit_s
        while True:
            stream = self._try(port, end_s)
            if stream is not None:
                return Line(self, stream)
            if self._is_closed:
                raise ConnectionResetError(self.problem or "the machine has ended")
            if time.monotonic() + RETRY_S > end_s:
                raise TimeoutError(f"no program in the guest listened on vsock port {port} within {limit_s:g} s")
            time.sleep(RETRY_S)

    def _try(self, port: int, end_s: float) -> Stream | None:
        with self.changed:
            self.changed.wait_for(lambda: self._is_up or self._is_closed, max(0.0, end_s - time.monotonic()))
            if not self._is_up:
                return None
            stream = self.board.connect(port)
        self.wake()
        with self.changed:
            self.changed.wait_for(lambda: stream.is_open or stream.is_over, max(0.0, end_s - time.monotonic()))
            return stream if stream.is_open else None

    def join(self) -> None:
        """Until QEMU has gone."""
        self._thread.join()

    def wake(self) -> None:
        if not self._is_closed:
            os.eventfd_write(self._wakeup, 1)

    def close(self) -> None:
        self._is_closed = True
        os.eventfd_write(self._wakeup, 1)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        os.close(self._wakeup)
        self.path.unlink(missing_ok=True)

    def _serve(self) -> None:
        try:
            client, _ = self._listener.accept()
            with client:
                while not self._is_closed and self._serve_once(client):
                    pass
        except (OSError, ProtocolError) as err:
            self.problem = "" if self._is_closed else f"the vsock device gave up: {err}"
        finally:
            with self.changed:
                self._is_up, self._is_closed = False, True
                self.board.close_all()
                self._backend.close()
                self.changed.notify_all()

    def _serve_once(self, client: socket.socket) -> bool:
        """Whatever comes next; False when QEMU has gone."""
        kicks = [ring.kick for ring in self._backend.rings if ring.kick >= 0]
        ready, _, _ = select.select([client.fileno(), self._wakeup, *kicks], [], [])
        if client.fileno() in ready:
            return self._answer(client)
        for fd in ready:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(fd)
        self._move()
        return True

    def _answer(self, client: socket.socket) -> bool:
        message = receive(client)
        if message is None:
            return False
        request, payload, fds = message
        with self.changed:
            reply = self._backend.answer(request, payload, fds)
            self._is_up = all(ring.is_running for ring in self._backend.rings)
            self.changed.notify_all()
        if reply is not None:
            client.sendall(pack_reply(request, reply))
        self._move()
        return True

    def _move(self) -> None:
        with self.changed:
            if not self._is_up:
                return
            from_device, to_device = self._backend.rings
            self._hear(to_device)
            self._speak(from_device)
            self.changed.notify_all()

    def _hear(self, ring: Ring) -> None:
        memory, is_busy = self._backend.memory, False
        while (chain := ring.take(memory)) is not None:
            self.board.hear(parse(chain.read(memory)))
            ring.give_back(memory, chain)
            is_busy = True
        if is_busy:
            ring.signal()

    def _speak(self, ring: Ring) -> None:
        memory, is_busy = self._backend.memory, False
        while self.board.has_packet and (chain := ring.take(memory)) is not None:
            data = pack(self.board.next_packet(chain.room - HEADER.size))
            chain.write(memory, data)
            ring.give_back(memory, chain, len(data))
            is_busy = True
        if is_busy:
            ring.signal()
