# SPDX-License-Identifier: Apache-2.0
"""Inside a network namespace: a container with CAP_NET_ADMIN that speaks as the kernel, and has more routes than anybody.
Run as a program; prints the page's samples of links before and after, and how long the second took, as JSON.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import time

from nvrc.beside.families import render
from nvrc.beside.links import HEADER, NETLINK_ROUTE, RTM_NEWLINK, RTMGRP_LINK, Links

ROUTES = 20_000


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def messages() -> list[bytes]:
    """Of links that there are none of, and of a link that is cut short, which no decoder reads."""
    bodies = [b"\1", *(bytes(16) + attribute(3, b"made-up%d\0" % number) for number in range(30))]
    return [HEADER.pack(HEADER.size + len(body), RTM_NEWLINK, 0, 1, 0) + body for body in bodies]


def port_of(descriptor: int) -> int:
    """As /proc/net/netlink shows it to every container."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE, descriptor) as sock:
        port = int(sock.getsockname()[0])
        sock.detach()
    return port


def main() -> None:
    links = Links()
    before = render(links.samples()).decode()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    refused = 0
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE) as forger:
        for message in messages():
            forger.sendto(message, (0, RTMGRP_LINK))
            try:
                forger.sendto(message, (port_of(links.fileno()), 0))
            except ConnectionRefusedError:
                refused += 1
    for _ in range(100):
        links.heard()
    routes = "".join(f"route add 10.0.{at >> 8}.{at & 255}/32 dev lo\n" for at in range(ROUTES))
    subprocess.run(["ip", "-batch", "-"], input=routes.encode(), check=True)
    began_s = time.process_time()
    after = render(links.samples()).decode()
    sys.stdout.write(json.dumps({"before": before, "after": after, "refused": refused, "took_s": time.process_time() - began_s}))
    links.close()


if __name__ == "__main__":
    main()
