"""Capture files of the pcapng format: sections, interfaces, and the walk of their blocks.

Packets are read from Enhanced, Simple and obsolete Packet Blocks; other blocks (names, statistics,
secrets, comments, custom ones) are stepped over. Each interface has its own link type and time
resolution; a section may change the byte order.

It never looks at a frame's bytes, and makes no Python object a packet; sections and interfaces are
read one by one.

In: `Windows` of the file. Out: `Frames`, columns of the whole packet blocks of one window, with a link type
per frame. A Simple Packet Block has no time: it takes that of the packet before it.
Raises: CaptureError(TRUNCATED) where the first section header is cut. A block that cannot be one ends the walk: what
stands before it is given, `Walk.problem` is the one-line report. Frames of interfaces that were never
described, or whose link type is not read, are counted in `Walk.skipped`.
Remembers: the interfaces of the section.
Source: draft-ietf-opsawg-pcapng (4.1 SHB, 4.2 IDB, 4.3 EPB, 4.4 SPB, A obsolete PB).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from agent.capture.lanes import SEARCH_BYTES, first_of_each_lane, segments, walk_lanes
from agent.capture.link_types import is_read
from agent.capture.pcap import CAPLEN_MAX, Frames, Walk
from agent.capture.windows import WINDOW_BYTES
from agent.errors import CaptureError, CaptureReason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from agent.capture.windows import Windows
    from agent.records import I32, I64, U8, U64

SECTION, INTERFACE, OBSOLETE_PACKET, SIMPLE_PACKET, ENHANCED_PACKET = 0x0A0D0D0A, 1, 2, 3, 6
PACKETS = (OBSOLETE_PACKET, SIMPLE_PACKET, ENHANCED_PACKET)
MAGIC = SECTION.to_bytes(4, "big")  # the same in both byte orders
BYTE_ORDER = {bytes.fromhex("1a2b3c4d"): ">", bytes.fromhex("4d3c2b1a"): "<"}

BLOCK_BYTES_MIN = 12
PACKET_BLOCK_BYTES_MAX = CAPLEN_MAX + 131_072
"""A packet block with its options; what Wireshark accepts."""
HEAD_BYTES = {OBSOLETE_PACKET: 28, SIMPLE_PACKET: 12, ENHANCED_PACKET: 28}
"""Where the frame starts in its block."""

FIRST_WINDOW_BYTES = 4096
"""Windows start small in each section and grow, or a file of tiny sections would be walked again and again."""

MALFORMED, NEXT_SECTION = "malformed", "section"
TS_MAX_NS = 1 << 62
OPTION_END, OPTION_TSRESOL, OPTION_TSOFFSET = 0, 9, 14
MICROSECONDS = 6


@dataclass(slots=True, frozen=True)
class Interface:
    """One described interface of a section."""

    link_type: int
    snaplen: int
    """Bytes; 0: no limit."""
    resolution: int
    """if_tsresol: a power of ten of a second, or of two where the top bit is set."""
    offset_ns: int


@dataclass(slots=True)
class Section:
    """State of the section that is being walked."""

    order: str
    interfaces: list[Interface] = field(default_factory=list)
    last_ns: int = 0


@dataclass(slots=True, frozen=True)
class Blocks:
    """Whole blocks at the head of a window, up to the next section header."""

    offset: I64
    kind: NDArray[np.uint32]
    length: I64
    end: int
    """Bytes of the window that they take."""
    problem: str
    """`malformed`: what stands at `end` cannot be a block; `section`: another section starts there; or nothing."""
    needed: int
    """Bytes that the block at `end` wants where the window cuts it, else 0."""


def walk_pcapng(source: Windows, walk: Walk, path: str) -> Iterator[Frames]:
    """Every whole packet block of the file; `walk.problem` is set where something is left over."""
    section: Section | None = None
    size = FIRST_WINDOW_BYTES
    while len(window := source.window(size)):
        if window[:4].tobytes() == MAGIC:
            order = BYTE_ORDER.get(window[8:12].tobytes())
            if section is None and order is None:
                raise _bad_start(window, path)
            section = Section(order) if order else None
        if section is None:
            walk.problem = (
                f"malformed section header at byte {source.position}: nothing behind it is read"
            )
            return
        blocks = whole_blocks(window, section.order)
        if len(blocks.offset):
            yield from _read_packets(window, blocks, section, walk)
        source.consume(blocks.end)
        if blocks.problem == MALFORMED:
            walk.problem = f"malformed block at byte {source.position}: nothing behind it is read"
            return
        cut = len(window) < size and blocks.end < len(window) and blocks.problem != NEXT_SECTION
        if blocks.needed > WINDOW_BYTES and size == WINDOW_BYTES:  # not a packet: step over it
            cut = not source.consume(blocks.needed)
        if cut:
            left = len(window) - blocks.end
            walk.problem = f"cut in mid-block at byte {source.position}: {left} bytes left over"
            return
        wanted = 0 if blocks.problem == NEXT_SECTION else max(2 * size, blocks.needed)
        size = min(max(wanted, FIRST_WINDOW_BYTES), WINDOW_BYTES)


def _bad_start(window: U8, path: str) -> CaptureError:
    if len(window) < BLOCK_BYTES_MIN:
        problem = f"the file ends inside its section header, after {len(window)} bytes"
        return CaptureError(CaptureReason.TRUNCATED, f"{path}: {problem}")
    problem = "not a capture file: a pcapng header without a byte order"
    return CaptureError(CaptureReason.FOREIGN, f"{path}: {problem}")


def whole_blocks(window: U8, order: str) -> Blocks:
    """The blocks from byte 0 of `window` on, each checked: its length, the copy of it at its end, its frame."""
    offset = block_offsets(window, order)
    word = _aligned_words(window, order)
    at = offset >> 2
    kind = word[at].astype(np.uint32)
    length = word[at + 1].astype(np.int64)
    section = kind == SECTION
    section[:1] = False
    whole = offset + length <= len(window)
    bad = (length < BLOCK_BYTES_MIN) | (length & 3 != 0)
    bad[whole] |= word[np.maximum((offset + length - 4)[whole] >> 2, 0)] != length[whole]
    bad |= np.isin(kind, PACKETS) & (length > PACKET_BLOCK_BYTES_MAX)
    for packet in (OBSOLETE_PACKET, ENHANCED_PACKET):
        rows = np.flatnonzero((kind == packet) & whole & ~bad)
        room = length[rows] - HEAD_BYTES[packet] - 4
        too_short = room < 0
        caplen = word[np.where(too_short, 0, at[rows] + 5)].astype(np.int64)
        bad[rows] = too_short | (caplen > np.minimum(room, CAPLEN_MAX))
    bad |= (kind == SIMPLE_PACKET) & (length < HEAD_BYTES[SIMPLE_PACKET] + 4)
    cuts = np.flatnonzero(section | bad | ~whole)
    if len(cuts) == 0:
        end = int(offset[-1] + length[-1]) if len(offset) else 0
        return Blocks(offset, kind, length, end, "", 0)
    n = int(cuts[0])
    problem = NEXT_SECTION if section[n] else MALFORMED if bad[n] else ""
    needed = 0 if problem else int(length[n])
    return Blocks(offset[:n], kind[:n], length[:n], int(offset[n]), problem, needed)


def _aligned_words(window: U8, order: str) -> NDArray[np.uint32]:
    """The 32-bit words of a window; blocks are aligned to them."""
    words: NDArray[np.uint32] = window[: len(window) & ~3].view(order + "u4")
    return words


def block_offsets(window: U8, order: str) -> I64:
    """Where blocks start in `window` from byte 0 on, ascending, by their lengths alone.

    The last ones may be malformed, of the next section, or reach past the window.
    """
    stop = len(window) - 7
    if stop <= 0:
        return np.empty(0, np.int64)
    count, lane_bytes = segments(0, stop)
    if count == 1:
        return scalar_offsets(window, 0, stop, order)
    lane_bytes &= ~3
    word = _aligned_words(window, order)
    start = first_of_each_lane(_plausible(word, count, lane_bytes), 0, lane_bytes)

    def step(position: I64) -> I64:
        length = word[(position >> 2) + 1].astype(np.int64) & ~3
        following: I64 = position + np.maximum(length, BLOCK_BYTES_MIN)
        return following

    head, at = walk_lanes(start[start < stop], stop, step)
    if at >= stop:
        return head
    offset: I64 = np.concatenate([head, scalar_offsets(window, at, stop, order)])
    return offset


def scalar_offsets(window: U8, start: int, stop: int, order: str) -> I64:
    """The same walk one block at a time; it ends at the next section's header."""
    head_at = struct.Struct(order + "II").unpack_from

    def positions() -> Iterator[int]:
        position = start
        data = window.data
        while position < stop:
            yield position
            kind, length = head_at(data, position)
            if kind == SECTION and position:
                return
            position += max(length & ~3, BLOCK_BYTES_MIN)

    return np.fromiter(positions(), np.int64)


