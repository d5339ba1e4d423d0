"""Sums and sets over 60 slices: what enters, what leaves, what happens when there is no room."""

from __future__ import annotations

import numpy as np

from agent.features.sliding import MAX_ADDEND, SlidingSet, SlidingSums, Tally


def codes(*values):
    return np.array(values, np.int64)


def one(value):
    return np.array([[value]], np.int64)


def test_a_sum_holds_sixty_slices():
    sums = SlidingSums(4, 1)
    since = np.zeros(4, np.int64)
    for n in range(100):
        sums.push(n, codes(2), one(1), since)
        assert sums.totals[2, 0] == min(n + 1, 60)
    sums.push(1000, codes(1), one(7), since)
    assert sums.totals[:, 0].tolist() == [0, 7, 0, 0]


def test_a_slot_with_a_new_host_owes_nothing_to_the_old_one():
    sums = SlidingSums(2, 1)
    since = np.zeros(2, np.int64)
    sums.push(5, codes(0), one(9), since)
    sums.forget(codes(0))
    since[0] = 6
    sums.push(6, codes(0), one(1), since)
    sums.push(65, codes(0), one(1), since)
    assert sums.totals[0, 0] == 2
    sums.push(66, codes(1), one(1), since)
    assert sums.totals[0, 0] == 1


def test_a_huge_addend_is_capped():
    sums = SlidingSums(8, 3)
    values = np.array([[5, 2**31 - 1], [0, 2**40], [0, 0]], np.int64)
    totals = sums.push(1, codes(7, 3), values, np.zeros(8, np.int64))
    assert totals.tolist() == [[5, 0, 0], [2**31 - 1, MAX_ADDEND, 0]]
    sums.push(61, codes(0), np.zeros((3, 1), np.int64), np.zeros(8, np.int64))
    assert not sums.totals.any()


def test_a_set_forgets_after_sixty_slices():
    seen = SlidingSet(100)
    assert seen.see(0, codes(5, 9))[0].tolist() == [5, 9]
    assert seen.expire(59).tolist() == []
    assert seen.see(59, codes(5, 7))[0].tolist() == [7]
    assert seen.expire(60).tolist() == [9]
    assert seen.codes.tolist() == [5, 7]
    assert seen.expire(119).tolist() == [5, 7]


def test_a_full_set_lets_go_of_what_was_seen_longest_ago():
    seen = SlidingSet(3)
    seen.see(0, codes(10, 20))
    seen.see(1, codes(10))
    entered, evicted = seen.see(2, codes(30, 40))
    assert (entered.tolist(), evicted.tolist()) == ([30, 40], [20])
    assert seen.codes.tolist() == [10, 30, 40]
    assert seen.n_evicted == 1


def test_a_full_tally_keeps_what_came_first():
    tally = Tally(3)
    tally.add(codes(1, 5), codes(1, 1), codes(0, 1))
    tally.add(codes(2, 3, 5), codes(1, 1, 1), codes(7, 4, 5))
    assert tally.codes.tolist() == [1, 3, 5], "3 came before 2"
    assert tally.packets.tolist() == [1, 1, 2]
    assert tally.n_refused == 1


def test_a_set_says_what_a_plain_dictionary_says():
    rng = np.random.default_rng(7)
    seen, last = SlidingSet(10_000), {}
    for n in np.cumsum(rng.integers(1, 20, 60)).tolist():
        left = sorted(c for c, m in last.items() if m <= n - 60)
        assert seen.expire(n).tolist() == left
        for code in left:
            del last[code]
        now = np.unique(rng.integers(0, 400, 50))
        entered, evicted = seen.see(n, now)
        assert entered.tolist() == [c for c in now.tolist() if c not in last]
        assert not len(evicted)
        last.update(dict.fromkeys(now.tolist(), n))
        assert seen.codes.tolist() == sorted(last)
