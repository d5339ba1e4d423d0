"""Rows by key: whatever the order and the cut, the same rows; closed slices leave as a prefix."""

from __future__ import annotations

import numpy as np

from agent.features.sums import SLICE_SHIFT, KeyedSums, Rows


def rows(*items):
    keys, sums, maxes, last = zip(*items, strict=True)
    return Rows(
        np.array(keys, np.int64),
        np.array([[*sums, 0]], np.int64),
        np.array([[*maxes, 0]], np.int64),
        np.array(last, np.uint64),
    )


def content(taken):
    keys = taken.keys()
    n = len(keys)
    low = int(keys.min(initial=0))
    place_of = np.zeros(int(keys.max(initial=0)) - low + 1, np.intp)
    place_of[keys - low] = np.arange(n)
    sums, maxes = (np.full((1, n), -1, np.int64) for _ in range(2))
    taken.fill(low, place_of, [(sums, maxes)])
    columns = (keys, sums[0], maxes[0], taken.last(low, place_of, n))
    return list(zip(*(c.tolist() for c in columns), strict=True))


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


def test_many_parts_say_what_few_say():
    rng = np.random.default_rng(3)
    sums, wanted = KeyedSums(1, 1), {}
    for _ in range(50):
        keys = rng.integers(0, 300, 40).tolist()
        items = [(k << 4, int(rng.integers(9)), int(rng.integers(9)), k) for k in keys]
        sums.add(rows(*items))
        for key, n, top, last in items:
            old = wanted.get(key, (key, 0, 0, 0))
            wanted[key] = (key, old[1] + n, max(old[2], top), last)
    assert content(sums.take_below(99)) == [wanted[key] for key in sorted(wanted)]


def test_rows_go_to_their_lane_and_the_rest_is_zero():
    sums = KeyedSums(1, 1)
    sums.add(rows((4, 1, 5, 7), (6, 2, 6, 8)))
    sums.add(rows((4, 10, 1, 9)))
    lanes = [(np.full((1, 3), 77), np.full((1, 3), 77)) for _ in range(2)]
    sums.take_below(1).fill(4, np.array([1, -9, 5]), lanes)
    assert [lane[0].tolist() for lane in lanes] == [[[0, 11, 0]], [[0, 0, 2]]]
    assert [lane[1].tolist() for lane in lanes] == [[[0, 5, 0]], [[0, 0, 6]]]


def test_slices_leave_one_by_one_where_they_are_large():
    sums = KeyedSums(1, 1)
    sums.add(rows(*((n << SLICE_SHIFT | 4, 1, 1, 1) for n in (3, 5, 9))))
    assert sums.bounds(9, 2) == [9]
    assert sums.bounds(9, 1) == [4, 6]
    assert sums.bounds(3, 1) == []
