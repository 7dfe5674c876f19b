# SPDX-License-Identifier: Apache-2.0
"""A rule of the kernel's audit: what programs send it is dropped, as no auditd runs and the kernel's log would get it.

With CAP_AUDIT_WRITE, which containers have by default, a program puts any text into that log, line ends included, as
much as it likes; a type that SELinux's programs use is logged even where audit is off. Records of the kernel itself are
not touched. Follows netlink(7), linux/audit.h and kernel/auditfilter.c.
"""

from __future__ import annotations

import os
import struct
from errno import ECONNREFUSED, EPROTONOSUPPORT

NETLINK_AUDIT = 9
ADD_RULE = 1011
NLM_F_REQUEST, NLM_F_ACK = 1, 4
FILTER_USER, NEVER = 0, 0
MSGTYPE, AT_LEAST = 12, 0x60000000  # a rule without a field applies to nothing
_HEADER = struct.Struct("=IHHII")
_ROWS = 64


def make_rule() -> bytes:
    """struct audit_rule_data: list, action, number of fields; masks, fields, values, operators; no text."""
    rows = (), (MSGTYPE,), (0,), (AT_LEAST,)
    return struct.pack("=3I", FILTER_USER, NEVER, 1) + b"".join(
        struct.pack(f"={_ROWS}I", *row, *(0,) * (_ROWS - len(row))) for row in rows) + bytes(4)


def drop_messages() -> None:
    """OSError where the kernel refuses the rule. One without audit, or with audit=0, logs no program's messages."""
    import _socket

    rule = make_rule()
    try:
        sock = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, NETLINK_AUDIT)
    except OSError as err:
        if err.errno == EPROTONOSUPPORT:
            return
        raise
    try:
        sock.sendto(_HEADER.pack(_HEADER.size + len(rule), ADD_RULE, NLM_F_REQUEST | NLM_F_ACK, 1, 0) + rule, (0, 0))
        answer = sock.recv(64)
    except OSError as err:
        if err.errno == ECONNREFUSED:
            return
        raise
    finally:
        sock.close()
    (refusal,) = struct.unpack_from("=i", answer, _HEADER.size)
    if refusal:
        raise OSError(-refusal, os.strerror(-refusal))
