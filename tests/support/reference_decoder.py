"""One frame at a time, with `struct` and slices: what every column of `PacketTable` must say of it.

Written from the records' own words and the RFCs, to be read rather than to be fast. MQTT is not here.
"""

import struct
from dataclasses import dataclass, field

from agent.records import V4_MAPPED_LO, LinkType, Reason, TlsRecord

TAGS = (0x8100, 0x88A8, 0x9100)


class Stop(Exception):  # noqa: N818 - the end of a walk, not an error
    """Decoding of this frame ends here."""

    def __init__(self, reason: Reason) -> None:
        self.reason = reason


@dataclass
class Frame:
    """The columns, with the values of "absent", and the rows of the side tables (None: no row)."""

    reason: int = 0
    eth_type: int = 0
    vlan_id: int = -1
    src_mac: int = 0
    dst_mac: int = 0
    family: int = 0
    src_hi: int = 0
    src_lo: int = 0
    dst_hi: int = 0
    dst_lo: int = 0
    proto: int = 255
    ttl: int = 0
    ip_len: int = 0
    fragment: int = 0
    src_port: int = 0
    dst_port: int = 0
    icmp_type: int = 255
    icmp_code: int = 255
    tcp_flags: int = 0
    tcp_seq: int = 0
    tcp_ack: int = 0
    tcp_window: int = 0
    tcp_mss: int = -1
    tcp_wscale: int = -1
    tcp_timestamp: bool = False
    payload_off: int = 0
    payload_len: int = 0
    payload_caplen: int = 0
    segments: int = 1
    tls: int = 0
    arp: dict[str, int] | None = None
    nd: dict[str, int] | None = None
    dns: dict[str, int] | None = None
    dhcp: dict[str, int] | None = None
    tls_hello: dict[str, int] | None = None
    payload: bytes = field(default=b"", repr=False)


def number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def decode_frame(data: bytes, wirelen: int, link_type: int, kernel_tci: int = -1) -> Frame:
    """Decode `data`, the captured bytes; `payload_off` counts from its first byte."""
    out = Frame()
    try:
        at = link(out, data, link_type, kernel_tci)
        if out.eth_type == 0x0806:
            arp(out, data[at:])
        elif out.eth_type == 0x0800:
            ipv4(out, data, wirelen, at)
        elif out.eth_type == 0x86DD:
            ipv6(out, data, wirelen, at)
        else:
            out.reason = int(Reason.UNKNOWN_ETHERTYPE)
    except Stop as stop:
        out.reason = int(stop.reason)
    if out.proto == 6 and wirelen > 1600 and out.payload_len > 1460:
        out.segments = (out.payload_len + 1447) // 1448
    return out


def link(  # noqa: C901, PLR0912 - one page, read from top to bottom
    out: Frame, data: bytes, link_type: int, kernel_tci: int
) -> int:
    n_tags = 0
    if kernel_tci >= 0:
        out.vlan_id, n_tags = kernel_tci & 0xFFF, 1
    sizes = {
        LinkType.ETHERNET: 14,
        LinkType.LINUX_SLL: 16,
        LinkType.LINUX_SLL2: 20,
        LinkType.NULL: 4,
        LinkType.LOOP: 4,
    }
    size = sizes.get(link_type, 0)
    if len(data) < size:
        raise Stop(Reason.TRUNCATED_LINK)
    if link_type == LinkType.ETHERNET:
        out.dst_mac, out.src_mac = number(data[:6]), number(data[6:12])
        out.eth_type = number(data[12:14])
    elif link_type in (LinkType.LINUX_SLL, LinkType.LINUX_SLL2):
        if link_type == LinkType.LINUX_SLL:
            _, arphrd, length, address, protocol = struct.unpack(">HHH8sH", data[:16])
        else:
            protocol, _, _, arphrd, _, length, address = struct.unpack(">HHIHBB8s", data[:20])
        if length == 6:
            out.src_mac = number(address[:6])
        if arphrd in (770, 801, 802, 803, 824):
            raise Stop(Reason.UNKNOWN_ETHERTYPE)
        out.eth_type = protocol
    elif link_type in (LinkType.NULL, LinkType.LOOP):
        big, little = number(data[:4]), int.from_bytes(data[:4], "little")
        family = little if big > 0xFFFF else big
        out.eth_type = {2: 0x0800, 10: 0x86DD, 24: 0x86DD, 28: 0x86DD, 30: 0x86DD}.get(family, 0)
    elif link_type in (LinkType.RAW, LinkType.RAW_BSD_12, LinkType.RAW_BSD_14):
        if not data:
            raise Stop(Reason.TRUNCATED_L3)
        out.eth_type = {4: 0x0800, 6: 0x86DD}.get(data[0] >> 4, 0)
        if not out.eth_type:
            raise Stop(Reason.BAD_IP_VERSION)
    elif link_type == LinkType.IPV4:
        out.eth_type = 0x0800
    elif link_type == LinkType.IPV6:
        out.eth_type = 0x86DD
    else:
        raise Stop(Reason.BAD_LINK_TYPE)
    while out.eth_type in TAGS:
        if n_tags == 3:
            raise Stop(Reason.TOO_MANY_HEADERS)
        if len(data) < size + 4:
            raise Stop(Reason.TRUNCATED_LINK)
        tci, out.eth_type = struct.unpack(">HH", data[size : size + 4])
        if out.vlan_id < 0:
            out.vlan_id = tci & 0xFFF
        n_tags += 1
        size += 4
    return size


