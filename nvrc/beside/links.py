# SPDX-License-Identifier: Apache-2.0
"""Links, addresses and routes of the guest: rtnetlink(7), with pyroute2's decoder of links.

Of pyroute2 nothing else is used, and of links a message of our own: its sockets bring an event loop and 20 MB along,
its own message of links the tools of each kind of them. Of addresses and routes the head says enough, which a million
routes of a container's make worth it. One socket hears changes, another asks; both never wait. A link that flaps costs
a counter, and a flood that the kernel could not deliver is one change. A container with CAP_NET_ADMIN may send messages
in this family as the kernel does: only the kernel's are taken.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator, Mapping
from itertools import islice

from nvrc.beside.families import Sample

NETLINK_ROUTE = 0
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_NEWADDR, RTM_GETADDR, RTM_NEWROUTE, RTM_GETROUTE = 16, 17, 18, 20, 22, 24, 26
NLM_F_REQUEST, NLM_F_DUMP, NLMSG_ERROR, NLMSG_DONE = 1, 0x300, 2, 3
RTMGRP_LINK = 1
IFF_UP, IFF_RUNNING = 0x1, 0x40
RT_TABLE_MAIN, RTN_UNICAST = 254, 1
HEADER = struct.Struct("=IHHII")
KERNEL = (0, 0)
# Behind the header: of struct ifaddrmsg the index, of struct rtmsg family, length of the destination, table and type
ADDRESS, ROUTE = struct.Struct("=16x4xI"), struct.Struct("=16xBB2xB2xB4x")
# struct ifinfomsg, what is asked of its attributes, and the beginning of struct rtnl_link_stats64
LINK = (("family", "B"), ("__align", "x"), ("ifi_type", "H"), ("index", "i"), ("flags", "I"), ("change", "I"))
LINK_ATTRIBUTES = ((3, "IFLA_IFNAME", "asciiz"), (23, "IFLA_STATS64", "counters"))
COUNTERS = tuple((f"{prefix}_{what}", "Q") for what in ("packets", "bytes", "errors") for prefix in ("rx", "tx"))
FAMILIES = {int(socket.AF_INET): "ipv4", int(socket.AF_INET6): "ipv6"}
PIECE = 1 << 16
PATIENCE_S = 1.0
MOST_LINKS = 256  # that are told, and that changes are counted for; containers may make and remove any number

Message = Mapping[str, object]


def messages() -> Mapping[int, type]:
    from pyroute2.netlink import nla, nlmsg

    counters = type("counters", (nla,), {"fields": COUNTERS})
    link = type("link", (nlmsg,), {"fields": LINK, "nla_map": LINK_ATTRIBUTES, "prefix": "IFLA_", "counters": counters})
    return {RTM_NEWLINK: link, RTM_DELLINK: link}


class Links:
    """`fileno` is ready when links have changed; `heard` counts those changes."""

    def __init__(self) -> None:
        self._kinds = messages()
        self._changes: dict[str, int] = {}
        self._listener = _open(RTMGRP_LINK)

    def fileno(self) -> int:
        return self._listener.fileno()

    def close(self) -> None:
        self._listener.close()

    def heard(self) -> None:
        """Whatever has come, up to a piece of 64 KiB a call, so that a flood never holds up a scrape."""
        try:
            data, sender = self._listener.recvfrom(PIECE)
        except BlockingIOError:
            return
        except OSError as err:
            if err.errno != errno.ENOBUFS:
                raise
            self._count("")  # more than the socket takes
            return
        for kind, piece in split(data) if sender[0] == KERNEL[0] else ():
            if kind in (RTM_NEWLINK, RTM_DELLINK):
                self._count(str(attribute(self._decode(kind, piece), "IFLA_IFNAME")))

    def _count(self, link: str) -> None:
        if link in self._changes or len(self._changes) < MOST_LINKS:
            self._changes[link] = self._changes.get(link, 0) + 1

    def samples(self) -> Iterator[Sample]:
        names = dict[int, str]()
        for piece in islice(self._ask(RTM_GETLINK, RTM_NEWLINK), MOST_LINKS):
            message = self._decode(RTM_NEWLINK, piece)
            name = str(attribute(message, "IFLA_IFNAME"))
            names[_number(message.get("index"))] = name
            flags = _number(message.get("flags"))
            yield Sample("nvrc_link_up", flags & IFF_UP != 0 and flags & IFF_RUNNING != 0, (name,))
            yield Sample("nvrc_link_changes_total", self._changes.get(name, 0), (name,))
            yield from _counters(name, attribute(message, "IFLA_STATS64"))
        addresses = dict.fromkeys(names.values(), 0)
        for piece in self._ask(RTM_GETADDR, RTM_NEWADDR):
            link = names.get(*ADDRESS.unpack_from(piece))
            if link is not None:
                addresses[link] += 1
        yield from (Sample("nvrc_link_addresses", count, (link,)) for link, count in addresses.items())
        yield from self._routes()

    def _routes(self) -> Iterator[Sample]:
        routes, default = dict.fromkeys(FAMILIES.values(), 0), False
        for piece in self._ask(RTM_GETROUTE, RTM_NEWROUTE):
            number, length, table, kind = ROUTE.unpack_from(piece)
            family = FAMILIES.get(number)
            if family and table == RT_TABLE_MAIN and kind == RTN_UNICAST:
                routes[family] += 1
                default = default or length == 0
        yield from (Sample("nvrc_routes", count, (family,)) for family, count in routes.items())
        yield Sample("nvrc_default_route", default)

    def _ask(self, request: int, answer: int) -> Iterator[bytes]:
        """A dump; OSError if the kernel refuses it or says nothing for a second."""
        with _open(0) as asking:
            asking.setblocking(True)
            asking.settimeout(PATIENCE_S)
            asking.send(HEADER.pack(HEADER.size + 16, request, NLM_F_REQUEST | NLM_F_DUMP, 1, 0) + bytes(16))
            while True:
                for kind, piece in split(asking.recv(PIECE)):
                    if kind == NLMSG_DONE:
                        return
                    if kind == NLMSG_ERROR:
                        number = -struct.unpack_from("=i", piece, HEADER.size)[0]
                        raise OSError(number, f"rtnetlink refused request {request}")
                    if kind == answer:
                        yield piece

    def _decode(self, kind: int, piece: bytes) -> Message:
        message = self._kinds[kind](piece)
        message.decode()
        return message  # type: ignore[no-any-return]


def _open(groups: int) -> socket.socket:
    opened = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, NETLINK_ROUTE
    )
    opened.bind((0, groups))
    opened.connect(KERNEL)  # nobody else's message gets in, but for those to all of a group
    return opened


def split(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and bytes of each message of a datagram; what is cut short is left out."""
    offset = 0
    while offset + HEADER.size <= len(data):
        length, kind, *_rest = HEADER.unpack_from(data, offset)
        if not HEADER.size <= length <= len(data) - offset:
            return
        yield kind, data[offset : offset + length]
        offset += (length + 3) & ~3


def attribute(message: Message, name: str) -> object:
    attributes = message.get("attrs")
    pairs = attributes if isinstance(attributes, list | tuple) else ()
    return next((pair[1] for pair in pairs if pair[0] == name), None)


def _counters(link: str, stats: object) -> Iterator[Sample]:
    if isinstance(stats, Mapping):
        for direction, prefix in (("received", "rx"), ("sent", "tx")):
            yield Sample("nvrc_link_bytes_total", _number(stats.get(f"{prefix}_bytes")), (link, direction))
            yield Sample("nvrc_link_errors_total", _number(stats.get(f"{prefix}_errors")), (link, direction))


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
