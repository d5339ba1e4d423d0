"""Sums by key, kept as they came until their slice closes: what the open slices hold of each host and side.

A key says `slice, slot, side`. What each piece of frames adds stays a part of its own, and parts are added up
when their slices close; where they grow many they are merged before. Whole numbers only: how frames are
cut into batches cannot change a sum. Rows are bounded by active hosts x sides x open slices, parts by `MAX_PARTS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from agent.records import I64, U64

SLOT_BITS = 13
SLOT_MASK = (1 << SLOT_BITS) - 1
SLICE_SHIFT = SLOT_BITS + 1
"""A key is `slice << SLICE_SHIFT | slot << 1 | side`; side 0 is out, 1 in."""
MAX_PARTS = 6
MAX_ROWS = 1 << 14
"""Parts that are kept beside each other, and rows of all of them, before they are merged; 5 MB of frames."""


def edges(values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n,) True where a run of equal values begins."""
    out = np.empty(len(values), np.bool_)
    out[:1] = True
    np.not_equal(values[1:], values[:-1], out=out[1:])
    return out


class Rows(NamedTuple):
    """Rows by key: m rows, and behind them one row of nothing (zeros), for those that a part lacks."""

    keys: I64
    """(m,)"""
    sums: I64
    """(n_sums, m + 1)"""
    maxes: I64
    """(n_maxes, m + 1)"""
    last: U64
    """(m,) a value of which the latest counts (a MAC)."""


class _Part(NamedTuple):
    """Rows whose keys are ascending and unique; `place` says where in `rows` each stands."""

    keys: I64
    place: NDArray[np.intp]
    rows: Rows


def sorted_keys(keys: I64, low: int) -> I64:
    """The keys there are, ascending, without a sort: `low` is the least, and they lie within some 32 slices."""
    mark = np.zeros(int(keys.max()) - low + 1, np.bool_)
    mark[keys - low] = True
    return np.flatnonzero(mark) + low


def _part(new: Rows) -> _Part:
    """Rows in any order as a part; of equal keys the later row has the last word."""
    if (new.keys[1:] > new.keys[:-1]).all():
        return _Part(new.keys, np.arange(len(new.keys)), new)
    low = int(new.keys.min())
    keys = sorted_keys(new.keys, low)
    n = len(keys)
    at_key = np.empty(int(keys[-1]) - low + 1, np.intp)
    if n == len(new.keys):
        at_key[new.keys - low] = np.arange(n)
        return _Part(keys, at_key[keys - low], new)
    at_key[keys - low] = np.arange(n)  # late frames: a host's slices come in turns
    at = at_key[new.keys - low]
    sums = np.zeros((len(new.sums), n + 1), np.int64)
    maxes = np.zeros((len(new.maxes), n + 1), np.int64)
    last = np.zeros(n, np.uint64)
    for to, column in zip(sums, new.sums, strict=True):
        np.add.at(to, at, column[:-1])
    for to, column in zip(maxes, new.maxes, strict=True):
        np.maximum.at(to, at, column[:-1])
    last[at] = new.last
    return _Part(keys, np.arange(n), Rows(keys, sums, maxes, last))


def _length(part: _Part) -> int:
    return len(part.keys)


