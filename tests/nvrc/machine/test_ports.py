# SPDX-License-Identifier: Apache-2.0
"""Ports that PID 1 takes before a container can: which, what happens where one is not to be had, and real sockets."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from fakes.system import FakeSystem, bare_guest
from nvrc.machine import inet
from nvrc.machine.ports import Ports, take_ports
from nvrc.params.parse import parse
from nvrc.vocabulary.trouble import remark


@pytest.fixture
def system(tmp_path: Path) -> FakeSystem:
    return bare_guest(str(tmp_path))


@pytest.mark.parametrize(("line", "ports", "effects"), [
    ("nvrc.status.vsock=1025", Ports(7, -1), ["vsock 1025"]), ("nvrc.metrics=9400", Ports(-1, 8), ["tcp 9400"]),
    ("nvrc.metrics=9400 nvrc.status.vsock=1025", Ports(7, 8), ["vsock 1025", "tcp 9400"])])
def test_what_the_line_asks_for_is_taken(system: FakeSystem, line: str, ports: Ports, effects: list[str]) -> None:
    system.vsock, system.tcp = [7], [8]
    assert take_ports(system, parse(line.encode()).settings) == (ports, ())
    assert system.effects == effects


def test_a_port_that_is_not_to_be_had_is_worth_a_word(system: FakeSystem) -> None:
    """Of the metrics' port it is said by the process that tries once more."""
    system.fail["tcp 9400"] = OSError(errno.EADDRINUSE, "Address already in use")
    assert take_ports(system, parse(b"nvrc.metrics=9400 nvrc.status.vsock=1025").settings) == (
        Ports(), (remark("PID 1 does not answer on vsock port 1025: the machine has no vsock device"),))


def test_what_was_taken_before_the_daemons_is_not_taken_again(system: FakeSystem) -> None:
    assert take_ports(system, parse(b"nvrc.metrics=9400").settings, 9) == (Ports(-1, 9), ())
    assert system.effects == []


def test_a_socket_serves_both_families_and_nobody_else_gets_its_port() -> None:
    listener = socket.socket(fileno=inet.listen(0))
    port = listener.getsockname()[1]
    with listener:
        for host in ("127.0.0.1", "::1") if socket.has_ipv6 else ("127.0.0.1",):
            with socket.create_connection((host, port), timeout=5):
                listener.accept()[0].close()
        assert not os.get_inheritable(listener.fileno())
        with pytest.raises(OSError, match="in use"):
            inet.listen(port)
        for family in (socket.AF_INET, socket.AF_INET6):
            with socket.socket(family) as other, pytest.raises(OSError, match="in use"):
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                other.bind(("", port))