def _plausible(word: NDArray[np.uint32], count: int, lane_bytes: int) -> I64:
    """Offsets near each lane's start that look like packet blocks: their type, and their length at both ends."""
    lane_words = lane_bytes >> 2
    width = min(SEARCH_BYTES >> 2, lane_words)
    near = word[: count * lane_words].reshape(count, lane_words)[:, :width]
    looks_right = (near == ENHANCED_PACKET) | (near == SIMPLE_PACKET)
    lane, column = np.divmod(np.flatnonzero(looks_right), width)
    candidate = lane * lane_words + column
    length = word[np.minimum(candidate + 1, len(word) - 1)].astype(np.int64)
    last = candidate + (length >> 2) - 1
    fits = (length & 3 == 0) & (length >= 16) & (last < len(word))
    fits &= word[np.where(fits, last, 0)] == length
    offset: I64 = (candidate[fits] << 2).astype(np.int64)
    return offset


def _read_packets(window: U8, blocks: Blocks, section: Section, walk: Walk) -> Iterator[Frames]:
    """The packets among whole blocks; interfaces described among them are added to the section."""
    described = np.flatnonzero(blocks.kind == INTERFACE)
    known = len(section.interfaces) + np.cumsum(blocks.kind == INTERFACE)
    for begin, length in zip(blocks.offset[described], blocks.length[described], strict=True):
        interface = read_interface(window[begin : begin + length].tobytes(), section.order)
        section.interfaces.append(interface)
        if interface.link_type not in walk.link_types:
            walk.link_types.append(interface.link_type)
    row = np.flatnonzero(np.isin(blocks.kind, PACKETS))
    if len(row) == 0:
        return
    packets = _packet_fields(window, blocks, row, section)
    unknown = packets.interface >= known[row]
    if unknown.any():
        walk.skipped["unknown_interface"] += int(np.count_nonzero(unknown))
    interfaces = section.interfaces or [Interface(0, 0, MICROSECONDS, 0)]
    number = np.where(unknown, 0, packets.interface)
    link_type = np.array([i.link_type for i in interfaces], np.int32)[number]
    ts_ns = _event_times(packets, number, interfaces, section)
    keep = ~unknown
    for other in np.unique(link_type[keep]):
        if not is_read(int(other)):
            of_it = (link_type == other) & keep
            walk.skipped[f"link_type_{other}"] += int(np.count_nonzero(of_it))
            keep &= ~of_it
    yield Frames(
        ts_ns=ts_ns[keep],
        offset=packets.offset[keep],
        caplen=packets.caplen[keep],
        wirelen=packets.wirelen[keep],
        buffer=window,
        link_type=link_type[keep],
    )


