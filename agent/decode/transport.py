"""TCP, UDP and ICMP headers, TCP options, and where the payload stands.

It never reassembles, never tracks a connection, and never checks a checksum.

In: a batch, the first bytes of its frames, the link and network layers. Out: `Transport`, one row a
frame; reasons are written into `Link.reason`. Raises: nothing. Remembers: nothing.

A header counts when its fixed part is whole (TCP 20 bytes, UDP and ICMP 8): else none of its fields.
A TCP header whose data offset is wrong keeps its fixed fields, and has no options and no payload.

Source: RFC 9293 3.1, 3.2, RFC 7323 (window scale, timestamps), RFC 768, RFC 2675 4 (UDP length 0),
RFC 792, RFC 4443.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from agent.decode.gather import gather, put, u32
from agent.decode.ip import NO_NEXT_HEADER, PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP, PROTO_UDP
from agent.records import Reason

if TYPE_CHECKING:
    from agent.decode.ip import Ip
    from agent.decode.link import Link
    from agent.records import I16, I32, I64, U8, U16, U32, BoolArray, FrameBatch

NOP_NOP_TIMESTAMPS = 0x0101080A
"""The options of nearly every established connection: a 32-byte header that opens with these."""

OPTIONS_MAX_LEN = 40
"""A data offset of 15 words less the 20 bytes of the fixed header."""

SUPER_FRAME_MIN_LEN = 1600
"""Above any Ethernet frame of a 1,500-byte MTU with tags: the kernel joined segments (GRO, TSO)."""

USUAL_MSS = 1448
"""Payload of a segment at an MTU of 1,500 with timestamps: what a joined frame was made of."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Transport:
    """What the transport layer says, columns as in `PacketTable`; all (n,)."""

    is_tcp: BoolArray
    """A TCP header was read."""
    is_udp: BoolArray
    is_icmp: BoolArray
    src_port: U16
    dst_port: U16
    icmp_type: U8
    icmp_code: U8
    tcp_flags: U16
    tcp_seq: U32
    tcp_ack: U32
    tcp_window: U16
    tcp_mss: I32
    tcp_wscale: I16
    tcp_timestamp: BoolArray
    payload_off: I64
    payload_len: I32
    payload_caplen: I32
    segments: I32


class _Fixed(NamedTuple):
    """The first 16 bytes, as TCP lays them out; UDP's and ICMP's fields stand in the same words."""

    src_port: U16
    dst_port: U16
    seq: U32
    ack: U32
    offset_flags: U16
    window: U16


def _read_fixed(rows: U8, col: int) -> _Fixed:
    ports, last = u32(rows, col), u32(rows, col + 12)  # one pass over the rows for two fields
    return _Fixed(
        src_port=(ports >> 16).astype(np.uint16),
        dst_port=ports.astype(np.uint16),
        seq=u32(rows, col + 4),
        ack=u32(rows, col + 8),
        offset_flags=(last >> 16).astype(np.uint16),
        window=last.astype(np.uint16),
    )


