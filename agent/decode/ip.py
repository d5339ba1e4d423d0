"""IPv4 and IPv6: addresses, protocol, lengths, fragments, and where the transport header starts.

It never reassembles fragments, never opens a tunnel, and never checks a checksum (offloading leaves
unready ones in our own machine's frames).

In: a batch, the first bytes of its frames, the link layer. Out: `Ip`, one row a frame; reasons are
written into `Link.reason`. Raises: nothing. Remembers: nothing.

The untagged IPv4 header is read at a fixed column of every row at once; only other rows are gathered again.
A header whose length fields contradict themselves leaves no IP columns behind; IPv6 extension headers
that do leave the addresses.

Source: RFC 791, RFC 8200, RFC 4302 (AH), RFC 6275 (mobility).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from agent.decode.gather import gather, put, u16, u32, u64
from agent.decode.link import ETH_IPV4, ETH_IPV6
from agent.records import V4_MAPPED_LO, Reason

if TYPE_CHECKING:
    from agent.decode.link import Link
    from agent.records import I32, I64, U8, U16, U64, BoolArray, FrameBatch

PROTO_ICMP = 1
PROTO_TCP = 6
PROTO_UDP = 17
PROTO_ICMPV6 = 58
NO_NEXT_HEADER = 59
NO_PROTO = 255

HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DEST_OPTIONS, MOBILITY = 0, 43, 44, 51, 60, 135
EXTENSION = np.zeros(256, np.bool_)
EXTENSION[[HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DEST_OPTIONS, MOBILITY]] = True

MAX_EXTENSIONS = 8
"""RFC 8200 4.1 orders seven at most; each one more would cost a gather that an attacker chooses."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Ip:
    """What the network layer says; all (n,), 0 (proto 255) where there is no IP header."""

    family: U8
    src_hi: U64
    src_lo: U64
    dst_hi: U64
    dst_lo: U64
    proto: U8
    ttl: U8
    ip_len: I32
    fragment: U8
    l4: I32
    """Where the transport header starts, from the frame's first byte."""
    end: I32
    """Where the datagram ends on the wire, from the frame's first byte: without Ethernet's padding."""


class _V4(NamedTuple):
    """The fixed header's fields, as they stand."""

    first: U8
    length: I32
    offset: U16
    ttl: U8
    proto: U8
    src: U64
    dst: U64


def _read_v4(rows: U8, col: int) -> _V4:
    return _V4(
        first=rows[:, col].copy(),
        length=u16(rows, col + 2).astype(np.int32),
        offset=u16(rows, col + 6),
        ttl=rows[:, col + 8].copy(),
        proto=rows[:, col + 9].copy(),
        src=u32(rows, col + 12).astype(np.uint64),
        dst=u32(rows, col + 16).astype(np.uint64),
    )


def decode_ip(batch: FrameBatch, head: U8, link: Link) -> Ip:
    """Decode the network header of every frame that has one."""
    ready = link.reason == 0
    ip = _decode_v4(batch, head, link, ready & (link.eth_type == ETH_IPV4))
    row = np.flatnonzero(ready & (link.eth_type == ETH_IPV6))
    if len(row):
        _decode_v6(batch, link, row, ip)
    return ip


def _decode_v4(batch: FrameBatch, head: U8, link: Link, wanted: BoolArray) -> Ip:
    """Every row is read as IPv4, then those that are not are emptied."""
    n = len(batch)
    start = link.start
    v4 = _read_v4(head, link.column)
    moved = np.flatnonzero(wanted & (start != link.column))
    if len(moved):
        rows = gather(batch.buffer, batch.offset[moved] + start[moved], 20)
        put(v4, moved, _read_v4(rows, 0))
    room = batch.caplen - start
    wire_room = batch.wirelen - start
    length = v4.length
    if not length.all():
        # Total length 0: the kernel handed over a frame larger than the field can say (TSO).
        joined = np.flatnonzero(length == 0)
        length[joined] = wire_room[joined]
    header = (v4.first & 15) << 2
    good = wanted & (room >= 20)
    good &= v4.first >> 4 == 4
    good &= header >= 20
    good &= length >= header
    if not good.all():
        _blame_v4(link.reason, np.flatnonzero(wanted & ~good), room, v4.first)
    ip = Ip(
        family=good.view(np.uint8) << np.uint8(2),
        src_hi=np.zeros(n, np.uint64),
        src_lo=v4.src,
        dst_hi=np.zeros(n, np.uint64),
        dst_lo=v4.dst,
        proto=v4.proto,
        ttl=v4.ttl,
        ip_len=length,
        fragment=np.zeros(n, np.uint8),
        l4=start + header,
        end=start + np.minimum(length, wire_room),
    )
    for address in (ip.src_lo, ip.dst_lo):
        np.bitwise_or(address, V4_MAPPED_LO, out=address)
    if not good.all():
        empty = np.flatnonzero(~good)
        for column in (ip.src_lo, ip.dst_lo, ip.ttl, ip.ip_len, ip.l4, ip.end):
            column[empty] = 0
        ip.proto[empty] = NO_PROTO
    pieces = v4.offset & 0x3FFF  # more-fragments bit and offset
    if pieces.any():
        row = np.flatnonzero(good & (pieces != 0))
        later = (pieces[row] & 0x1FFF) != 0
        ip.fragment[row] = np.where(later, 2, 1)
        link.reason[row[later]] = Reason.FRAGMENT
    cut = good & (room < header)
    if cut.any():
        link.reason[cut & (link.reason == 0)] = Reason.TRUNCATED_L3
    return ip


