"""Control packets of a batch in stream order: those of right walks and those found by following, put together.

In: `Groups`, `Walk`, `Epochs`, `Results`. Out: `Found`, ordered by frame, and in a frame by place in the stream.
Raises: nothing. Remembers: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agent.decode.mqtt_epochs import Epochs, Groups, Results
from agent.decode.mqtt_follow import Piece, Whole
from agent.decode.mqtt_walk import Walk

if TYPE_CHECKING:
    from agent.records import I32, I64, U8, BoolArray


@dataclass(slots=True, frozen=True)
class Found:
    """Control packets, or several alike, (m,)."""

    row: I64
    """The frame that it belongs to, ascending."""
    segment: I64
    """Which of the groups' segments."""
    pos: I64
    """Absolute offset of the first byte, or -1 - index of a header put together from parts."""
    first: U8
    remaining: I32
    size: I32
    count: I64
    extrapolated: BoolArray
    available: I64
    synchronised: BoolArray
    start: BoolArray

    def take(self, rows: I64) -> Found:
        """These rows, in this order."""
        return Found(*(getattr(self, name)[rows] for name in Found.__slots__))


def collect(groups: Groups, walked: Walk, epochs: Epochs, results: Results) -> Found:
    """Everything found, in stream order."""
    right = epochs.fast[epochs.of_segment]
    entry = None if right.all() else np.flatnonzero(right[walked.payload])
    opening = np.zeros(len(groups.row), bool)
    opening[epochs.begin[epochs.fresh & epochs.fast]] = True
    found = _entries(groups, walked, entry, opening)
    found = Found(
        groups.row[found.segment], *(getattr(found, name) for name in Found.__slots__[1:9]),
        epochs.segment_synchronised[found.segment], found.start,
    )  # fmt: skip
    followed = results.followed
    if followed.whole or followed.pieces:
        slow = _followed(groups, walked, followed.whole, followed.pieces)
        found = _join([found, slow])
    m = len(found.row)
    bits = max(m - 1, 1).bit_length()
    packed = found.row << bits
    packed |= np.arange(m)
    packed.sort()
    packed &= (1 << bits) - 1
    return found.take(packed)


def _join(parts: list[Found]) -> Found:
    return Found(*(np.concatenate([getattr(p, n) for p in parts]) for n in Found.__slots__))


def _entries(groups: Groups, walked: Walk, entry: I64 | None, opening: BoolArray) -> Found:
    """Entries of the walk as they are; `opening` (n,) says which segments are their streams' first."""
    columns = (
        walked.payload, walked.pos, walked.first, walked.remaining, walked.size, walked.count,
        walked.extrapolated,
    )  # fmt: skip
    if entry is not None:
        columns = tuple(c[entry] for c in columns)  # type: ignore[assignment]
    segment, pos, first, remaining, size, count, extrapolated = columns
    edge = (groups.offset + groups.captured)[segment]
    available = np.minimum(edge - pos, size + remaining)
    start = np.zeros(len(segment), bool)
    if opening.any():
        head = np.ones(len(segment), bool)
        head[1:] = segment[1:] != segment[:-1]
        start = head & opening[segment]
    return Found(
        segment, segment, pos, first, remaining, size, count, extrapolated, available, start, start
    )


def _followed(groups: Groups, walked: Walk, whole: list[Whole], pieces: list[Piece]) -> Found:
    """What following found, ordered as it was found."""
    parts: list[Found] = []
    orders: list[I64] = []
    if whole:
        index, row, synchronised, start, order = (np.array(c) for c in zip(*whole, strict=True))
        place = np.full(len(groups.row), -1, np.int64)
        place[index] = np.arange(len(index))
        entry = np.flatnonzero(place[walked.payload] >= 0)
        opening = np.zeros(len(groups.row), bool)
        opening[index[start]] = True
        found = _entries(groups, walked, entry, opening)
        which = place[found.segment]
        parts.append(
            Found(
                row[which],
                *(getattr(found, name) for name in Found.__slots__[1:9]),
                synchronised[which],
                found.start,
            )  # fmt: skip
        )
        orders.append(order[which])
    if pieces:
        (segment, row, pos, first, remaining, size, count, extrapolated, available, synchronised,
         start, order) = zip(*pieces, strict=True)  # fmt: skip
        parts.append(
            Found(
                np.array(row, np.int64),
                np.array(segment, np.int64),
                np.array(pos, np.int64),
                np.array(first, np.uint8),
                np.array(remaining, np.int32),
                np.array(size, np.int32),
                np.array(count, np.int64),
                np.array(extrapolated, bool),
                np.array(available, np.int64),
                np.array(synchronised, bool),
                np.array(start, bool),
            )  # fmt: skip
        )
        orders.append(np.array(order, np.int64))
    joined = _join(parts)
    return joined.take(np.argsort(np.concatenate(orders), kind="stable"))
