"""Frames of a made-up ward, by hand: who sends what to whom, with its own MAC and address. For replays.

Out: `(ts_ns, frame)` records for `pcap_writer.pcap`. Payloads come from `tests.support.frames`.
"""

import ipaddress
import struct
from itertools import chain
from pathlib import Path

from tests.support.frames import dhcp, tcp, udp
from tests.support.pcap_writer import pcap

SECOND = 10**9
MORNING = 1_700_035_200 * SECOND
"""2023-11-15 08:00 UTC, a Wednesday."""
BROADCAST = (1 << 48) - 1
SYN, RST_ACK = 2, 20


def mac_bytes(mac: int) -> bytes:
    return mac.to_bytes(6, "big")


def ethernet(src: int, dst: int, ethertype: int, payload: bytes) -> bytes:
    frame = mac_bytes(dst) + mac_bytes(src) + struct.pack(">H", ethertype) + payload
    return frame.ljust(60, b"\0")


def ipv4(src: str, dst: str, proto: int, payload: bytes) -> bytes:
    a, b = (ipaddress.IPv4Address(x).packed for x in (src, dst))
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 7, 0, 64, proto, 0)
    return head + a + b + payload


class Host:
    """A machine with a MAC and an address, and what it sends."""

    def __init__(self, mac: int, ip: str) -> None:
        self.mac, self.ip = mac, ip

    def syn(self, to: "Host", port: int) -> bytes:
        return self._tcp(to, (40_000, port), SYN)

    def refuse(self, to: "Host", port: int) -> bytes:
        return self._tcp(to, (port, 40_000), RST_ACK)

    def say(self, to: "Host", ports: tuple[int, int], data: bytes = b"hello") -> bytes:
        return ethernet(self.mac, to.mac, 0x0800, ipv4(self.ip, to.ip, 17, udp(data, ports)))

    def ping(self, ip: str, mac: int, *, reply: bool = False) -> bytes:
        body = bytes([0 if reply else 8]) + bytes(7) + bytes(48)
        return ethernet(self.mac, mac, 0x0800, ipv4(self.ip, ip, 1, body))

    def arp(self, op: int, target: str, *, to: int = BROADCAST, sender: str | None = None) -> bytes:
        who = ipaddress.IPv4Address(sender or self.ip).packed
        told = mac_bytes(to) if op == 2 else bytes(6)
        body = b"\0\1\x08\0\6\4" + struct.pack(">H", op) + mac_bytes(self.mac) + who + told
        return ethernet(self.mac, to, 0x0806, body + ipaddress.IPv4Address(target).packed)

    def dhcp_answer(self) -> bytes:
        body = bytearray(dhcp(b"\x35\x01\x05\xff"))
        body[0] = 2
        payload = ipv4(self.ip, "255.255.255.255", 17, udp(bytes(body), (67, 68)))
        return ethernet(self.mac, BROADCAST, 0x0800, payload)

    def _tcp(self, to: "Host", ports: tuple[int, int], flags: int) -> bytes:
        return ethernet(
            self.mac, to.mac, 0x0800, ipv4(self.ip, to.ip, 6, tcp(ports=ports, flags=flags))
        )


def port_scan(who: Host, target: Host, *, at_s: float, n: int = 120) -> list[tuple[int, bytes]]:
    """40 ports a second, refused."""
    out = []
    for i in range(n):
        ts = MORNING + round((at_s + i / 40) * SECOND)
        out += [(ts, who.syn(target, 1 + i)), (ts + 200_000, target.refuse(who, 1 + i))]
    return out


def ping_all(
    who: Host, addresses: list[str], *, at_s: float, via: int, gap_s: float = 0.1
) -> list[tuple[int, bytes]]:
    """One ping each by the router; nobody answers."""
    return [
        (MORNING + round((at_s + i * gap_s) * SECOND), who.ping(ip, via))
        for i, ip in enumerate(addresses)
    ]


def chat(a: Host, b: Host, *, seconds: range) -> list[tuple[int, bytes]]:
    """A datagram each way at those seconds."""
    out = []
    for s in seconds:
        ts = MORNING + s * SECOND
        out += [(ts, a.say(b, (5000, 6000))), (ts + 100_000, b.say(a, (6000, 5000)))]
    return out


def write_pcap(path: Path, *parts: list[tuple[int, bytes]]) -> Path:
    """The frames of all parts in the order of time."""
    path.write_bytes(pcap(sorted(chain(*parts), key=lambda row: row[0]), ns=True))
    return path
