"""A decoded batch as the columns that windows add up: whose frame it is, its class, its sizes, its port.

Vectorised over the batch; no state. It never keeps a packet.

In: `PacketTable`. Out: `Frames`, arrays of n rows, and `Claims`, the ARP and ND packets among them.

Who is who: an IP packet belongs to its source (out) and its destination (in). An ARP packet belongs to
the host whose address it claims and to the one that it is told to or asks for; ND likewise. A machine
without an address (DHCP, probes) is its MAC. Multicast and broadcast destinations are no hosts.

Source: RFC 9293 3.1 (flags), RFC 826, RFC 5227 (ARP probes), RFC 4861 (ND).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from agent.features.classes import CLASSES
from agent.records import MAC_HI, V4_MAPPED_LO, PacketTable, Reason, TlsRecord

if TYPE_CHECKING:
    from agent.records import I64, U8, U64, BoolArray

CLASS = {name: i for i, name in enumerate(CLASSES)}

PAIR, SERVICE, REFUSAL, RESOLVE = 0, 1, 2, 3
"""What a frame says of the two hosts: they talk; dst is addressed as a server; src refuses; ARP or ND."""

ASK, CLAIM = 1, 2
"""The two operations of address resolution; the `port` of RESOLVE."""

MAX_WEIGHT = 127
"""Cap on the segments that one frame stands for (64 kB at the smallest MSS that stacks accept)."""
MAX_SIZE = 65_535
"""Cap on a segment's size: 16,384 frames x 127 segments x size squared stay below 2^53."""

_FIN, _SYN, _RST, _ACK, _URG = 1, 2, 4, 16, 32


def _tcp_class(flags: int, *, payload: bool) -> str:
    if flags & _RST:
        return "odd" if flags & (_SYN | _FIN) else "rst"
    if flags & _SYN:
        if flags & (_FIN | _URG):
            return "odd"
        return "synack" if flags & _ACK else "syn"
    if not flags & _ACK:
        return "odd"
    if flags & _FIN:
        return "fin"
    return "data" if payload else "ack"


_TCP_LUT: U8 = np.array(
    [CLASS[_tcp_class(i & 63, payload=i > 63)] for i in range(128)], dtype=np.uint8
)
_TLS_LUT: U8 = np.full(256, CLASS["data"], np.uint8)
_TLS_LUT[TlsRecord.CLIENT_HELLO] = CLASS["tls_hello"]
_TLS_LUT[TlsRecord.ALERT] = CLASS["tls_alert"]
_TLS_LUT[TlsRecord.APPLICATION_DATA] = CLASS["tls_data"]

_ICMP_LUT: U8 = np.full((2, 256), CLASS["icmp"], np.uint8)
for _row, _types in enumerate(((8, 0, 3), (128, 129, 1))):  # ICMP (RFC 792), ICMPv6 (RFC 4443)
    for _type, _name in zip(_types, ("echo_request", "echo_reply", "unreachable"), strict=True):
        _ICMP_LUT[_row, _type] = CLASS[_name]

_NEVER, _ALWAYS, _DOWNWARD, _REFUSING = 0, 1, 2, 3
_SERVES: U8 = np.zeros(len(CLASSES), np.uint8)
for _name in ("syn", "odd"):
    _SERVES[CLASS[_name]] = _ALWAYS
for _name in ("fin", "ack", "data", "tls_hello", "tls_alert", "tls_data"):
    _SERVES[CLASS[_name]] = _DOWNWARD
for _name in ("udp", "dns_query", "dns_response", "dhcp"):
    _SERVES[CLASS[_name]] = _DOWNWARD
_SERVES[CLASS["rst"]] = _REFUSING


@dataclass(slots=True, frozen=True, kw_only=True)
class Claims:
    """ARP and ND packets of a batch in frame order; m rows."""

    row: I64
    op: U8
    """(m,) ASK or CLAIM."""
    sender_hi: U64
    sender_lo: U64
    """(m,) the address that is claimed, or that asks; 0 where it has none yet."""
    target_hi: U64
    target_lo: U64
    """(m,) the address asked for, or told; 0 nobody or everybody."""
    mac: U64


