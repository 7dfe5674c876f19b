# SPDX-License-Identifier: Apache-2.0
"""The host's side of a port in a VM: plain vsock by context id, or a hybrid vsock's unix socket. Runs on hosts.

A hybrid vsock (Firecracker, Cloud Hypervisor, Kata's kata.hvsock) is told `CONNECT PORT` and answers `OK ...`.
"""

from __future__ import annotations

import socket
import time

from nvrc.params.table import asked

LIMIT = 16 << 20
LONGEST_REPLY = 64
PATIENCE_S, WHOLE_S = 5.0, 60.0  # without a byte, and for all of them: the VM may be hostile


def ask_vm(where: str, port: int, patience_s: float = PATIENCE_S, whole_s: float = WHOLE_S) -> bytes:
    """The document that the VM answers with; OSError in words."""
    until_s = time.monotonic() + whole_s
    is_number = where.isascii() and where.isdigit()
    connection = _by_cid(int(where), port, patience_s) if is_number else _by_socket(where, port, patience_s)
    with connection:
        pieces, size = [], 0
        while piece := _more(connection, where, patience_s):
            pieces.append(piece)
            size += len(piece)
            if size > LIMIT:
                raise OSError(None, "the answer is too long", where)
            if time.monotonic() > until_s:
                raise OSError(None, f"the answer is not complete after {whole_s:g} s; look at the console", where)
    if not pieces:
        raise OSError(
            None,
            f"the VM closed port {port} silently: its command line needs {asked('status_port', port)}, and it serves "
            "4 readers at once",
            where,
        )
    return b"".join(pieces)


def _more(connection: socket.socket, where: str, patience_s: float) -> bytes:
    try:
        return connection.recv(1 << 16)
    except TimeoutError:
        raise OSError(
            None,
            f"the VM gave no answer within {patience_s:g} s: PID 1 answers once GPUs are ready; ask again, and look at "
            "the console",
            where,
        ) from None


def _by_cid(cid: int, port: int, patience_s: float) -> socket.socket:
    connection = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    try:
        connection.settimeout(patience_s)
        connection.connect((cid, port))
    except OSError as err:
        connection.close()
        raise OSError(err.errno, f"vsock {cid}:{port}: {err.strerror or err}", f"CID {cid}") from err
    return connection


def _by_socket(path: str, port: int, patience_s: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(patience_s)
        connection.connect(path)
        connection.sendall(b"CONNECT %d\n" % port)
        reply, until_s = b"", time.monotonic() + patience_s
        while not reply.endswith(b"\n") and len(reply) < LONGEST_REPLY and (byte := connection.recv(1)):
            reply += byte
            if time.monotonic() > until_s:
                raise OSError(None, f"no answer to CONNECT within {patience_s:g} s")
        if not reply.startswith(b"OK"):
            raise OSError(
                None, f"nothing in the VM listens on port {port}: its command line needs {asked('status_port', port)}"
            )
    except OSError as err:
        connection.close()
        raise OSError(err.errno, f"{err.strerror or err}", path) from err
    return connection