def arp(out: Frame, data: bytes) -> None:
    if len(data) >= 6 and data[:6] != b"\x00\x01\x08\x00\x06\x04":
        raise Stop(Reason.BAD_ARP)
    if len(data) < 28:
        raise Stop(Reason.TRUNCATED_L3)
    out.arp = {
        "op": number(data[6:8]),
        "sender_mac": number(data[8:14]),
        "sender_ip": number(data[14:18]),
        "target_mac": number(data[18:24]),
        "target_ip": number(data[24:28]),
    }


def ipv4(out: Frame, data: bytes, wirelen: int, at: int) -> None:
    if len(data) < at + 20:
        raise Stop(Reason.TRUNCATED_L3)
    if data[at] >> 4 != 4:
        raise Stop(Reason.BAD_IP_VERSION)
    header = (data[at] & 15) * 4
    total = number(data[at + 2 : at + 4]) or wirelen - at
    if header < 20 or total < header:
        raise Stop(Reason.BAD_IP_HEADER)
    out.family, out.ttl, out.proto, out.ip_len = 4, data[at + 8], data[at + 9], total
    out.src_lo = V4_MAPPED_LO | number(data[at + 12 : at + 16])
    out.dst_lo = V4_MAPPED_LO | number(data[at + 16 : at + 20])
    pieces = number(data[at + 6 : at + 8])
    if pieces & 0x1FFF:
        out.fragment = 2
        raise Stop(Reason.FRAGMENT)
    if pieces & 0x2000:
        out.fragment = 1
    if len(data) < at + header:
        raise Stop(Reason.TRUNCATED_L3)
    transport(out, data, at + header, at + min(total, wirelen - at))


def ipv6(  # noqa: C901, PLR0912 - one page, read from top to bottom
    out: Frame, data: bytes, wirelen: int, at: int
) -> None:
    if len(data) < at + 40:
        raise Stop(Reason.TRUNCATED_L3)
    if data[at] >> 4 != 6:
        raise Stop(Reason.BAD_IP_VERSION)
    out.family, out.proto, out.ttl = 6, data[at + 6], data[at + 7]
    out.src_hi, out.src_lo, out.dst_hi, out.dst_lo = struct.unpack(">4Q", data[at + 8 : at + 40])
    out.ip_len = number(data[at + 4 : at + 6]) + 40
    if out.ip_len == 40 and out.proto != 59:
        out.ip_len = wirelen - at
    end = at + min(out.ip_len, wirelen - at)
    at += 40
    n_headers = 0
    while out.proto in (0, 43, 44, 51, 60, 135):
        if n_headers == 8:
            raise Stop(Reason.TOO_MANY_HEADERS)
        if at + 8 > end:
            raise Stop(Reason.BAD_IP_HEADER)
        if at + 8 > len(data):
            raise Stop(Reason.TRUNCATED_L3)
        kind, length = out.proto, (data[at + 1] + 1) * 8
        if kind == 44:
            length = 8
        elif kind == 51:
            length = (data[at + 1] + 2) * 4
        if at + length > end:
            raise Stop(Reason.BAD_IP_HEADER)
        out.proto = data[at]
        if kind == 44:
            pieces = number(data[at + 2 : at + 4])
            if pieces >> 3:
                out.fragment = 2
                raise Stop(Reason.FRAGMENT)
            if pieces & 1:
                out.fragment = 1
        at += length
        n_headers += 1
    if out.proto != 59:
        transport(out, data, at, end)


def transport(out: Frame, data: bytes, at: int, end: int) -> None:
    seen = data[at : max(at, min(len(data), end))]
    wire = end - at
    need = {6: 20, 17: 8, 1: 8, 58: 8}.get(out.proto)
    if need is None:
        raise Stop(Reason.UNKNOWN_PROTOCOL)
    if wire < need:
        raise Stop(Reason.BAD_L4_HEADER)
    if len(seen) < need:
        raise Stop(Reason.TRUNCATED_L4)
    if out.proto == 6:
        tcp(out, seen, wire, at)
        tls(out)
        return
    if out.proto == 17:
        out.src_port, out.dst_port, length = struct.unpack(">HHH", seen[:6])
        if length < 8 and not (length == 0 and out.family == 6):
            raise Stop(Reason.BAD_L4_HEADER)
        payload(out, seen, min(wire, length or wire), at, 8)
        dns(out)
        dhcp(out)
        return
    out.icmp_type, out.icmp_code = seen[0], seen[1]
    payload(out, seen, wire, at, 8)
    if out.proto == 58 and out.family == 6:
        nd(out, seen)