def decode_transport(batch: FrameBatch, head: U8, link: Link, ip: Ip) -> Transport:
    """Decode the transport header of every whole datagram and first fragment."""
    reason = link.reason
    is_tcp, is_udp, is_icmp = _classify(ip, reason)
    fixed = _read_fixed(head, link.column + 20)
    moved = np.flatnonzero((is_tcp | is_udp | is_icmp) & (ip.l4 != link.column + 20))
    if len(moved):
        rows = gather(batch.buffer, batch.offset[moved] + ip.l4[moved], 20)
        put(fixed, moved, _read_fixed(rows, 0))

    wire_len = ip.end - ip.l4
    room = np.minimum(batch.caplen, ip.end)
    room -= ip.l4
    for is_kind, need in ((is_tcp, 20), (is_udp, 8), (is_icmp, 8)):
        _require(is_kind, need, wire_len, room, reason)
    header = np.where(is_tcp, (fixed.offset_flags >> 12 << 2).astype(np.int32), np.int32(8))
    sound = _judge_tcp(is_tcp, header, wire_len, room, reason)
    mss, wscale, timestamp = _decode_options(batch, head, link, ip, header, room, sound)

    payload_len = wire_len - header
    _bound_udp(is_udp, fixed.seq, ip, payload_len, reason)
    payload_len *= sound | is_udp | is_icmp
    np.maximum(payload_len, 0, out=payload_len)
    payload_caplen = room - header
    np.minimum(payload_caplen, payload_len, out=payload_caplen)
    np.maximum(payload_caplen, 0, out=payload_caplen)
    payload_off = batch.offset + ip.l4
    payload_off += header
    payload_off *= payload_caplen > 0

    icmp_type, icmp_code = _decode_icmp(is_icmp, fixed.src_port)
    _clear(~(is_tcp | is_udp), fixed.src_port, fixed.dst_port)
    np.bitwise_and(fixed.offset_flags, 0x0FFF, out=fixed.offset_flags)
    _clear(~is_tcp, fixed.offset_flags, fixed.seq, fixed.ack, fixed.window)
    return Transport(
        is_tcp=is_tcp,
        is_udp=is_udp,
        is_icmp=is_icmp,
        src_port=fixed.src_port,
        dst_port=fixed.dst_port,
        icmp_type=icmp_type,
        icmp_code=icmp_code,
        tcp_flags=fixed.offset_flags,
        tcp_seq=fixed.seq,
        tcp_ack=fixed.ack,
        tcp_window=fixed.window,
        tcp_mss=mss,
        tcp_wscale=wscale,
        tcp_timestamp=timestamp,
        payload_off=payload_off,
        payload_len=payload_len,
        payload_caplen=payload_caplen,
        segments=_estimate_segments(batch.wirelen, payload_len, is_tcp),
    )


def _classify(ip: Ip, reason: U8) -> tuple[BoolArray, BoolArray, BoolArray]:
    """Which frames should hold a TCP, a UDP, an ICMP header; the rest are of an unknown protocol."""
    ready = (reason == 0) & (ip.family != 0)
    is_tcp = ready & (ip.proto == PROTO_TCP)
    is_udp = ready & (ip.proto == PROTO_UDP)
    is_icmp = ready & ((ip.proto == PROTO_ICMP) | (ip.proto == PROTO_ICMPV6))
    others = ready & ~(is_tcp | is_udp | is_icmp)
    if others.any():
        others &= (ip.proto != NO_NEXT_HEADER) | (ip.family == 4)
        reason[others] = Reason.UNKNOWN_PROTOCOL
    return is_tcp, is_udp, is_icmp


def _judge_tcp(is_tcp: BoolArray, header: I32, wire_len: I32, room: I32, reason: U8) -> BoolArray:
    """TCP headers whose length can be right; of them, those that the capture cut are marked."""
    sound = is_tcp & (header >= 20)
    sound &= header <= wire_len
    bad = is_tcp & ~sound
    if bad.any():
        reason[bad] = Reason.BAD_L4_HEADER
    cut = sound & (header > room)
    if cut.any():
        reason[cut] = Reason.TRUNCATED_L4
    return sound


def _require(is_kind: BoolArray, need: int, wire_len: I32, room: I32, reason: U8) -> None:
    """Take out of `is_kind` the frames that do not hold `need` bytes, and say why."""
    lacking = is_kind & (room < need)
    if lacking.any():
        bad = wire_len[lacking] < need
        reason[lacking] = np.where(bad, Reason.BAD_L4_HEADER, Reason.TRUNCATED_L4)
        is_kind &= ~lacking


def _bound_udp(is_udp: BoolArray, word: U32, ip: Ip, payload_len: I32, reason: U8) -> None:
    """Let UDP's own length bound the payload, in place; `word` holds it in its upper half."""
    row = np.flatnonzero(is_udp)
    if not len(row):
        return
    length = (word[row] >> 16).astype(np.int32)
    whole = (length == 0) & (ip.family[row] == 6)  # a jumbogram: longer than the field can say
    bad = (length < 8) & ~whole
    reason[row[bad]] = Reason.BAD_L4_HEADER
    bound = np.where(whole, payload_len[row], length - 8)
    payload_len[row] = np.minimum(payload_len[row], bound)


