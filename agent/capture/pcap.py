"""Classic capture files (pcap): the file's header, and the walk of its records.

It never looks at a frame's bytes, and makes no Python object a record.

In: `Windows` of the file. Out: `Frames`, columns of the whole records of one window.
Raises: CaptureError (LINK_TYPE, TRUNCATED, FOREIGN) from the header only. A record that cannot be one ends the
walk: what stands before it is given, `Walk.problem` is the one-line report.
Remembers: nothing between files.
Source: draft-ietf-opsawg-pcap; tcpdump's pcap-savefile(5).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from agent.capture.lanes import SEARCH_BYTES, first_of_each_lane, segments, walk_lanes
from agent.capture.link_types import require_read
from agent.errors import CaptureError, CaptureReason

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from agent.capture.windows import Windows
    from agent.records import I32, I64, U8

FILE_HEADER_BYTES = 24
RECORD_HEADER_BYTES = 16
CAPLEN_MAX = 262_144
"""The largest captured length that is believed: what tcpdump and Wireshark write at most."""

DAY_S, MONTH_S, FRACTION_MAX = np.uint32(86_400), np.uint32(31 * 86_400), np.uint32(1_000_000_000)
"""A guess of a lane's start is within a month of the window's first record; only speed depends on it."""

MAGIC = {
    bytes.fromhex("a1b2c3d4"): (">", 1000),
    bytes.fromhex("d4c3b2a1"): ("<", 1000),
    bytes.fromhex("a1b23c4d"): (">", 1),
    bytes.fromhex("4d3cb2a1"): ("<", 1),
}
"""First four bytes -> byte order, and nanoseconds in a unit of the timestamp's fraction."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Frames:
    """Frames of one window, in file order; `link_type` is one for all or one a frame."""

    ts_ns: I64
    offset: I64
    caplen: I32
    wirelen: I32
    buffer: U8
    link_type: int | I32


@dataclass(slots=True, kw_only=True)
class Walk:
    """What a walk tells besides frames."""

    link_types: list[int]
    """Seen so far, in order of appearance."""
    skipped: Counter[str]
    """Frames that were left out, by reason."""
    problem: str | None = field(default=None)
    """What was cut and where, once the walk has ended."""


@dataclass(slots=True, frozen=True)
class FileHeader:
    """What the first 24 bytes of a file say."""

    order: str
    fraction_ns: int
    """Nanoseconds in a unit of the timestamps' fraction."""
    link_type: int


def read_file_header(source: Windows, path: str) -> FileHeader:
    """Consume the file's header; the first four bytes are one of `MAGIC`."""
    head = source.window(FILE_HEADER_BYTES).tobytes()
    if len(head) < FILE_HEADER_BYTES:
        raise CaptureError(
            CaptureReason.TRUNCATED,
            f"{path}: the file ends inside its header, after {len(head)} bytes",
        )
    order, fraction_ns = MAGIC[head[:4]]
    # The upper bits of the last word tell of a frame check sequence; the link type is the lower 16.
    (network,) = struct.unpack(order + "I", head[20:])
    source.consume(FILE_HEADER_BYTES)
    return FileHeader(order, fraction_ns, require_read(network & 0xFFFF, path))


def walk_pcap(source: Windows, header: FileHeader, walk: Walk) -> Iterator[Frames]:
    """Every whole record behind the header; `walk.problem` is set where something is left over."""
    while len(window := source.window()):
        offset, end = record_offsets(window, header.order)
        rows = header_rows(window, offset, header.order)
        caplen = rows[:, 2].astype(np.int64)
        bad = np.flatnonzero((caplen > CAPLEN_MAX) | (offset + 16 + caplen > len(window)))
        n = int(bad[0]) if len(bad) else len(offset)
        end = int(offset[n]) if len(bad) else end
        if n:
            yield _frames(window, offset[:n], rows[:n], header)
        source.consume(end)
        if len(bad) and caplen[n] > CAPLEN_MAX:
            walk.problem = (
                f"malformed record at byte {source.position}: it claims {int(caplen[n])} captured bytes; "
                "nothing behind it is read"
            )
            return
        if n == 0:
            walk.problem = (
                f"cut in mid-record at byte {source.position}: {len(window) - end} bytes left over"
            )
            return