@dataclass(slots=True, frozen=True, kw_only=True)
class Frames:
    """What windows need of each frame; n rows."""

    src_hi: U64
    src_lo: U64
    dst_hi: U64
    dst_lo: U64
    has_src: BoolArray
    has_dst: BoolArray
    src_mac: U64
    frame_class: U8
    """(n,) index into CLASSES."""
    link: I64
    """(n,) what it says of the two hosts, `what << 16 | port`."""
    weight: I64
    """(n,) wire packets."""
    size: I64
    """(n,) bytes of one of them."""
    sums: I64
    """(5, n) per frame: packets, bytes, squares of size, packets with payload, packets to a group."""
    all_single: bool
    """Every weight is 1."""
    claims: Claims


def _ip_classes(table: PacketTable) -> U8:
    """(n,) class of each frame by transport; ARP and ND come later."""
    tcp = (table.proto == 6) & (table.fragment != 2)
    payload = table.payload_len > 0
    flags = (table.tcp_flags & 63).astype(np.uint8)
    flags |= payload.astype(np.uint8) << 6
    out = _TCP_LUT[flags]
    data = out == CLASS["data"]
    if (table.tls != 0).any():
        out = np.where(data, _TLS_LUT[table.tls], out)
    if not tcp.all():
        rest = np.flatnonzero(~tcp)
        proto = table.proto[rest]
        kind = np.zeros(len(rest), np.uint8)
        kind[proto == 17] = CLASS["udp"]
        icmp = (proto == 1) | (proto == 58)
        six = (proto == 58).astype(np.intp)
        kind = np.where(icmp, _ICMP_LUT[six, table.icmp_type[rest]], kind)
        out[rest] = kind
        out[table.fragment == 2] = CLASS["fragment"]
    out[table.dns.row] = np.where(table.dns.response, CLASS["dns_response"], CLASS["dns_query"])
    out[table.dhcp.row] = CLASS["dhcp"]
    odd = table.reason != Reason.OK
    if odd.any():
        _broken_classes(table, np.flatnonzero(odd), out)
    return out


def _broken_classes(table: PacketTable, rows: NDArray[np.intp], out: U8) -> None:
    """Frames whose transport header could not be read; a short capture is not a broken frame."""
    reason = table.reason[rows]
    whole = table.caplen[rows] >= table.wirelen[rows]
    bad = (reason == Reason.BAD_L4_HEADER) | (reason == Reason.TOO_MANY_HEADERS)
    cut = reason == Reason.TRUNCATED_L4
    out[rows[bad | (cut & whole)]] = CLASS["bad"]
    out[rows[(cut & ~whole) | (reason == Reason.UNKNOWN_PROTOCOL)]] = CLASS["other"]
    out[rows[(bad | cut) & (table.fragment[rows] == 1)]] = CLASS["fragment"]  # tiny first fragment


def _group_address(hi: U64, lo: U64) -> BoolArray:
    """(n,) IPv4 224/4 and 240/4 (broadcast in it), IPv6 ff00::/8."""
    four: BoolArray = (hi == 0) & (lo >> np.uint64(29) == (V4_MAPPED_LO | 0xE000_0000) >> 29)
    six: BoolArray = (hi >> np.uint64(56) == 0xFF) & (hi != MAC_HI)
    return np.logical_or(four, six)


def _unspecified(hi: U64, lo: U64) -> BoolArray:
    out: BoolArray = (hi == 0) & ((lo == 0) | (lo == V4_MAPPED_LO))
    return out


def _links(table: PacketTable, classes: U8) -> I64:
    """(n,) `what << 16 | port`: a service is what a packet opens, or what lies at the lower port."""
    serves = _SERVES[classes]
    if not serves.any():
        return np.zeros(len(table), np.int64)
    src, dst = table.src_port.astype(np.int64), table.dst_port.astype(np.int64)
    service = (serves == _ALWAYS) | ((serves == _DOWNWARD) & (dst <= src))
    refusal = (serves == _REFUSING) & (src <= dst)
    out = np.where(service, dst | SERVICE << 16, 0)
    if refusal.any():
        out[refusal] = src[refusal] | REFUSAL << 16
    return out


def _mapped(ip: NDArray[np.uint32]) -> U64:
    """IPv4 as the low half of a mapped address; 0.0.0.0 as nobody."""
    return np.where(ip != 0, ip.astype(np.uint64) | np.uint64(V4_MAPPED_LO), np.uint64(0))


