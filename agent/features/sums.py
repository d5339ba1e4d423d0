"""Sums by key, kept in key order: what the open slices hold of each host and side.

A key says `slice, slot, side`, so the rows of a closed slice are a prefix. Whole numbers only: how frames are
cut into batches cannot change a sum. Never more rows than active hosts x sides x open slices.
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


def edges(values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n,) True where a run of equal values begins."""
    out = np.empty(len(values), np.bool_)
    out[:1] = True
    np.not_equal(values[1:], values[:-1], out=out[1:])
    return out


class Rows(NamedTuple):
    """Rows by key: m rows, ascending."""

    keys: I64
    sums: I64
    """(m, n_sums)"""
    maxes: I64
    """(m, n_maxes)"""
    last: U64
    """(m,) a value of which the latest counts (a MAC)."""

    def at(self, which: NDArray[np.intp]) -> Rows:
        """Some of the rows, by place."""
        # `take` along an axis copies whole rows: twice as fast as indexing.
        return Rows(
            self.keys.take(which),
            self.sums.take(which, axis=0),
            self.maxes.take(which, axis=0),
            self.last.take(which),
        )

    def between(self, start: int, stop: int) -> Rows:
        """The rows from start to stop, as views."""
        part = slice(start, stop)
        return Rows(self.keys[part], self.sums[part], self.maxes[part], self.last[part])


def _distinct(rows: Rows) -> Rows:
    """Rows in the order of their keys, each key once; of equal keys the later row has the last word."""
    order = np.argsort(rows.keys, kind="stable")
    rows = rows.at(order)
    first = edges(rows.keys)
    if first.all():
        return rows
    at = np.cumsum(first) - 1
    n = int(at[-1]) + 1
    sums = np.zeros((n, rows.sums.shape[1]), np.int64)
    maxes = np.zeros((n, rows.maxes.shape[1]), np.int64)
    last = np.zeros(n, np.uint64)
    np.add.at(sums, at, rows.sums)
    np.maximum.at(maxes, at, rows.maxes)
    last[at] = rows.last
    return Rows(rows.keys[first], sums, maxes, last)


class KeyedSums:
    """Rows that grow as frames come, and leave when their slice closes."""

    def __init__(self, n_sums: int, n_maxes: int) -> None:
        self._rows = Rows(
            np.zeros(0, np.int64),
            np.zeros((0, n_sums), np.int64),
            np.zeros((0, n_maxes), np.int64),
            np.zeros(0, np.uint64),
        )

    def add(self, new: Rows) -> None:
        """Add rows, in any order, in frame order where keys are equal."""
        new = _distinct(new)
        old = self._rows
        at = np.searchsorted(old.keys, new.keys)
        if len(old.keys):
            clipped = np.minimum(at, len(old.keys) - 1)
            found = np.flatnonzero(old.keys[clipped] == new.keys)
            if len(found):
                into = at[found]
                old.sums[into] += new.sums[found]
                old.maxes[into] = np.maximum(old.maxes[into], new.maxes[found])
                old.last[into] = new.last[found]
                if len(found) == len(new.keys):
                    return
                rest = np.flatnonzero(old.keys[clipped] != new.keys)
                new = new.at(rest)
                at = at[rest]
        if not len(old.keys):
            self._rows = new
            return
        both = Rows(
            np.concatenate([old.keys, new.keys]),
            np.concatenate([old.sums, new.sums]),
            np.concatenate([old.maxes, new.maxes]),
            np.concatenate([old.last, new.last]),
        )
        self._rows = (
            both if int(at[0]) == len(old.keys) else both.at(both.keys.argsort(kind="stable"))
        )

    def take_below(self, slice_no: int) -> Rows:
        """Remove and return the rows of the slices below `slice_no`."""
        rows = self._rows
        n = int(np.searchsorted(rows.keys, slice_no << SLICE_SHIFT))
        if not n:
            return rows.between(0, 0)
        self._rows = rows.at(np.arange(n, len(rows.keys)))
        return rows.between(0, n)
