"""Control packets of a batch in stream order: those of right walks and those found by following, put together.

In: `Groups`, `Walk`, `Epochs`, `Results`. Out: `Found`, ordered by frame, and in a frame by place in the stream.
Raises: nothing. Remembers: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agent.decode.mqtt_epochs import Epochs, Results
from agent.decode.mqtt_follow import CHAIN, Piece
from agent.decode.mqtt_groups import Groups
from agent.decode.mqtt_scan import Stop
from agent.decode.mqtt_walk import Walk, sorted_places

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
        return Found(*(getattr(self, name).take(rows) for name in Found.__slots__))


def collect(groups: Groups, walked: Walk, epochs: Epochs, results: Results) -> Found:
    """Everything found, in stream order."""
    followed = results.followed
    right = epochs.fast[epochs.of_segment]
    opening = np.zeros(len(right), bool)
    opening[epochs.begin[epochs.fresh & epochs.fast]] = True
    order = np.zeros(len(right), np.int64)
    row, synchronised, moved = groups.row, epochs.segment_synchronised, False
    rough: I64 | None = None
    if followed.unpaid:
        # What nothing was left to follow is taken as it was walked, and marked as an estimate.
        unpaid = np.array(followed.unpaid, np.int64)
        stop = walked.stop[unpaid]
        partly = ((stop == Stop.CUT) | (stop == Stop.BUDGET)) & (
            walked.packets[unpaid] >= CHAIN - 1
        )
        rough = unpaid[(stop == Stop.LANDED) | partly]
        synchronised = synchronised.copy()
        right[rough], synchronised[rough] = True, False
    if followed.whole:
        number, at_row, in_step, start, place = np.array(followed.whole, np.int64).T
        moved = bool((at_row != row[number]).any())
        row, synchronised = row.copy(), synchronised.copy()
        right[number], row[number], synchronised[number] = True, at_row, in_step.astype(bool)
        opening[number], order[number] = start.astype(bool), place
    if not right.all():
        walked = walked.only(np.flatnonzero(right.take(walked.payload)))
    found = _entries(groups, walked, (row, synchronised, opening), rough)
    if not followed.pieces and not moved:
        return found  # as ever: the walk's entries are in the order of capture, and a frame is one segment
    orders = order.take(walked.payload)
    if followed.pieces:
        pieces, place = _pieces(followed.pieces)
        found = _join([found, pieces])
        orders = np.concatenate((orders, place))
    return found.take(_by_row(found.row, orders))


def _by_row(row: I64, order: I64) -> I64:
    """The stable sort by row, then by order, in one integer if they fit."""
    order_bits = int(order.max(initial=1)).bit_length()
    bits = order_bits + int(row.max(initial=1)).bit_length()
    if bits + len(row).bit_length() > 62:
        return np.lexsort((order, row))
    return sorted_places(row << order_bits | order, bits)


def _join(parts: list[Found]) -> Found:
    return Found(*(np.concatenate([getattr(p, n) for p in parts]) for n in Found.__slots__))


def _entries(
    groups: Groups,
    walked: Walk,
    of_segment: tuple[I64, BoolArray, BoolArray],
    rough: I64 | None,
) -> Found:
    """Entries of the walk; `of_segment` are rows, whether in step, and whether a stream begins, (n,) each.

    `rough` are segments whose walk may be wrong.
    """
    row, synchronised, opening = of_segment
    segment, pos, size, remaining = walked.payload, walked.pos, walked.size, walked.remaining
    start = np.zeros(len(segment), bool)
    if opening.any():
        start = opening.take(segment) & (pos == groups.offset.take(segment))
    estimated = rough is not None or bool(walked.extrapolated.any())
    extrapolated = walked.extrapolated
    if rough is not None:
        guessed = np.zeros(len(row), bool)
        guessed[rough] = True
        extrapolated = extrapolated | guessed.take(segment)
    available = (size + remaining).astype(np.int64)
    if estimated or (groups.captured != groups.length).any():
        # Else every entry is a packet that was captured whole.
        edge = (groups.offset + groups.captured).take(segment)
        np.minimum(edge - pos, available, out=available)
    return Found(
        row=row.take(segment),
        segment=segment,
        pos=pos,
        first=walked.first,
        remaining=remaining,
        size=size,
        count=walked.count,
        extrapolated=extrapolated,
        available=available,
        synchronised=(
            np.ones(len(segment), bool) if synchronised.all() else synchronised.take(segment)
        ),
        start=start,
    )


def _pieces(pieces: list[Piece]) -> tuple[Found, I64]:
    """What following found for itself, and its place in the order of finding."""
    table = np.array(pieces, np.int64)
    number, row, pos, first, remaining, size, packets, extrapolated, available = table.T[:9]
    found = Found(
        row=row,
        segment=number,
        pos=pos,
        first=first.astype(np.uint8),
        remaining=remaining.astype(np.int32),
        size=size.astype(np.int32),
        count=packets,
        extrapolated=extrapolated.astype(bool),
        available=available,
        synchronised=table[:, 9].astype(bool),
        start=table[:, 10].astype(bool),
    )
    return found, table[:, 11]
