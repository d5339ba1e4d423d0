"""Rows by key: whatever the order and the cut, the same rows; closed slices leave as a prefix."""

from __future__ import annotations

import numpy as np

from agent.features.sums import SLICE_SHIFT, KeyedSums, Rows


def rows(*items):
    keys, sums, maxes, last = zip(*items, strict=True)
    return Rows(
        np.array(keys, np.int64),
        np.array(sums, np.int64).reshape(-1, 1),
        np.array(maxes, np.int64).reshape(-1, 1),
        np.array(last, np.uint64),
    )


def content(taken):
    return list(
        zip(
            *(c.reshape(-1).tolist() for c in (taken.keys, taken.sums, taken.maxes, taken.last)),
            strict=True,
        )
    )


def test_equal_keys_add_up_and_the_latest_has_the_last_word():
    sums = KeyedSums(1, 1)
    sums.add(rows((9, 1, 5, 7), (3, 1, 1, 1), (9, 2, 4, 8)))
    sums.add(rows((5, 1, 1, 1), (9, 10, 1, 9)))
    sums.add(rows((20, 1, 1, 1)))
    assert content(sums.take_below(1)) == [(3, 1, 1, 1), (5, 1, 1, 1), (9, 13, 5, 9), (20, 1, 1, 1)]


def test_closed_slices_leave_and_the_others_stay():
    sums = KeyedSums(1, 1)
    key = lambda n: n << SLICE_SHIFT | 4  # noqa: E731
    sums.add(rows((key(7), 1, 1, 1), (key(8), 2, 2, 2)))
    assert content(sums.take_below(7)) == []
    assert content(sums.take_below(8)) == [(key(7), 1, 1, 1)]
    sums.add(rows((key(8), 1, 0, 3)))
    assert content(sums.take_below(9)) == [(key(8), 3, 2, 3)]
    assert content(sums.take_below(99)) == []