def _decode_icmp(is_icmp: BoolArray, first: U16) -> tuple[U8, U8]:
    """Type and code from the first 16 bits; 255 elsewhere."""
    n = len(first)
    icmp_type = np.full(n, 255, np.uint8)
    icmp_code = np.full(n, 255, np.uint8)
    row = np.flatnonzero(is_icmp)
    icmp_type[row] = first[row] >> 8
    icmp_code[row] = first[row] & 0xFF
    return icmp_type, icmp_code


def _clear(rows: BoolArray, *columns: U16 | U32) -> None:
    """Empty the columns at these rows, in place."""
    at = np.flatnonzero(rows)
    if len(at):
        for column in columns:
            column[at] = 0


def _estimate_segments(wirelen: I32, payload_len: I32, is_tcp: BoolArray) -> I32:
    """Wire packets behind each frame; above 1 only for TCP frames larger than any wire carries."""
    segments = np.ones(len(wirelen), np.int32)
    large = is_tcp & (wirelen > SUPER_FRAME_MIN_LEN)
    if large.any():
        row = np.flatnonzero(large & (payload_len > 1460))
        segments[row] = -(-payload_len[row] // USUAL_MSS)
    return segments


def _decode_options(
    batch: FrameBatch, head: U8, link: Link, ip: Ip, header: I32, room: I32, sound: BoolArray
) -> tuple[I32, I16, BoolArray]:
    """MSS and window scale (-1 absent) and whether timestamps are present, of every sound TCP header."""
    n = len(batch)
    mss = np.full(n, -1, np.int32)
    wscale = np.full(n, -1, np.int16)
    timestamp = sound & (header == 32)
    if timestamp.any():
        timestamp &= u32(head, link.column + 40) == NOP_NOP_TIMESTAMPS
        timestamp &= ip.l4 == link.column + 20
        timestamp &= room >= 32
    row = np.flatnonzero(sound & (header > 20) & ~timestamp)
    if len(row):
        found = Options.scan(
            gather(batch.buffer, batch.offset[row] + (ip.l4[row] + 20), OPTIONS_MAX_LEN + 4),
            np.minimum(header, room)[row] - 20,
        )
        mss[row], wscale[row], timestamp[row] = found
    return mss, wscale, timestamp


class Options(NamedTuple):
    """What TCP options say; the first of each kind counts."""

    mss: I32
    wscale: I16
    timestamp: BoolArray

    @classmethod
    def scan(cls, rows: U8, limit: I32) -> Options:
        """Walk the options of all rows in step; `rows` is (m, 44), of which `limit` bytes count.

        At most 40 steps, each over the rows that are not through; an option that is cut or whose
        length is wrong ends its row's walk.
        """
        m, width = rows.shape
        flat = rows.reshape(-1)
        out = cls(np.full(m, -1, np.int32), np.full(m, -1, np.int16), np.zeros(m, np.bool_))
        usual = (limit >= 12) & (u32(rows, 0) == NOP_NOP_TIMESTAMPS)
        out.timestamp[usual] = True
        row = np.flatnonzero((limit > 0) & ~(usual & (limit == 12)))
        pos = np.zeros(len(row), np.int64)
        for _ in range(OPTIONS_MAX_LEN):
            if not len(row):
                break
            at = row * width + pos
            kind = flat[at]
            length = np.where(kind == 1, 1, flat[at + 1])
            follows = (kind == 1) | ((kind != 0) & (length >= 2))
            pos += length
            follows &= pos <= limit[row]
            _note_option(out, flat, row, at, kind * follows, length)
            follows &= pos < limit[row]
            row, pos = row[follows], pos[follows]
        return out


def _note_option(out: Options, flat: U8, row: I64, at: I64, kind: U8, length: U8) -> None:
    """Write the options at byte `at` that we know (kind 2 MSS, 3 window scale, 8 timestamps) into `out`."""
    hit = (kind == 2) & (length == 4) & (out.mss[row] < 0)
    if hit.any():
        value = flat[at[hit] + 2].astype(np.int32) << 8
        out.mss[row[hit]] = value | flat[at[hit] + 3]
    hit = (kind == 3) & (length == 3) & (out.wscale[row] < 0)
    if hit.any():
        out.wscale[row[hit]] = flat[at[hit] + 2]
    hit = (kind == 8) & (length == 10)
    if hit.any():
        out.timestamp[row[hit]] = True
