"""Bytes of frames, built by hand: one of each protocol that the decoder reads, and batches of them."""

import struct

import numpy as np

from agent.records import FrameBatch, LinkType

MAC_A, MAC_B = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
IP_A, IP_B = bytes([192, 168, 1, 10]), bytes([192, 168, 1, 20])
IP6_A = bytes.fromhex("fd000000000000010000000000000001")
IP6_B = bytes.fromhex("fd000000000000020000000000000002")

MSS = b"\x02\x04\x05\xb4"
WSCALE = b"\x03\x03\x07"
TIMESTAMPS = b"\x08\x0a" + bytes(8)
SACK_OK = b"\x04\x02"
LINUX_SYN = MSS + SACK_OK + TIMESTAMPS + b"\x01" + WSCALE
ESTABLISHED = b"\x01\x01" + TIMESTAMPS


def eth(
    payload: bytes, ethertype: int = 0x0800, *, tags: tuple[tuple[int, int], ...] = ()
) -> bytes:
    """An Ethernet frame; `tags` are (type, TCI), outermost first."""
    stack = b"".join(struct.pack(">HH", kind, tci) for kind, tci in tags)
    return MAC_B + MAC_A + stack + struct.pack(">H", ethertype) + payload


def ip4(payload: bytes, proto: int, *, options: bytes = b"", pieces: int = 0, total=None) -> bytes:
    """An IPv4 packet; `total` overrides the total length."""
    header = 20 + len(options)
    length = header + len(payload) if total is None else total
    return (
        struct.pack(">BBHHHBBH", 0x40 | header // 4, 0, length, 7, pieces, 64, proto, 0)
        + IP_A
        + IP_B
        + options
        + payload
    )


def ip6(payload: bytes, following: int, *, length=None) -> bytes:
    """An IPv6 packet; `length` overrides the payload length."""
    size = len(payload) if length is None else length
    return struct.pack(">IHBB", 0x6000_0000, size, following, 64) + IP6_A + IP6_B + payload


def tcp(payload: bytes = b"", *, ports=(40000, 1883), flags=0x18, options=b"", words=None) -> bytes:
    """A TCP segment; options are padded to whole words, `words` overrides the data offset."""
    options += bytes(-len(options) % 4)
    offset = (20 + len(options)) // 4 if words is None else words
    fixed = struct.pack(
        ">HHIIHHHH", *ports, 0x01020304, 0xA0B0C0D0, offset << 12 | flags, 0x2000, 0, 0
    )
    return fixed + options + payload


def udp(payload: bytes, ports=(5000, 6000), *, length=None) -> bytes:
    """A UDP datagram; `length` overrides its own length."""
    size = 8 + len(payload) if length is None else length
    return struct.pack(">HHHH", *ports, size, 0) + payload


def arp(op: int = 2) -> bytes:
    return b"\x00\x01\x08\x00\x06\x04" + struct.pack(">H", op) + MAC_A + IP_A + MAC_B + IP_B


def nd(kind: int, options: bytes) -> bytes:
    return struct.pack(">BBHI", kind, 0, 0, 0xE0000000) + IP6_B + options


def dhcp(options: bytes) -> bytes:
    return b"\x01\x01\x06\x00" + bytes(232) + b"\x63\x82\x53\x63" + options


def client_hello(n_ciphers: int = 3, n_extensions: int = 4, *, sid: int = 32) -> bytes:
    ciphers = bytes(2 * n_ciphers)
    extensions = b"".join(struct.pack(">HH", i, i) + bytes(i) for i in range(n_extensions))
    body = b"\x03\x03" + bytes(32) + bytes([sid]) + bytes(sid) + struct.pack(">H", len(ciphers))
    body += ciphers + b"\x01\x00" + struct.pack(">H", len(extensions)) + extensions
    handshake = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + struct.pack(">H", len(handshake)) + handshake


DNS_HEADER = struct.pack(">HHHHHH", 7, 0x8583, 1, 2, 0, 0)
HOP_BY_HOP = b"\x3a\x00\x05\x02\x00\x00\x01\x00"

ETHERNET_FRAMES: dict[str, bytes] = {
    "syn": eth(ip4(tcp(flags=2, options=LINUX_SYN), 6)),
    "syn without options": eth(ip4(tcp(flags=2), 6)),
    "established": eth(ip4(tcp(b"\xc0\x00", options=ESTABLISHED), 6)),
    "odd options": eth(ip4(tcp(b"x", options=b"\x01" * 7 + MSS + b"\xfd\x06abcd" + WSCALE), 6)),
    "bad option": eth(ip4(tcp(options=b"\x05\x01" + MSS), 6)),
    "udp": eth(ip4(udp(b"hello"), 17)),
    "padded udp": eth(ip4(udp(b"x"), 17)) + bytes(17),
    "ping": eth(ip4(b"\x08\x00\x00\x00\x00\x01\x00\x01" + bytes(20), 1)),
    "igmp": eth(ip4(b"\x16\x00\x00\x00\xe0\x00\x00\x01", 2, options=b"\x94\x04\x00\x00")),
    "ip options": eth(ip4(tcp(b"abc", options=ESTABLISHED), 6, options=b"\x01" * 12)),
    "first fragment": eth(ip4(udp(b"x" * 24, length=2000), 17, pieces=0x2000)),
    "later fragment": eth(ip4(b"y" * 24, 17, pieces=0x00B9)),
    "total length 0": eth(ip4(tcp(b"z" * 30), 6, total=0)),
    "arp request": eth(arp(1), 0x0806),
    "arp reply": eth(arp(2) + bytes(18), 0x0806),
    "arp of another kind": eth(b"\x00\x06" + arp()[2:], 0x0806),
    "tcp over ipv6": eth(ip6(tcp(b"abc", options=LINUX_SYN), 6), 0x86DD),
    "udp over ipv6": eth(ip6(udp(b"abc"), 17), 0x86DD),
    "hop-by-hop": eth(ip6(HOP_BY_HOP + b"\x8f" + bytes(27), 0), 0x86DD),
    "chain": eth(
        ip6(
            b"\x2b\x00" + bytes(6)  # hop-by-hop -> routing
            + b"\x3c\x01" + bytes(14)  # routing -> destination options
            + b"\x33\x00" + bytes(6)  # destination options -> AH
            + b"\x2c\x04" + bytes(22)  # AH -> fragment
            + b"\x06\x00\x00\x01" + bytes(4)  # fragment (first) -> TCP
            + tcp(b"abc"),
            0,
        ),
        0x86DD,
    ),
    "later fragment over ipv6": eth(ip6(b"\x11\x00\x01\x00" + bytes(20), 44), 0x86DD),
    "nine extensions": eth(ip6((b"\x3c\x00" + bytes(6)) * 9 + tcp(), 60), 0x86DD),
    "no next header": eth(ip6(b"", 59), 0x86DD),
    "neighbour solicitation": eth(ip6(nd(135, b"\x01\x01" + MAC_A), 58), 0x86DD),
    "neighbour advertisement": eth(ip6(nd(136, b"\x0e\x01" + bytes(6) + b"\x02\x01" + MAC_B), 58), 0x86DD),
    "vlan": eth(ip4(udp(b"tagged"), 17), tags=((0x8100, 0x2005),)),
    "qinq": eth(ip4(tcp(b"tagged"), 6), tags=((0x88A8, 100), (0x8100, 20))),
    "three tags": eth(arp(), 0x0806, tags=((0x9100, 3), (0x88A8, 2), (0x8100, 1))),
    "four tags": eth(arp(), 0x0806, tags=((0x8100, 4),) * 4),
    "stp": eth(b"\x42\x42\x03" + bytes(35), 38),
    "lldp": eth(bytes(40), 0x88CC),
    "dns": eth(ip4(udp(DNS_HEADER, (53, 40000)), 17)),
    "mdns": eth(ip6(udp(DNS_HEADER, (5353, 5353)), 17), 0x86DD),
    "dhcp": eth(ip4(udp(dhcp(b"\x00\x00\x3d\x01\x00\x35\x01\x05\xff"), (68, 67)), 17)),
    "client hello": eth(ip4(tcp(client_hello(), ports=(40000, 443), options=ESTABLISHED), 6)),
    "long client hello": eth(ip6(tcp(client_hello(40, 30, sid=0), ports=(4, 9)), 6), 0x86DD),
    "server hello": eth(ip4(tcp(b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03" + bytes(40)), 6)),
    "tls data": eth(ip4(tcp(b"\x17\x03\x03\x00\x20" + bytes(32)), 6)),
    "tls alert": eth(ip4(tcp(b"\x15\x03\x03\x00\x02\x02\x28"), 6)),
    "tls change": eth(ip4(tcp(b"\x14\x03\x03\x00\x01\x01"), 6)),
    "gre": eth(ip4(b"\x00\x00\x08\x00" + ip4(tcp(), 6), 47)),
    "4in6": eth(ip6(ip4(tcp(), 6), 4), 0x86DD),
    "bad version": eth(b"\x55" + ip4(tcp(), 6)[1:]),
    "short header": eth(b"\x44" + ip4(tcp(), 6)[1:]),
    "short total": eth(ip4(tcp(), 6, total=19)),
    "tcp offset past the end": eth(ip4(tcp(words=9), 6)),
    "tcp offset below five": eth(ip4(tcp(words=4), 6)),
    "tcp of 12 bytes": eth(ip4(tcp()[:12], 6)),
    "udp length 7": eth(ip4(udp(b"", length=7), 17)),
    "joined segments": eth(ip4(tcp(bytes(5000), options=ESTABLISHED), 6)),
}  # fmt: skip
"""By name; every branch of the layers above Ethernet is in here."""

PACKETS = {
    "v4": ip4(tcp(b"\x10\x00", options=LINUX_SYN), 6),
    "v6": ip6(udp(DNS_HEADER, (53, 1)), 17),
    "neither": b"\x00" * 40,
}

SLL = struct.pack(">HHH", 0, 1, 6) + MAC_A + bytes(2)
SLL2_TAIL = struct.pack(">HIHBB", 0, 3, 1, 0, 6) + MAC_A + bytes(2)

FRAMES: list[tuple[str, int, bytes]] = [
    *((name, LinkType.ETHERNET, frame) for name, frame in ETHERNET_FRAMES.items()),
    *((f"raw {k}", LinkType.RAW, v) for k, v in PACKETS.items()),
    *((f"raw 12 {k}", LinkType.RAW_BSD_12, v) for k, v in PACKETS.items()),
    *((f"raw 14 {k}", LinkType.RAW_BSD_14, v) for k, v in PACKETS.items()),
    *((f"ipv4 {k}", LinkType.IPV4, v) for k, v in PACKETS.items()),
    *((f"ipv6 {k}", LinkType.IPV6, v) for k, v in PACKETS.items()),
    ("null v4", LinkType.NULL, b"\x02\0\0\0" + PACKETS["v4"]),
    ("null v6", LinkType.NULL, b"\x1e\0\0\0" + PACKETS["v6"]),
    ("null big-endian", LinkType.NULL, b"\0\0\0\x02" + PACKETS["v4"]),
    ("null appletalk", LinkType.NULL, b"\x10\0\0\0" + bytes(30)),
    ("loop v4", LinkType.LOOP, b"\0\0\0\x02" + PACKETS["v4"]),
    *(
        (f"loop v6 as {family}", LinkType.LOOP, bytes([0, 0, 0, family]) + PACKETS["v6"])
        for family in (10, 24, 28, 30)
    ),
    ("sll v4", LinkType.LINUX_SLL, SLL + b"\x08\x00" + PACKETS["v4"]),
    ("sll v6", LinkType.LINUX_SLL, SLL + b"\x86\xdd" + PACKETS["v6"]),
    ("sll arp", LinkType.LINUX_SLL, SLL + b"\x08\x06" + arp()),
    ("sll vlan", LinkType.LINUX_SLL, SLL + b"\x81\x00\x00\x05\x08\x00" + PACKETS["v4"]),
    ("sll no address", LinkType.LINUX_SLL, bytes(14) + b"\x08\x00" + PACKETS["v4"]),
    ("sll netlink", LinkType.LINUX_SLL, b"\0\0\x03\x38" + bytes(10) + b"\x08\x00" + bytes(40)),
    ("sll2 v4", LinkType.LINUX_SLL2, b"\x08\x00" + SLL2_TAIL + PACKETS["v4"]),
    ("sll2 arp", LinkType.LINUX_SLL2, b"\x08\x06" + SLL2_TAIL + arp()),
    ("foreign", 195, bytes(60)),
]
"""(name, link type, bytes) of every frame above and below Ethernet."""


def batch_of(
    frames: list[bytes],
    link_type: int = LinkType.ETHERNET,
    *,
    wirelen: list[int] | None = None,
    gap: bytes = b"",
    order: list[int] | None = None,
    vlan_tci: list[int] | None = None,
) -> FrameBatch:
    """Frames laid into one buffer in `order`, `gap` between them; the last one ends the buffer."""
    order = list(range(len(frames))) if order is None else order
    offset = [0] * len(frames)
    buffer = bytearray()
    for place, i in enumerate(order):
        if place:
            buffer += gap
        offset[i] = len(buffer)
        buffer += frames[i]
    lengths = [len(f) for f in frames]
    return FrameBatch(
        ts_ns=np.arange(len(frames), dtype=np.int64),
        offset=np.array(offset, np.int64),
        caplen=np.array(lengths, np.int32),
        wirelen=np.array(lengths if wirelen is None else wirelen, np.int32),
        buffer=np.frombuffer(bytes(buffer), np.uint8),
        link_type=link_type,
        vlan_tci=None if vlan_tci is None else np.array(vlan_tci, np.int32),
    )
