"""The table of hosts: exact whatever the hash does, bounded whatever the sources do."""

from __future__ import annotations

import numpy as np
import pytest

from agent.features.hosts import HostTable


def addresses(values):
    return np.zeros(len(values), np.uint64), np.array(values, np.uint64)


def resolve(table, sources, destinations, slice_no=0):
    src, dst = addresses(sources), addresses(destinations)
    slots = (table.lookup(*src), table.lookup(*dst))
    table.resolve(src, dst, slots, np.full(len(sources), slice_no, np.int64))
    return slots[0].tolist(), slots[1].tolist()


def test_colliding_addresses_never_share_a_slot():
    table = HostTable(salt=1, max_hosts=4096, max_new=4096)
    pool = np.arange(1, 400_000, dtype=np.uint64)
    h = pool * np.uint64(table._a)
    h ^= h >> np.uint64(32)
    h *= np.uint64(table._b)
    cell = h >> np.uint64(48)
    crowd = pool[cell == np.bincount(cell.astype(np.int64)).argmax()]
    assert len(crowd) > 10, "these all start at one cell"
    out, into = resolve(table, crowd, np.roll(crowd, 1))
    assert len(set(out)) == len(crowd)
    assert into == np.roll(out, 1).tolist()
    again = table.lookup(*addresses(crowd))
    assert again.tolist() == out


def test_a_host_has_both_halves_of_its_address():
    table = HostTable(salt=1, max_hosts=8, max_new=8)
    hi = np.array([1, 2, 3], np.uint64)
    lo = np.array([7, 7, 7], np.uint64)
    slots = (table.lookup(hi, lo), table.lookup(hi, lo))
    table.resolve((hi, lo), (hi, lo), slots, np.zeros(3, np.int64))
    assert len(set(slots[0].tolist())) == 3
    assert slots[0].tolist() == slots[1].tolist()


def test_new_sources_beyond_the_limit_fold_into_their_victim():
    table = HostTable(salt=1, max_hosts=4096, max_new=256)
    resolve(table, [5], [6])
    out, into = resolve(table, range(1000, 3000), [5] * 2000)
    assert sum(s != table.folded for s in out) == 256
    assert set(out[300:]) == {table.folded}
    assert len(set(into)) == 1
    again, _ = resolve(table, range(3000, 3400), [5] * 400, slice_no=1)
    assert sum(s != table.folded for s in again) == 256, "each slice has its own allowance"


def test_new_destinations_beyond_the_limit_fold_into_their_scanner():
    table = HostTable(salt=1, max_hosts=4096, max_new=256)
    resolve(table, [5], [6], slice_no=1)
    _, into = resolve(table, [5] * 2000, range(1000, 3000))
    assert sum(s != table.folded for s in into) == 256


def test_known_hosts_are_never_folded():
    table = HostTable(salt=1, max_hosts=4096, max_new=2)
    resolve(table, [11, 12], [1, 1])
    out, _ = resolve(table, [21, 22, 23, 11, 12], [1] * 5)
    assert out[3:] == resolve(table, [11, 12], [1, 1])[0]
    assert table.folded in out[:3]


def test_one_sided_hosts_leave_first_then_the_idle_longest():
    table = HostTable(salt=1, max_hosts=8, max_new=2)
    for n in range(4):
        resolve(table, [2 * n + 10], [2 * n + 11], slice_no=n)
    assert len(table) == 8
    table.last[:] = [0, 0, 1, 1, 2, 2, 3, 3]
    table.seen[:, :] = True
    table.seen[0, 5] = False
    gone = table.make_room(10)
    assert gone.tolist() == [5, 0]
    assert table.lookup(*addresses([10, 15])).tolist() == [-1, -1]
    assert table.lookup(*addresses([11])).tolist() == [1]
    assert table.n_evicted == 2


def test_active_hosts_are_not_evicted():
    table = HostTable(salt=1, max_hosts=4, max_new=2)
    resolve(table, [1, 3], [2, 4], slice_no=7)
    assert not len(table.make_room(7))


@pytest.mark.parametrize("n", [0, 8191])
def test_slots_fit_their_bits(n):
    with pytest.raises(ValueError, match="max_hosts"):
        HostTable(salt=0, max_hosts=n, max_new=1)
