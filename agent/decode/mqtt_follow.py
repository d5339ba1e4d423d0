"""One direction of one flow, followed exactly: the path for segments that do not simply follow each other.

A stream's state is where the next control packet starts (`boundary`, a TCP sequence number) and the bytes already
seen of its header (`carry`). Bytes before the boundary never matter, so retransmissions and the bodies of large
packets fall away by comparison. A segment that does not hold the next byte needed, but later ones, is a loss:
from there the stream is out of step until a CONNECT, or until several plausible headers land exactly at a
segment's end. Segments are read in the order of their sequence numbers, so what is reordered within a batch
is read exactly; a packet belongs to the latest frame that it took to find it.

It never judges a packet. In: segments as plain numbers, payload bytes. Out: `Piece` rows. Raises: nothing.
Remembers: nothing but the `Stream` it is handed. The cost is bounded by a `Purse`;
what it does not pay for is noted.

Source: RFC 9293 3.4 (sequence numbers modulo 2^32).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from agent.decode.mqtt_flows import CARRY_BYTES
from agent.decode.mqtt_header import LEAST_BODY_LIST, MOST_BODY_LIST
from agent.decode.mqtt_scan import Purse, Stop, header_at, scan
from agent.records import MqttType

if TYPE_CHECKING:
    from collections.abc import Sequence

CHAIN = 4
"""Plausible headers in a row, the last landing exactly at a segment's end, that put a stream back in step.
One fits random bytes with a chance of about 1 in 10, besides the landing."""
SEGMENT_STEPS = 8
"""Headers walked that cost as much as following a segment."""
_PARTLY = frozenset((int(Stop.CUT), int(Stop.BUDGET)))
FAR = 1 << 24
"""Sequence numbers further apart than this are another connection: above any TCP window in use."""
MAX_AHEAD = (1 << 28) + FAR
"""How far a boundary may lie ahead of the segments: one packet of the greatest size."""


class Segment(NamedTuple):
    """A TCP segment's payload; `number` is its row in the batch's segments."""

    number: int
    row: int
    seq: int
    length: int
    captured: int
    offset: int
    stop: int
    """What a walk from its first byte came to, as `mqtt_walk.Walk` says."""
    end: int
    packets: int
    greets: bool
    """Whether it opens with a valid CONNECT or CONNACK."""


class Piece(NamedTuple):
    """Control packets found by following; `pos` is absolute, or -1 - index of a header put together from parts."""

    number: int
    row: int
    pos: int
    first: int
    remaining: int
    size: int
    packets: int
    extrapolated: bool
    available: int
    """Bytes of the packet to be read from `pos`."""
    synchronised: bool
    start: bool
    order: int


class Whole(NamedTuple):
    """A segment whose walk from its first byte is right, to be emitted at `row`."""

    number: int
    row: int
    synchronised: bool
    start: bool
    order: int


@dataclass(slots=True)
class Stream:
    """State of one direction."""

    known: bool = False
    synchronised: bool = False
    boundary: int = 0
    chain: int = 0
    carry: bytes = b""
    fresh: bool = False
    """The stream's first byte has not been read yet."""


class Payload(Protocol):
    """Captured bytes [begin, end) of a segment's payload; fewer where it ends before."""

    def __call__(self, segment: Segment, begin: int, end: int) -> bytes:
        """At most `end - begin` bytes."""
        ...


@dataclass(slots=True)
class Followed:
    """What following found in a batch."""

    pieces: list[Piece] = field(default_factory=list)
    whole: list[Whole] = field(default_factory=list)
    """Segments whose walk from the first byte is right."""
    headers: list[bytes] = field(default_factory=list)
    """Headers put together from parts."""
    losses: int = 0
    resyncs: int = 0
    unpaid: list[int] = field(default_factory=list)
    """Segments that were not followed since nothing was left to pay for it."""
    n_emitted: int = 0
    """Gives pieces and whole segments their common order."""

    def next_order(self) -> int:
        """The place of what is found next."""
        self.n_emitted += 1
        return self.n_emitted


def signed(difference: int) -> int:
    """A difference of sequence numbers as a signed number."""
    return ((difference + 0x8000_0000) & 0xFFFF_FFFF) - 0x8000_0000


