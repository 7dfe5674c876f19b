# SPDX-License-Identifier: Apache-2.0
"""Links, addresses and routes of the guest: rtnetlink(7), with pyroute2's messages.

Only pyroute2's decoder is used, and of links a message of our own: its sockets bring an event loop and 20 MB along, its
own message of links the tools of each kind of them. One socket hears changes, another
asks; both never wait. A link that flaps costs a counter, and a flood that the kernel could not deliver is one change.
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
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
    from pyroute2.netlink.rtnl.rtmsg import rtmsg

    counters = type("counters", (nla,), {"fields": COUNTERS})
    link = type("link", (nlmsg,), {"fields": LINK, "nla_map": LINK_ATTRIBUTES, "prefix": "IFLA_", "counters": counters})
    return {RTM_NEWLINK: link, RTM_DELLINK: link, RTM_NEWADDR: ifaddrmsg, RTM_NEWROUTE: rtmsg}


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
            data = self._listener.recv(PIECE)
        except BlockingIOError:
            return
        except OSError as err:
            if err.errno != errno.ENOBUFS:
                raise
            self._count("")  # more than the socket takes
            return
        for kind, piece in split(data):
            if kind in (RTM_NEWLINK, RTM_DELLINK):
                self._count(str(attribute(self._decode(kind, piece), "IFLA_IFNAME")))

    def _count(self, link: str) -> None:
        if link in self._changes or len(self._changes) < MOST_LINKS:
            self._changes[link] = self._changes.get(link, 0) + 1

    def samples(self) -> Iterator[Sample]:
        names = dict[int, str]()
        for message in islice(self._ask(RTM_GETLINK), MOST_LINKS):
            name = str(attribute(message, "IFLA_IFNAME"))
            names[_number(message.get("index"))] = name
            flags = _number(message.get("flags"))
            yield Sample("nvrc_link_up", flags & IFF_UP != 0 and flags & IFF_RUNNING != 0, (name,))
            yield Sample("nvrc_link_changes_total", self._changes.get(name, 0), (name,))
            yield from _counters(name, attribute(message, "IFLA_STATS64"))
        addresses = dict.fromkeys(names.values(), 0)
        for message in self._ask(RTM_GETADDR):
            link = names.get(_number(message.get("index")))
            if link is not None:
                addresses[link] += 1
        yield from (Sample("nvrc_link_addresses", count, (link,)) for link, count in addresses.items())
        yield from self._routes()

    def _routes(self) -> Iterator[Sample]:
        routes, default = dict.fromkeys(FAMILIES.values(), 0), False
        for message in self._ask(RTM_GETROUTE):
            family = FAMILIES.get(_number(message.get("family")))
            if family and message.get("table") == RT_TABLE_MAIN and message.get("type") == RTN_UNICAST:
                routes[family] += 1
                default = default or message.get("dst_len") == 0
        yield from (Sample("nvrc_routes", count, (family,)) for family, count in routes.items())
        yield Sample("nvrc_default_route", default)

    def _ask(self, request: int) -> Iterator[Message]:
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
                    if kind in self._kinds:
                        yield self._decode(kind, piece)

    def _decode(self, kind: int, piece: bytes) -> Message:
        message = self._kinds[kind](piece)
        message.decode()
        return message  # type: ignore[no-any-return]


def _open(groups: int) -> socket.socket:
    opened = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, NETLINK_ROUTE
    )
    opened.bind((0, groups))
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