class Sums:
    """Rows by key, in parts: what closed."""

    def __init__(self, parts: list[_Part]) -> None:
        """`parts` in frame order."""
        self._parts = parts

    def keys(self) -> I64:
        """The keys there are, ascending."""
        if len(self._parts) == 1:
            return self._parts[0].keys
        if not self._parts:
            return np.zeros(0, np.int64)
        low = min(int(part.keys[0]) for part in self._parts)
        return sorted_keys(np.concatenate([part.keys for part in self._parts]), low)

    def fill(self, low: int, place_of: NDArray[np.intp], lanes: list[tuple[I64, I64]]) -> None:
        """Add the rows up in the lanes, of each its sums (n_sums, r) and maxes (n_maxes, r).

        `place_of[key - low]` is a key's `lane * r + place in it`. Places that no key has become 0.
        """
        n = lanes[0][0].shape[1]
        for to in (table for lane in lanes for table in lane if not self._parts):
            to[:] = 0
        # The order cannot matter: the longest fills the lanes, the others are added where they have rows.
        for number, part in enumerate(sorted(self._parts, key=_length, reverse=True)):
            nothing = len(part.rows.keys)
            index = np.full((len(lanes), n), nothing)
            index.reshape(-1)[place_of[part.keys - low]] = part.place
            for (sums, maxes), which in zip(lanes, index, strict=True):
                if number == 0:
                    part.rows.sums.take(which, axis=1, out=sums, mode="clip")
                    part.rows.maxes.take(which, axis=1, out=maxes, mode="clip")
                    continue
                touched = np.flatnonzero(which != nothing)
                if len(touched):
                    span = slice(int(touched[0]), int(touched[-1]) + 1)
                    sums[:, span] += part.rows.sums.take(which[span], axis=1, mode="clip")
                    more = part.rows.maxes.take(which[span], axis=1, mode="clip")
                    np.maximum(maxes[:, span], more, out=maxes[:, span])

    def last(self, low: int, place_of: NDArray[np.intp], n: int) -> U64:
        """(n,) the last value at each place, as in `fill`; 0 where none is."""
        out = np.zeros(n, np.uint64)
        for part in self._parts:
            out[place_of[part.keys - low]] = part.rows.last[part.place]
        return out


class KeyedSums:
    """Rows that grow as frames come, and leave when their slice closes."""

    def __init__(self, n_sums: int, n_maxes: int) -> None:
        self._n_sums = n_sums
        self._n_maxes = n_maxes
        self._parts: list[_Part] = []

    def add(self, new: Rows) -> None:
        """Add rows, in any order, in frame order where keys are equal."""
        if not len(new.keys):
            return
        self._parts.append(_part(new))
        n_rows = sum(len(part.rows.keys) for part in self._parts)
        if len(self._parts) > MAX_PARTS or (n_rows > MAX_ROWS and len(self._parts) > 1):
            self._parts = [self._merged()]

    def _merged(self) -> _Part:
        """All parts as one."""
        every = Sums(self._parts)
        keys = every.keys()
        n, low = len(keys), int(keys[0])
        place = np.arange(n)
        place_of = np.empty(int(keys[-1]) - low + 1, np.intp)
        place_of[keys - low] = place
        sums = np.zeros((self._n_sums, n + 1), np.int64)
        maxes = np.zeros((self._n_maxes, n + 1), np.int64)
        every.fill(low, place_of, [(sums, maxes)])
        rows = Rows(keys, sums, maxes, every.last(low, place_of, n))
        return _Part(keys, place, rows)

    def bounds(self, slice_no: int, max_rows: int) -> list[int]:
        """Below which slices to take, in turn, to have all below `slice_no`: at once if `max_rows` or less."""
        keys = [p.keys[: np.searchsorted(p.keys, slice_no << SLICE_SHIFT)] for p in self._parts]
        n_rows = sum(len(k) for k in keys)
        if n_rows <= max_rows:
            return [slice_no] if n_rows else []
        return [int(n) + 1 for n in np.unique(np.concatenate(keys) >> SLICE_SHIFT)]

    def take_below(self, slice_no: int) -> Sums:
        """Remove and return the rows of the slices below `slice_no`."""
        closed, kept = [], []
        for part in self._parts:
            n = int(np.searchsorted(part.keys, slice_no << SLICE_SHIFT))
            if n:
                closed.append(_Part(part.keys[:n], part.place[:n], part.rows))
            if n < len(part.keys):
                kept.append(_Part(part.keys[n:], part.place[n:], part.rows))
        self._parts = kept
        return Sums(closed)