def header_need(data: bytes) -> int:
    """Bytes from a packet's first that hold the fields read of it, at most `CARRY_BYTES`; 0: not to be said yet.

    -1: a fifth length byte.
    """
    first, remaining, size = header_at(data, 0)
    if size <= 0:
        return size
    kind = first >> 4
    body = _BODY_NEED.get(kind, remaining)
    if kind == MqttType.PUBLISH and remaining >= 2:
        if len(data) < size + 2:
            return 0
        # The topic, then a packet id, then the length of MQTT 5's properties.
        body = 2 + int.from_bytes(data[size : size + 2]) + 3
    return min(size + min(body, remaining), CARRY_BYTES)


_BODY_NEED: dict[int, int] = {
    MqttType.CONNECT: 16,
    MqttType.CONNACK: 2,
    MqttType.PUBACK: 3,
    MqttType.PUBREC: 3,
    MqttType.PUBREL: 3,
    MqttType.PUBCOMP: 3,
    MqttType.DISCONNECT: 1,
    MqttType.AUTH: 1,
    MqttType.PINGREQ: 0,
    MqttType.PINGRESP: 0,
}


def follow(
    stream: Stream,
    segments: Sequence[Segment],
    payload: Payload,
    found: Followed,
    purse: Purse,
) -> None:
    """Read `segments` (in the order of capture) on from `stream`, which is changed in place."""
    base = stream.boundary if stream.known else segments[0].seq
    ordered = sorted(segments, key=lambda s: signed(s.seq - base))
    row = 0
    for segment in ordered:
        if purse.steps <= 0:
            found.unpaid.append(segment.number)
            stream.known = stream.synchronised = False
            continue
        purse.steps -= SEGMENT_STEPS
        if stream.known:
            need = signed(stream.boundary + len(stream.carry) - segment.seq)
            if need >= segment.length:
                continue
            if need < 0:
                found.losses += stream.synchronised
                _lose(stream)
        if not stream.known and not _enter(stream, segment, found):
            continue
        row = max(row, segment.row)
        _read(stream, segment, row, payload, found, purse)


def _lose(stream: Stream) -> None:
    stream.known = stream.synchronised = stream.fresh = False
    stream.chain = 0
    stream.carry = b""


def _enter(stream: Stream, segment: Segment, found: Followed) -> bool:
    """Whether a stream that is out of step may be read from the first byte of this segment."""
    landed = segment.stop == Stop.LANDED and segment.packets > 0
    partly = segment.stop in _PARTLY and segment.packets >= CHAIN - 1
    if segment.greets:
        found.resyncs += 1
        stream.synchronised = stream.fresh = True
    elif not (landed or partly):
        return False
    stream.known = True
    stream.boundary = segment.seq
    stream.carry = b""
    stream.chain = 0
    return True


def _read(
    stream: Stream,
    segment: Segment,
    row: int,
    payload: Payload,
    found: Followed,
    purse: Purse,
) -> None:
    """Read on in a segment that holds the next byte needed."""
    at = signed(stream.boundary - segment.seq)
    synchronised = stream.synchronised
    stop, end, packets = segment.stop, segment.end, segment.packets
    if at == 0:
        if packets:
            order = found.next_order()
            found.whole.append(Whole(segment.number, row, synchronised, stream.fresh, order))
            stream.fresh = False
        at = end
    else:
        if at < 0:
            at = _finish_carry(stream, segment, row, payload, found)
            if at < 0 or at >= segment.length:
                return
        stop, packets = Stop.IMPLAUSIBLE, 0  # nothing is known of what stands here
    if stop == Stop.IMPLAUSIBLE and (synchronised or not packets):
        stop, end, more = _scan_on(stream, segment, row, (payload, at), found, purse)
        packets += more
    if stop == Stop.LANDED:
        _advance(stream, segment, packets)
    elif stop == Stop.CUT:
        stream.chain += packets
        _begin_packet(stream, segment, row, payload(segment, end, end + CARRY_BYTES), end, found)
    else:
        if stop == Stop.MALFORMED and synchronised:
            first = payload(segment, end, end + 1)[0]
            _malformed(segment, row, segment.offset + end, first, found, True, stream.fresh)
        _lose(stream)
        found.losses += synchronised