def _frames(window: U8, offset: I64, rows: NDArray[np.uint32], header: FileHeader) -> Frames:
    ts_ns = rows[:, 0].astype(np.int64)
    ts_ns *= 1_000_000_000
    ts_ns += rows[:, 1].astype(np.int64) * header.fraction_ns
    caplen = rows[:, 2].astype(np.int32)
    wirelen = np.minimum(rows[:, 3], np.uint32(0x7FFF_FFFF)).astype(np.int32)
    return Frames(
        ts_ns=ts_ns,
        offset=offset + RECORD_HEADER_BYTES,
        caplen=caplen,
        wirelen=np.maximum(wirelen, caplen),  # files with wirelen below caplen exist
        buffer=window,
        link_type=header.link_type,
    )


def header_rows(window: U8, offset: I64, order: str) -> NDArray[np.uint32]:
    """(n, 4) native uint32: seconds, fraction, captured and wire length of the records at `offset`."""
    if len(offset) == 0:
        return np.empty((0, 4), np.uint32)
    every: NDArray[np.void] = np.ndarray(
        (len(window) - RECORD_HEADER_BYTES + 1,), "V16", buffer=window.data, strides=(1,)
    )
    return every[offset].view(order + "u4").reshape(-1, 4).astype(np.uint32, copy=False)


def record_offsets(window: U8, order: str) -> tuple[I64, int]:
    """Where records start in `window` from byte 0 on, ascending, and where the chain leads out of it.

    The last records may reach past the window or be malformed; every earlier one is what its
    predecessors' lengths say.
    """
    stop = len(window) - RECORD_HEADER_BYTES + 1
    if stop <= 0:
        return np.empty(0, np.int64), 0
    start = lane_starts(window, order)
    if len(start) == 1:
        return scalar_offsets(window, 0, stop, order)
    caplen = words(window, order)[8:]  # that of a record stands 8 bytes into it
    head, at = walk_lanes(start, stop, lambda position: position + 16 + caplen[position])
    if at >= stop:
        return head, at
    rest, at = scalar_offsets(window, at, stop, order)
    return np.concatenate([head, rest]), at


def lane_starts(window: U8, order: str) -> I64:
    """Byte 0, and a guess for every further lane that `window` is worth: offsets that look like records."""
    count, length = segments(0, len(window) - RECORD_HEADER_BYTES + 1)
    if count == 1:
        return np.zeros(1, np.int64)
    return first_of_each_lane(_plausible(window, order, count, length), 0, length)


def words(window: U8, order: str) -> NDArray[np.uint32]:
    """The 32-bit word at every byte offset of `window`: an overlapping view."""
    view: NDArray[np.uint32] = np.ndarray(
        (len(window) - 3,), order + "u4", buffer=window.data, strides=(1,)
    )
    return view


def scalar_offsets(window: U8, start: int, stop: int, order: str) -> tuple[I64, int]:
    """The same walk one record at a time: for short windows, and where no guess can be proved."""
    caplen_at = struct.Struct(order + "I").unpack_from
    end = start

    def positions() -> Iterator[int]:
        nonlocal end
        position = start
        data = window.data
        while position < stop:
            yield position
            position += 16 + caplen_at(data, position + 8)[0]
        end = position

    return np.fromiter(positions(), np.int64), end


def _plausible(window: U8, order: str, count: int, length: int) -> I64:
    """Offsets near each lane's start where a record could start: it, and the three that follow from it."""
    word = words(window, order)
    top = 3 if order == "<" else 0  # the top byte of a word
    width = min(SEARCH_BYTES, length - RECORD_HEADER_BYTES)
    rows = window[: count * length].reshape(count, length)
    # The cheapest tests first, on bytes: seconds of the same half year, a length below 16 MB.
    near = (rows[:, top : top + width] == window[top]) & (rows[:, 8 + top : 8 + top + width] == 0)
    lane, column = np.divmod(np.flatnonzero(near), width)  # ten times faster than of two dimensions
    candidate = lane * length + column
    earliest = word[:1] - DAY_S  # an array of one: it may wrap
    last = len(window) - RECORD_HEADER_BYTES
    good = np.ones(len(candidate), np.bool_)
    position = candidate
    for _ in range(4):
        good &= position <= last
        position = np.minimum(position, last)
        caplen = word[position + 8]
        good &= (
            (caplen <= CAPLEN_MAX)
            & (caplen <= word[position + 12])
            & (word[position + 4] < FRACTION_MAX)
            & ((word[position] - earliest) < MONTH_S)
        )
        position = position + RECORD_HEADER_BYTES + caplen
    plausible: I64 = candidate[good].astype(np.int64)
    return plausible
