# SPDX-License-Identifier: Apache-2.0
"""A hybrid vsock: a unix socket on which a runtime names a port of the guest and then speaks to it.

`CONNECT PORT\\n` is answered with `OK ...\\n`, or by closing when nobody in the guest listens there; so Firecracker and
Cloud Hypervisor do it. It is for hosts without vhost-vsock, where the guest's device is the lab's own. Run as a program
beside QEMU it says `ready` and lives as long as QEMU's connection to the device.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from nvrc_lab.devices.vsock_device import Line, VsockDevice

READY = "ready\n"
OK = b"OK 1073741824\n"
LONGEST_REQUEST = 32
# How long one try of the runtime may take; it tries again by itself.
TRY_S = 1.0
PIECE = 1 << 16


def serve(device: VsockDevice, listener: socket.socket) -> None:
    """Each connection in a thread of its own, until the listener is closed."""
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_serve_one, args=(device, client), daemon=True).start()


def _serve_one(device: VsockDevice, client: socket.socket) -> None:
    with client, contextlib.suppress(OSError, ValueError):
        port = read_request(client)
        line = device.connect(port, TRY_S)
        client.sendall(OK)
        threading.Thread(target=_pass_on, args=(line, client.dup()), daemon=True).start()
        try:
            while data := client.recv(PIECE):
                line.sendall(data)
        finally:
            line.close()


def read_request(client: socket.socket) -> int:
    """The port that the peer wants. Byte by byte: what follows the line is the guest's."""
    head = b""
    while not head.endswith(b"\n"):
        byte = client.recv(1)
        if not byte or len(head) >= LONGEST_REQUEST:
            raise ValueError(f"no request: {head!r}")
        head += byte
    match head.split():
        case [b"CONNECT", port] if port.isdigit():
            return int(port)
    raise ValueError(f"no request: {head!r}")


def _pass_on(line: Line, client: socket.socket) -> None:
    with client, contextlib.suppress(OSError):
        while data := line.receive_some():
            client.sendall(data)
        client.shutdown(socket.SHUT_RDWR)


def main(argv: Sequence[str] | None = None) -> int:
    device_path, path = (Path(word) for word in (sys.argv[1:] if argv is None else argv))
    path.unlink(missing_ok=True)
    device = VsockDevice(device_path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(64)
    print(READY, end="", flush=True)
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    threading.Thread(target=serve, args=(device, listener), daemon=True).start()
    device.join()
    path.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
