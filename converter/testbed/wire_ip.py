"""IPv4 and IPv6 packets with TCP, UDP and ICMP written by hand, whatever their fields say.

Pure: bytes out, checksums right, nothing else checked. IPv6 where the destination has a colon.
Source: RFC 791, RFC 8200, RFC 9293, RFC 768, RFC 792, RFC 4443, RFC 4861 (4.3, 4.4, 4.6.1).
"""

import socket
import struct

from converter.testbed.wire import checksum, ipv4

MSS = b"\x02\x04\x05\xb4"


def address(text: str) -> bytes:
    """4 or 16 bytes."""
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


def datagram(
    source: str, destination: str, protocol: int, payload: bytes, *, ident: int = 0, ttl: int = 64
) -> bytes:
    """An IP packet; an IPv4 header's checksum is left to the kernel."""
    if ":" not in destination:
        return ipv4(source, destination, protocol, payload, ident=ident, ttl=ttl)
    head = struct.pack("!IHBB", 6 << 28, len(payload), protocol, ttl)
    return head + address(source) + address(destination) + payload


def _sum(source: str, destination: str, protocol: int, body: bytes) -> int:
    pseudo = address(source) + address(destination)
    if ":" in destination:
        return checksum(pseudo + struct.pack("!II", len(body), protocol) + body)
    return checksum(pseudo + struct.pack("!BBH", 0, protocol, len(body)) + body)


def tcp(
    ends: tuple[str, str],
    ports: tuple[int, int],
    flags: int,
    *,
    seq: int = 0,
    ack: int = 0,
    window: int = 64240,
    options: bytes = b"",
    payload: bytes = b"",
) -> bytes:
    """A segment with any flags; `options` a multiple of 4 bytes."""
    offset = (5 + len(options) // 4) << 4
    head = struct.pack("!HHIIBBHHH", *ports, seq, ack, offset, flags & 0xFF, window, 0, 0) + options
    value = _sum(*ends, 6, head + payload)
    return head[:16] + struct.pack("!H", value) + head[18:] + payload


def udp(ends: tuple[str, str], ports: tuple[int, int], payload: bytes) -> bytes:
    """A datagram."""
    head = struct.pack("!HHHH", *ports, 8 + len(payload), 0)
    value = _sum(*ends, 17, head + payload) or 0xFFFF
    return head[:6] + struct.pack("!H", value) + payload


def icmp(ends: tuple[str, str], kind: int, code: int, rest: bytes) -> bytes:
    """ICMP, or ICMPv6 where the ends are IPv6; `rest` from the fifth byte on."""
    plain = bytes((kind, code, 0, 0)) + rest
    value = _sum(*ends, 58, plain) if ":" in ends[1] else checksum(plain)
    return plain[:2] + struct.pack("!H", value) + rest


def neighbour(
    ends: tuple[str, str], target: str, mac: bytes, *, advertise: bool, flags: int = 0x20
) -> bytes:
    """An IPv6 packet with an advertisement (`flags`: 0x20 override) or a solicitation that carries `mac`."""
    rest = struct.pack("!I", flags << 24 if advertise else 0) + address(target)
    rest += bytes((2 if advertise else 1, 1)) + mac
    body = icmp(ends, 136 if advertise else 135, 0, rest)
    return datagram(*ends, 58, body, ttl=255)