def _scan_on(
    stream: Stream,
    segment: Segment,
    row: int,
    here: tuple[Payload, int],
    found: Followed,
    purse: Purse,
) -> tuple[int, int, int]:
    """Walk the rest of a segment in a plain loop: why and where it ended, and packets found."""
    payload, at = here
    data = payload(segment, 0, segment.captured)
    scanned = scan(data, at, segment.length, trusting=stream.synchronised)
    purse.steps -= scanned.cost
    for begin, first, remaining, size, packets, extrapolated in scanned.entries:
        available = min(len(data) - begin, size + remaining)
        found.pieces.append(
            Piece(segment.number, row, segment.offset + begin, first, remaining, size, packets,
                  extrapolated, available, stream.synchronised, stream.fresh, found.next_order())
        )  # fmt: skip
        stream.fresh = False
    return scanned.stop, scanned.end, scanned.packets


def _advance(stream: Stream, segment: Segment, packets: int) -> None:
    """The next packet starts where the segment ends."""
    stream.boundary = (segment.seq + segment.length) & 0xFFFF_FFFF
    stream.carry = b""
    stream.chain = min(stream.chain + packets, 1 << 20)
    if stream.chain >= CHAIN:
        stream.synchronised = True


def _finish_carry(
    stream: Stream, segment: Segment, row: int, payload: Payload, found: Followed
) -> int:
    """Add to the header carried over; the offset of the next packet in this segment, or -1 where it is not known."""
    at = signed(stream.boundary + len(stream.carry) - segment.seq)
    end = at + CARRY_BYTES - len(stream.carry)
    header = stream.carry + payload(segment, at, end)
    need = header_need(header)
    cut = segment.captured < min(segment.length, end)
    if need < 0:
        found.headers.append(header)
        if stream.synchronised:
            _malformed(segment, row, -len(found.headers), header[0], found, True, stream.fresh)
        _lose(stream)
        return -1
    if need == 0 or need > len(header):
        size = header_at(header, 0)[2]
        if not cut:
            stream.carry = header
            return -1
        if size == 0:
            found.losses += stream.synchronised
            _lose(stream)
            return -1
    return _emit_header(stream, segment, row, header, found)


def _emit_header(stream: Stream, segment: Segment, row: int, header: bytes, found: Followed) -> int:
    """A packet whose header was put together from parts; the offset of the next one in this segment."""
    first, remaining, size = header_at(header, 0)
    if not stream.synchronised and not LEAST_BODY_LIST[first] <= remaining <= MOST_BODY_LIST[first]:
        _lose(stream)
        return -1
    found.headers.append(header)
    found.pieces.append(
        Piece(segment.number, row, -len(found.headers), first, remaining, size, 1, False,
              min(len(header), size + remaining), stream.synchronised, stream.fresh, found.next_order())
    )  # fmt: skip
    stream.fresh = False
    stream.carry = b""
    stream.boundary = (stream.boundary + size + remaining) & 0xFFFF_FFFF
    following = signed(stream.boundary - segment.seq)
    stream.chain += 1
    if following == segment.length and stream.chain >= CHAIN:
        stream.synchronised = True
    return following


def _begin_packet(
    stream: Stream, segment: Segment, row: int, header: bytes, end: int, found: Followed
) -> None:
    """A packet begins at `end` and goes on past the segment: keep its header, or take it if that is all here."""
    stream.boundary = (segment.seq + end) & 0xFFFF_FFFF
    need = header_need(header)
    first, remaining, size = header_at(header, 0)
    if need > 0 and not stream.synchronised and remaining > MOST_BODY_LIST[first]:
        _lose(stream)
        return
    cut = segment.captured < segment.length and end + CARRY_BYTES > segment.captured
    if 0 < need <= len(header) or (cut and size > 0):
        found.pieces.append(
            Piece(segment.number, row, segment.offset + end, first, remaining, size, 1, False,
                  len(header), stream.synchronised, stream.fresh, found.next_order())
        )  # fmt: skip
        stream.fresh = False
        stream.chain += 1
        stream.carry = b""
        stream.boundary = (stream.boundary + size + remaining) & 0xFFFF_FFFF
    elif cut:
        found.losses += stream.synchronised
        _lose(stream)
    else:
        stream.carry = header


def _malformed(
    segment: Segment,
    row: int,
    pos: int,
    first: int,
    found: Followed,
    synchronised: bool,  # noqa: FBT001 - a column's value, not a switch
    start: bool,  # noqa: FBT001 - a column's value, not a switch
) -> None:
    """A packet whose remaining length is not one: its first byte is all there is."""
    order = found.next_order()
    found.pieces.append(
        Piece(segment.number, row, pos, first, -1, 0, 1, False, 1, synchronised, start, order)
    )