@dataclass(slots=True, frozen=True)
class Packets:
    """Fields of packet blocks, (n,) each."""

    kind: NDArray[np.uint32]
    interface: I64
    ticks: U64
    offset: I64
    caplen: I32
    wirelen: I32


def _packet_fields(window: U8, blocks: Blocks, row: I64, section: Section) -> Packets:
    word = _aligned_words(window, section.order)
    kind, length, at = blocks.kind[row], blocks.length[row], blocks.offset[row] >> 2
    simple = kind == SIMPLE_PACKET
    # A Simple Packet Block holds but its wire length; the others have it four words later.
    wirelen = word[at + np.where(simple, 2, 6)].astype(np.int64)
    first = word[at + 2].astype(np.int64)
    interface = np.where(simple, 0, first)
    obsolete = kind == OBSOLETE_PACKET
    if obsolete.any():  # a 16-bit interface, then a 16-bit count of drops
        short = first >> 16 if section.order == ">" else first & 0xFFFF
        interface = np.where(obsolete, short, interface)
    # A short Simple Packet Block may have no fifth word; what is read for it there is not used.
    last = len(word) - 1
    high, low, held = (word[np.minimum(at + column, last)] for column in (3, 4, 5))
    ticks = high.astype(np.uint64) << np.uint64(32) | low
    caplen = held.astype(np.int64)
    if simple.any():
        snaplen = section.interfaces[0].snaplen if section.interfaces else 0
        room = np.minimum(length - HEAD_BYTES[SIMPLE_PACKET] - 4, snaplen or CAPLEN_MAX)
        caplen = np.where(simple, np.minimum(wirelen, room), caplen)
    return Packets(
        kind=kind,
        interface=interface,
        ticks=ticks,
        offset=blocks.offset[row]
        + np.where(simple, HEAD_BYTES[SIMPLE_PACKET], HEAD_BYTES[ENHANCED_PACKET]),
        caplen=caplen.astype(np.int32),
        wirelen=np.maximum(np.minimum(wirelen, 0x7FFF_FFFF), caplen).astype(np.int32),
    )