def _blame_v4(reason: U8, row: I64, room: I32, first: U8) -> None:
    """Why these rows hold no IPv4 header that we can use."""
    reason[row] = np.where(
        room[row] < 20,
        Reason.TRUNCATED_L3,
        np.where(first[row] >> 4 != 4, Reason.BAD_IP_VERSION, Reason.BAD_IP_HEADER),
    )


def _decode_v6(batch: FrameBatch, link: Link, row: I64, ip: Ip) -> None:
    """Decode the IPv6 rows into the columns of `ip`, which are empty there."""
    start = link.start[row]
    rows = gather(batch.buffer, batch.offset[row] + start, 40)
    whole = batch.caplen[row] - start >= 40
    version = rows[:, 0] >> 4 == 6
    link.reason[row[~whole]] = Reason.TRUNCATED_L3
    link.reason[row[whole & ~version]] = Reason.BAD_IP_VERSION
    good = whole & version
    row, start, rows = row[good], start[good], rows[good]
    wire_room = batch.wirelen[row] - start
    length = u16(rows, 4).astype(np.int32) + 40
    # Payload length 0: a jumbogram or TSO, unless the header says that nothing follows.
    length = np.where((length == 40) & (rows[:, 6] != NO_NEXT_HEADER), wire_room, length)
    ip.family[row] = 6
    ip.src_hi[row] = u64(rows, 8)
    ip.src_lo[row] = u64(rows, 16)
    ip.dst_hi[row] = u64(rows, 24)
    ip.dst_lo[row] = u64(rows, 32)
    ip.ttl[row] = rows[:, 7]
    ip.ip_len[row] = length
    ip.proto[row] = rows[:, 6]
    ip.l4[row] = start + 40
    ip.end[row] = start + np.minimum(length, wire_room)
    _follow_extensions(batch, link, row[EXTENSION[rows[:, 6]]], ip)


def _follow_extensions(batch: FrameBatch, link: Link, row: I64, ip: Ip) -> None:
    """Step over extension headers, in place; `proto` names the one that could not be read."""
    for _ in range(MAX_EXTENSIONS):
        if not len(row):
            return
        at = ip.l4[row]
        bad = at + 8 > ip.end[row]
        cut = ~bad & (at + 8 > batch.caplen[row])
        link.reason[row[bad]] = Reason.BAD_IP_HEADER
        link.reason[row[cut]] = Reason.TRUNCATED_L3
        keep = ~bad & ~cut
        row, at = row[keep], at[keep]
        header = gather(batch.buffer, batch.offset[row] + at, 8)
        kind = ip.proto[row]
        length = _extension_len(kind, header)
        bad = at + length > ip.end[row]
        link.reason[row[bad]] = Reason.BAD_IP_HEADER
        later = ~bad & _note_fragments(row, kind == FRAGMENT, header, ip)
        link.reason[row[later]] = Reason.FRAGMENT
        ip.proto[row[~bad]] = header[~bad, 0]
        ip.l4[row[~bad]] += length[~bad]
        row = row[~bad & ~later]
        row = row[EXTENSION[ip.proto[row]]]
    link.reason[row] = Reason.TOO_MANY_HEADERS


def _extension_len(kind: U8, header: U8) -> I32:
    """Length in bytes: units of 8 after the first 8; AH counts units of 4 less 2; a fragment header is 8."""
    units = header[:, 1].astype(np.int32)
    length = (units + 1) * 8
    length = np.where(kind == AUTHENTICATION, (units + 2) * 4, length)
    return np.where(kind == FRAGMENT, np.int32(8), length)


def _note_fragments(row: I64, is_fragment: BoolArray, header: U8, ip: Ip) -> BoolArray:
    """Write the `fragment` column; True for later fragments, which have no transport header."""
    pieces = u16(header, 2)
    later: BoolArray = is_fragment & (pieces >> 3 != 0)
    first = is_fragment & ~later & (pieces & 1 != 0)
    ip.fragment[row[later]] = 2
    ip.fragment[row[first]] = 1
    return later