def _claims(table: PacketTable, group: BoolArray) -> Claims:
    """ARP and ND packets in frame order, in one vocabulary."""
    arp, nd = table.arp, table.nd
    known = (arp.op == 1) | (arp.op == 2)
    zero = np.zeros(len(arp.row), np.uint64)
    asks = nd.icmp_type == 135
    src_hi, src_lo = table.src_hi[nd.row], table.src_lo[nd.row]
    none = _unspecified(src_hi, src_lo)
    to_all = group[nd.row]
    dst_hi = np.where(to_all, np.uint64(0), table.dst_hi[nd.row])
    dst_lo = np.where(to_all, np.uint64(0), table.dst_lo[nd.row])
    link_mac = np.where(nd.link_mac != 0, nd.link_mac, table.src_mac[nd.row])
    row = np.concatenate([arp.row[known], nd.row])
    order = np.argsort(row, kind="stable")

    def merge(four: NDArray[np.generic], six: NDArray[np.generic]) -> NDArray[np.generic]:
        return np.concatenate([four[known], six])[order]

    return Claims(
        row=row[order],
        op=merge(arp.op.astype(np.uint8), np.where(asks, ASK, CLAIM).astype(np.uint8)),  # type: ignore[arg-type]
        sender_hi=merge(zero, np.where(asks, np.where(none, np.uint64(0), src_hi), nd.target_hi)),  # type: ignore[arg-type]
        sender_lo=merge(  # type: ignore[arg-type]
            _mapped(arp.sender_ip),
            np.where(asks, np.where(none, np.uint64(0), src_lo), nd.target_lo),
        ),
        target_hi=merge(zero, np.where(asks, nd.target_hi, dst_hi)),  # type: ignore[arg-type]
        target_lo=merge(_mapped(arp.target_ip), np.where(asks, nd.target_lo, dst_lo)),  # type: ignore[arg-type]
        mac=merge(arp.sender_mac, link_mac),  # type: ignore[arg-type]
    )


def frames_of(table: PacketTable) -> Frames:
    """The columns of a batch."""
    n = len(table)
    is_ip = table.family != 0
    classes = _ip_classes(table)
    link = _links(table, classes)
    src_hi, src_lo = table.src_hi, table.src_lo
    dst_hi, dst_lo = table.dst_hi, table.dst_lo
    group = _group_address(dst_hi, dst_lo) | ((table.dst_mac >> np.uint64(40)) & np.uint64(1) == 1)
    no_src = _unspecified(src_hi, src_lo)
    has_src = is_ip & ~no_src
    has_dst = is_ip & ~group & ~_unspecified(dst_hi, dst_lo)
    claims = _claims(table, group)
    by_mac = is_ip & no_src & (table.src_mac != 0)
    if len(claims.row) or by_mac.any():
        src_hi, src_lo = src_hi.copy(), src_lo.copy()
        dst_hi, dst_lo = dst_hi.copy(), dst_lo.copy()
        src_hi[by_mac], src_lo[by_mac] = MAC_HI, table.src_mac[by_mac]
        has_src |= by_mac
        rows = claims.row
        anonymous = (claims.sender_hi | claims.sender_lo) == 0
        src_hi[rows] = np.where(anonymous, np.uint64(MAC_HI), claims.sender_hi)
        src_lo[rows] = np.where(anonymous, claims.mac, claims.sender_lo)
        has_src[rows] = ~anonymous | (claims.mac != 0)
        dst_hi[rows], dst_lo[rows] = claims.target_hi, claims.target_lo
        itself = (claims.target_hi == claims.sender_hi) & (claims.target_lo == claims.sender_lo)
        has_dst[rows] = ((claims.target_hi | claims.target_lo) != 0) & ~itself
        classes[rows] = np.where(claims.op == ASK, CLASS["arp_request"], CLASS["arp_reply"])
        link[rows] = claims.op.astype(np.int64) | RESOLVE << 16
    weight = np.clip(table.segments, 1, MAX_WEIGHT).astype(np.int64)
    single = not (table.segments > 1).any()
    size = table.wirelen.astype(np.int64)
    if not single:
        size //= weight
    size = np.minimum(size, MAX_SIZE, out=size)
    sums = np.empty((5, n), np.int64)
    sums[0] = weight
    np.multiply(size, weight, out=sums[1])
    np.multiply(sums[1], size, out=sums[2])
    np.multiply(weight, table.payload_len > 0, out=sums[3])
    np.multiply(weight, group & is_ip, out=sums[4])
    return Frames(
        src_hi=src_hi,
        src_lo=src_lo,
        dst_hi=dst_hi,
        dst_lo=dst_lo,
        has_src=has_src,
        has_dst=has_dst,
        src_mac=table.src_mac,
        frame_class=classes,
        link=link,
        weight=weight,
        size=size,
        sums=sums,
        all_single=single,
        claims=claims,
    )