def payload(out: Frame, seen: bytes, wire: int, at: int, header: int) -> None:
    out.payload_len = wire - header
    out.payload = seen[header:wire]
    out.payload_caplen = len(out.payload)
    out.payload_off = at + header if out.payload else 0


def tcp(out: Frame, seen: bytes, wire: int, at: int) -> None:
    out.src_port, out.dst_port, out.tcp_seq, out.tcp_ack, word, out.tcp_window = struct.unpack(
        ">HHIIHH", seen[:16]
    )
    out.tcp_flags = word & 0xFFF
    header = (word >> 12) * 4
    if header < 20 or header > wire:
        raise Stop(Reason.BAD_L4_HEADER)
    options(out, seen[20:header])
    payload(out, seen, wire, at, header)
    if header > len(seen):
        raise Stop(Reason.TRUNCATED_L4)


def options(out: Frame, data: bytes) -> None:
    while data and data[0] != 0:
        if data[0] == 1:
            data = data[1:]
            continue
        if len(data) < 2 or data[1] < 2 or data[1] > len(data):
            return
        kind, length, value = data[0], data[1], data[2 : data[1]]
        if (kind, length) == (2, 4) and out.tcp_mss < 0:
            out.tcp_mss = number(value)
        elif (kind, length) == (3, 3) and out.tcp_wscale < 0:
            out.tcp_wscale = value[0]
        elif (kind, length) == (8, 10):
            out.tcp_timestamp = True
        data = data[length:]


def nd(out: Frame, seen: bytes) -> None:
    if seen[0] not in (135, 136) or len(seen) < 24:
        return
    advertises = seen[0] == 136
    mac, options = 0, seen[24:64]
    while len(options) >= 8 and options[1]:
        if options[0] == (2 if advertises else 1) and options[1] == 1:
            mac = number(options[2:8])
            break
        options = options[options[1] * 8 :]
    out.nd = {
        "icmp_type": seen[0],
        "target_hi": number(seen[8:16]),
        "target_lo": number(seen[16:24]),
        "link_mac": mac,
        "flags": seen[4] >> 5 if advertises else 0,
    }


def dns(out: Frame) -> None:
    if not {out.src_port, out.dst_port} & {53, 5353, 5355} or len(out.payload) < 12:
        return
    _, flags, questions, answers = struct.unpack(">HHHH", out.payload[:8])
    out.dns = {
        "response": flags >> 15,
        "opcode": flags >> 11 & 15,
        "rcode": flags & 15,
        "n_questions": questions,
        "n_answers": answers,
    }


def dhcp(out: Frame) -> None:
    if not {out.src_port, out.dst_port} & {67, 68} or len(out.payload) < 236:
        return
    out.dhcp = {"op": out.payload[0], "message_type": 0}
    options = out.payload[236:316]
    if options[:4] != b"\x63\x82\x53\x63":
        return
    options = options[4:]
    for _ in range(8):
        if len(options) < 3 or options[0] == 255:
            return
        if options[0] == 0:
            options = options[1:]
            continue
        if options[0] == 53 and options[1] == 1:
            out.dhcp["message_type"] = options[2]
            return
        options = options[2 + options[1] :]


def tls(out: Frame) -> None:
    data = out.payload
    if len(data) < 5 or not 20 <= data[0] <= 23 or data[1] != 3 or data[2] > 4:
        return
    length = number(data[3:5])
    if not 1 <= length <= 18432 or (data[0], length) == (21, 1) or (data[0] == 20 and length != 1):
        return
    names = {20: TlsRecord.CHANGE_CIPHER_SPEC, 21: TlsRecord.ALERT}
    names |= {22: TlsRecord.HANDSHAKE_OTHER, 23: TlsRecord.APPLICATION_DATA}
    out.tls = int(names[data[0]])
    if data[0] != 22 or len(data) < 11 or data[9] != 3 or data[6] != 0:
        return
    if data[5] == 2:
        out.tls = int(TlsRecord.SERVER_HELLO)
    if data[5] == 1:
        out.tls = int(TlsRecord.CLIENT_HELLO)
        n_ciphers, n_extensions = hello_counts(data)
        out.tls_hello = {
            "record_version": number(data[1:3]),
            "hello_version": number(data[9:11]),
            "n_ciphers": n_ciphers,
            "n_extensions": n_extensions,
            "hello_len": number(data[6:9]),
        }


def hello_counts(data: bytes) -> tuple[int, int]:
    at, lists = 43, []
    for width in (1, 2, 1):  # session id, cipher suites, compression methods
        if len(data) < at + width:
            return (lists[1] // 2 if len(lists) > 1 else 0), 0
        lists.append(number(data[at : at + width]))
        at += width + lists[-1]
    n_ciphers, n_extensions = lists[1] // 2, 0
    if len(data) < at + 2:
        return n_ciphers, 0
    end = at + 2 + number(data[at : at + 2])
    at += 2
    while end <= len(data) and at + 4 <= end and n_extensions < 64:
        n_extensions += 1
        at += 4 + number(data[at + 2 : at + 4])
    return n_ciphers, n_extensions
