"""Packet tables by hand: a test writes the frames it means, one `Packet` each, and gets a `PacketTable`.

What a packet does not say has the value that the decoder would give a frame without it. Addresses are
text; ARP, ND, DNS, DHCP and MQTT ride along as small dictionaries of the columns that matter.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agent import records

FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58
S = 1_000_000_000


def halves(address: str) -> tuple[int, int]:
    """An address as the records have it; '' is nobody."""
    if not address:
        return 0, 0
    ip = ipaddress.ip_address(address)
    if ip.version == 4:
        return 0, records.V4_MAPPED_LO | int(ip)
    return int(ip) >> 64, int(ip) & 0xFFFF_FFFF_FFFF_FFFF


def v4(address: str) -> int:
    return int(ipaddress.IPv4Address(address))


@dataclass(kw_only=True)
class Packet:
    """One frame; times in ns."""

    ts: int
    src: str = ""
    dst: str = ""
    proto: int = 255
    sport: int = 0
    dport: int = 0
    flags: int = 0
    size: int = 60
    captured: int | None = None
    payload: int = 0
    segments: int = 1
    fragment: int = 0
    icmp_type: int = 255
    reason: int = 0
    tls: int = 0
    src_mac: int = 0
    dst_mac: int = 0
    arp: dict[str, Any] | None = None
    nd: dict[str, Any] | None = None
    dns: dict[str, Any] | None = None
    dhcp: dict[str, Any] | None = None
    mqtt: list[dict[str, Any]] = field(default_factory=list)


def tcp(
    ts: int, src: str, dst: str, sport: int, dport: int, flags: int = ACK, **rest: Any
) -> Packet:
    return Packet(ts=ts, src=src, dst=dst, proto=TCP, sport=sport, dport=dport, flags=flags, **rest)


def udp(ts: int, src: str, dst: str, sport: int, dport: int, **rest: Any) -> Packet:
    return Packet(ts=ts, src=src, dst=dst, proto=UDP, sport=sport, dport=dport, **rest)


def ping(ts: int, src: str, dst: str, *, reply: bool = False, **rest: Any) -> Packet:
    return Packet(ts=ts, src=src, dst=dst, proto=ICMP, icmp_type=0 if reply else 8, **rest)


def arp(ts: int, op: int, sender: str, sender_mac: int, target: str, **rest: Any) -> Packet:
    columns = {
        "op": op,
        "sender_mac": sender_mac,
        "sender_ip": v4(sender) if sender else 0,
        "target_mac": 0,
        "target_ip": v4(target) if target else 0,
    }
    return Packet(ts=ts, size=42, src_mac=sender_mac, arp=columns, **rest)


_MQTT = {
    "packet_type": 3,
    "flags": 0,
    "remaining_len": 10,
    "count": 1,
    "extrapolated": False,
    "to_server": True,
    "level": 4,
    "connect_flags": 0,
    "keep_alive_s": -1,
    "code": -1,
    "topic_len": -1,
    "wildcard": False,
    "violation": 0,
    "synchronised": True,
}
_DTYPES = {
    "ArpTable": "row i8, op u2, sender_mac u8, sender_ip u4, target_mac u8, target_ip u4",
    "NdTable": "row i8, icmp_type u1, target_hi u8, target_lo u8, link_mac u8, flags u1",
    "DnsTable": "row i8, response ?, opcode u1, rcode u1, n_questions u2, n_answers u2",
    "DhcpTable": "row i8, op u1, message_type u1",
    "TlsTable": "row i8, record_version u2, hello_version u2, n_ciphers u2, n_extensions u2, hello_len i4",
    "MqttTable": "row i8, packet_type u1, flags u1, remaining_len i4, count i4, extrapolated ?, "
    "to_server ?, level u1, connect_flags u1, keep_alive_s i4, code i2, topic_len i4, "
    "wildcard ?, violation u1, synchronised ?",
}


def _part(name: str, rows: list[dict[str, Any]]) -> Any:
    """A sub-table; columns that a row leaves out are 0."""
    return getattr(records, name)(
        **{
            column: np.array([r.get(column, 0) for r in rows], dtype=dtype)
            for column, dtype in (c.split() for c in _DTYPES[name].split(", "))
        }
    )


def table_of(packets: Sequence[Packet]) -> records.PacketTable:
    """The table that the decoder would make of these frames."""
    n = len(packets)

    def column(dtype: str, values: Any) -> Any:
        return np.array(list(values), dtype=dtype)

    ends = [(halves(p.src), halves(p.dst)) for p in packets]
    family = [(6 if ":" in p.src + p.dst else 4) if p.src or p.dst else 0 for p in packets]

    def rows(name: str) -> list[dict[str, Any]]:
        return [{"row": i, **getattr(p, name)} for i, p in enumerate(packets) if getattr(p, name)]

    return records.PacketTable(
        ts_ns=column("i8", (p.ts for p in packets)),
        caplen=column("i4", (p.size if p.captured is None else p.captured for p in packets)),
        wirelen=column("i4", (p.size for p in packets)),
        reason=column("u1", (p.reason for p in packets)),
        eth_type=column("u2", (0x0806 if p.arp else 0x0800 for p in packets)),
        vlan_id=np.full(n, -1, np.int16),
        src_mac=column("u8", (p.src_mac for p in packets)),
        dst_mac=column("u8", (p.dst_mac for p in packets)),
        family=column("u1", family),
        src_hi=column("u8", (s[0] for s, _ in ends)),
        src_lo=column("u8", (s[1] for s, _ in ends)),
        dst_hi=column("u8", (d[0] for _, d in ends)),
        dst_lo=column("u8", (d[1] for _, d in ends)),
        proto=column("u1", (p.proto for p in packets)),
        ttl=np.full(n, 64, np.uint8),
        ip_len=column("i4", (p.size - 14 for p in packets)),
        fragment=column("u1", (p.fragment for p in packets)),
        src_port=column("u2", (p.sport for p in packets)),
        dst_port=column("u2", (p.dport for p in packets)),
        icmp_type=column("u1", (p.icmp_type for p in packets)),
        icmp_code=column("u1", (255 if p.icmp_type == 255 else 0 for p in packets)),
        tcp_flags=column("u2", (p.flags for p in packets)),
        tcp_seq=np.zeros(n, np.uint32),
        tcp_ack=np.zeros(n, np.uint32),
        tcp_window=np.zeros(n, np.uint16),
        tcp_mss=np.full(n, -1, np.int32),
        tcp_wscale=np.full(n, -1, np.int16),
        tcp_timestamp=np.zeros(n, np.bool_),
        payload_off=np.zeros(n, np.int64),
        payload_len=column("i4", (p.payload for p in packets)),
        payload_caplen=column("i4", (p.payload for p in packets)),
        segments=column("i4", (p.segments for p in packets)),
        tls=column("u1", (p.tls for p in packets)),
        outgoing=np.zeros(n, np.bool_),
        arp=_part("ArpTable", rows("arp")),
        nd=_part("NdTable", rows("nd")),
        dns=_part("DnsTable", rows("dns")),
        dhcp=_part("DhcpTable", rows("dhcp")),
        tls_hello=_part("TlsTable", []),
        mqtt=_part(
            "MqttTable",
            [{"row": i, **_MQTT, **m} for i, p in enumerate(packets) for m in p.mqtt],
        ),
    )


def cut(table: records.PacketTable, start: int, stop: int) -> records.PacketTable:
    """Frames start to stop of a table, as a table of its own."""
    columns = {}
    for name in records.PacketTable.__dataclass_fields__:
        value = getattr(table, name)
        if isinstance(value, np.ndarray):
            columns[name] = value[start:stop]
            continue
        a, b = np.searchsorted(value.row, (start, stop))
        columns[name] = type(value)(
            **{
                c: getattr(value, c)[a:b] - start if c == "row" else getattr(value, c)[a:b]
                for c in value.__dataclass_fields__
            }
        )
    return records.PacketTable(**columns)
