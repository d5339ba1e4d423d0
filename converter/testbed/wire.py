"""MQTT control packets and IP headers written by hand, for clients that must break the rules.

Pure: bytes out. Nothing is checked; that is the point. Source: MQTT 3.1.1 section 2 and 3, MQTT 5.0, RFC 791,
RFC 768, RFC 9293, RFC 1071.
"""

import socket
import struct


def text(value: str | bytes) -> bytes:
    """A length-prefixed string."""
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("!H", len(raw)) + raw


def packet(first: int, body: bytes) -> bytes:
    """A control packet: first byte, remaining length, body."""
    n, length = len(body), b""
    while True:
        n, low = divmod(n, 128)
        length += bytes((low | (0x80 if n else 0),))
        if not n:
            return bytes((first,)) + length + body


def connect(
    client: str,
    *,
    level: int = 4,
    keep_alive: int = 60,
    user: str = "",
    password: str = "",
    flags: int = 2,
) -> bytes:
    """A CONNECT; clean start unless `flags` says otherwise."""
    body = text("MQTT" if level >= 4 else "MQIsdp") + bytes((level,))
    body += bytes((flags | (0xC0 if user else 0),)) + struct.pack("!H", keep_alive)
    body += b"\x00" if level == 5 else b""
    body += text(client) + (text(user) + text(password) if user else b"")
    return packet(0x10, body)


def publish(
    topic: str | bytes, payload: bytes, *, qos: int = 0, packet_id: int = 1, dup: bool = False
) -> bytes:
    """A PUBLISH below MQTT 5; `dup`: it is sent again."""
    middle = struct.pack("!H", packet_id) if qos else b""
    return packet(0x30 | dup << 3 | qos << 1, text(topic) + middle + payload)


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def ipv4(
    source: str, destination: str, protocol: int, payload: bytes, *, ident: int, ttl: int = 64
) -> bytes:
    """A datagram with its header; the kernel fills the header checksum in on a raw socket."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), ident, 0, ttl, protocol, 0)
    return head + socket.inet_aton(source) + socket.inet_aton(destination) + payload


def tcp_syn(
    source: str, destination: str, sport: int, dport: int, *, seq: int, payload: bytes = b""
) -> bytes:
    """A SYN with an MSS option and a right checksum."""
    head = (
        struct.pack("!HHIIBBHHH", sport, dport, seq, 0, 6 << 4, 2, 64240, 0, 0)
        + b"\x02\x04\x05\xb4"
    )
    pseudo = socket.inet_aton(source) + socket.inet_aton(destination)
    pseudo += struct.pack("!BBH", 0, 6, len(head) + len(payload))
    value = checksum(pseudo + head + payload)
    return head[:16] + struct.pack("!H", value) + head[18:] + payload
