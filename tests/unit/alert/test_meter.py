"""Counting over windows that overlap: never too much, exact when a whole window has passed."""

from hypothesis import given
from hypothesis import strategies as st

from agent.alert.meter import MAX_KEYS, Meter
from tests.support.verdicts import SECOND, host

A = host(1)


def test_slices_add_up_and_two_detectors_on_one_slice_do_not():
    meter = Meter(1)
    for second, count in ((1, 5), (1, 7), (2, 3), (9, 4)):
        meter.add(A, count, second * SECOND)
    assert meter.total == 7 + 3 + 4


def test_a_steady_minute_counted_every_second_is_counted_once():
    meter = Meter(60)
    for second in range(1, 181):
        meter.add(A, 10 * min(second, 60), second * SECOND)
    assert (
        meter.total == 10 + 2 * 600
    )  # seconds 1 to 121; the rest of the minute under way is not sure


def test_windows_apart_add_up():
    meter = Meter(60)
    for second in (60, 120, 500):
        meter.add(A, 100, second * SECOND)
    assert meter.total == 300


@given(st.lists(st.integers(0, 9), min_size=1, max_size=300), st.sets(st.integers(0, 299)))
def test_a_meter_never_counts_more_than_there_was_nor_less_than_one_window(packets, silent):
    """`packets[s]` in second s; no row is made in silent seconds."""
    meter = Meter(60)
    largest = 0
    for second in range(len(packets)):
        window = sum(packets[max(0, second - 59) : second + 1])
        if second not in silent:
            meter.add(A, window, second * SECOND)
            largest = max(largest, window)
    assert largest <= meter.total <= sum(packets)


def test_hosts_beyond_the_bound_share_a_place():
    meter = Meter(1)
    for number in range(MAX_KEYS + 50):
        meter.add(host(number), 1, SECOND)
    assert meter.total == MAX_KEYS + 1
