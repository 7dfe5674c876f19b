# SPDX-License-Identifier: Apache-2.0
"""Rules as a service mesh's init container makes them, and what firewalls of pods use besides."""

from __future__ import annotations

RULES = """\
*nat
:PROXY - [0:0]
-A PREROUTING -p tcp -j PROXY
-A OUTPUT -p tcp -m owner --uid-owner 1337 -j RETURN
-A OUTPUT ! -o lo -p tcp -m multiport --dports 80,443 -j PROXY
-A OUTPUT -m addrtype --dst-type LOCAL -j RETURN
-A POSTROUTING -m comment --comment all -j MASQUERADE
-A PROXY -p tcp -j REDIRECT --to-ports 15001
COMMIT
*mangle
-A PREROUTING -p tcp -m socket --transparent -j MARK --set-mark 1
-A PREROUTING -p tcp -m tcp --dport 99 -j TPROXY --on-port 15001 --tproxy-mark 1
-A PREROUTING -m connmark --mark 2 -j CONNMARK --restore-mark
-A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
COMMIT
*filter
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -m limit --limit 5/min -j LOG --log-prefix "seen "
-A INPUT -m statistic --mode random --probability 0.5 -j DROP
-A INPUT -p udp -j REJECT
COMMIT
"""
REDIRECT = "-A PROXY -p tcp -j REDIRECT --to-ports 15001"
