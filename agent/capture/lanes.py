"""Walks chains of variable-length records in parallel lanes: the offsets of all, no loop per record.

A chain is "each record's length says where the next one starts". It is cut into lanes, each of which
starts at a guess; all lanes step at once. A guess is proved when the lane before it lands exactly on
it; at the first that is not, the lanes after it are thrown away. So the result never depends on a
guess: it is what a scalar walk would give, up to where it was proved.

It never judges a record: the caller checks the lengths of what was visited, in order.

In: `start` (k,) int64 ascending, the first of them true; `stop`: no record that starts at or after it
is visited; `step(position (m,)) -> next position (m,)`, strictly greater, total for positions below `stop`.
Out: `(offset (n,) int64 ascending, next)`; `next >= stop` when the chain was walked to its end.
Raises: nothing. Remembers: nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.records import I64

LANES = 192
"""Lanes of one walk: enough that numpy's cost of a call (about 1 us) is shared by hundreds of records."""

SEARCH_BYTES = 1800
"""Bytes of a lane searched for a record to start at: above an MTU frame and its record header, so that
every lane of ordinary traffic finds one."""

LANE_BYTES_MIN = 8192
"""Below this a lane is too short to pay for its search."""


def walk_lanes(start: I64, stop: int, step: Callable[[I64], I64]) -> tuple[I64, int]:
    """Offsets of the chain from `start[0]` as far as it is proved, and where it goes on."""
    end = np.append(start[1:], stop)
    landed = np.empty(len(start), np.int64)
    position, lane, limit = start, np.arange(len(start)), end
    steps = []
    while len(position):
        steps.append(position)
        position = step(position)
        alive = position < limit
        if not alive.all():
            done = ~alive
            landed[lane[done]] = position[done]
            position, lane, limit = position[alive], lane[alive], limit[alive]
    offset = np.concatenate(steps)
    offset.sort()
    wrong = np.flatnonzero(landed[:-1] != start[1:])
    if len(wrong) == 0:
        return offset, int(landed[-1])
    first = int(wrong[0])
    return offset[: np.searchsorted(offset, start[first + 1])], int(landed[first])


def segments(start: int, stop: int) -> tuple[int, int]:
    """How many lanes to cut `[start, stop)` into, and their length; (1, …) where one is best."""
    count = min(LANES, (stop - start) // LANE_BYTES_MIN)
    if count < 8:
        return 1, stop - start
    return count, (stop - start) // count


def first_of_each_lane(candidate: I64, start: int, length: int) -> I64:
    """`start`, then the first candidate of every further lane that has one; ascending, no doubles."""
    lane = (candidate - start) // length
    _, first = np.unique(lane, return_index=True)
    found = candidate[first]
    chosen: I64 = np.concatenate([np.array([start], np.int64), found[found > start]])
    return chosen