def _event_times(
    packets: Packets, number: I64, interfaces: list[Interface], section: Section
) -> I64:
    """(n,) ns since the epoch; a packet without a time has that of the one before it."""
    resolution = np.array([i.resolution for i in interfaces], np.int64)[number]
    offset_ns = np.array([i.offset_ns for i in interfaces], np.int64)[number]
    ts_ns = np.empty(len(number), np.int64)
    for each in np.unique(resolution):
        rows = resolution == each
        ts_ns[rows] = ticks_to_ns(packets.ticks[rows], int(each))
    ts_ns += offset_ns
    timed = packets.kind != SIMPLE_PACKET
    if not timed.all():
        latest = np.maximum.accumulate(np.where(timed, np.arange(len(timed)), -1))
        ts_ns = np.where(latest >= 0, ts_ns[latest], section.last_ns)
    section.last_ns = int(ts_ns[-1])
    return ts_ns


def ticks_to_ns(ticks: U64, resolution: int) -> I64:
    """Time stamps in units of `resolution` (if_tsresol) as ns, rounded down, at most 2^62."""
    exponent = resolution & 0x7F
    if resolution & 0x80:
        ns = _binary_ticks_to_ns(ticks, exponent)
    elif exponent <= 9:
        unit = np.uint64(10 ** (9 - exponent))
        ns = np.where(ticks > np.uint64(TS_MAX_NS) // unit, np.uint64(TS_MAX_NS), ticks * unit)
    else:
        ns = ticks // np.uint64(min(10 ** (exponent - 9), (1 << 64) - 1))
    return np.minimum(ns, np.uint64(TS_MAX_NS)).astype(np.int64)


def _binary_ticks_to_ns(ticks: U64, exponent: int) -> U64:
    """Exactly floor(ticks * 10^9 / 2^exponent) in 64 bits: the halves of `ticks` are multiplied apart."""
    billion, half = np.uint64(1_000_000_000), np.uint64(32)
    low = (ticks & np.uint64(0xFFFF_FFFF)) * billion
    high = (ticks >> half) * billion + (low >> half)  # the product without its lowest 32 bits
    if exponent >= 32:
        return high >> np.uint64(min(exponent - 32, 63))
    shift = np.uint64(32 - exponent)
    ns = (high << shift) | ((low & np.uint64(0xFFFF_FFFF)) >> np.uint64(exponent))
    return np.where(high > np.uint64(TS_MAX_NS) >> shift, np.uint64(TS_MAX_NS), ns)


def read_interface(block: bytes, order: str) -> Interface:
    """An Interface Description Block; options that are cut or unknown are passed over."""
    link_type, _, snaplen = struct.unpack_from(order + "HHI", block.ljust(16, b"\0"), 8)
    resolution, offset_s = MICROSECONDS, 0
    position, end = 16, len(block) - 4
    while position + 4 <= end:
        code, length = struct.unpack_from(order + "HH", block, position)
        value = block[position + 4 : min(position + 4 + length, end)]
        if code == OPTION_END:
            break
        if code == OPTION_TSRESOL and len(value) == 1:
            resolution = value[0]
        elif code == OPTION_TSOFFSET and len(value) == 8:
            (offset_s,) = struct.unpack(order + "q", value)
        position += 4 + (length + 3 & ~3)
    offset_ns = max(-TS_MAX_NS, min(offset_s * 1_000_000_000, TS_MAX_NS - 1))
    return Interface(link_type, snaplen, resolution, offset_ns)
