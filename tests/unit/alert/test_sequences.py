"""What is missing from a gateway's numbers: said once, after a patience, also across a restart."""

import pytest

from agent.alert.sequences import MAX_GATEWAYS, MAX_GONE, MAX_MISSING, MAX_SEEN, Sequences

GW = "s/w/g"


def taken(sequences, *numbers, now_s=0.0):
    return [line for n in numbers for line in sequences.take(GW, n, now_s=now_s)]


def test_numbers_in_order_need_no_word():
    sequences = Sequences()
    assert taken(sequences, *range(7, 50)) == []
    assert sequences.gaps(now_s=100.0, patience_s=10.0) == []


def test_what_is_overtaken_gets_time_to_come():
    sequences = Sequences()
    assert taken(sequences, 1, 3, now_s=0.0) == []
    assert sequences.gaps(now_s=9.0, patience_s=10.0) == []
    assert taken(sequences, 2, now_s=9.5) == []
    assert sequences.gaps(now_s=100.0, patience_s=10.0) == []
    assert sequences.n_missing == 0


def test_what_does_not_come_is_named_once():
    sequences = Sequences()
    taken(sequences, 1, 5)
    assert sequences.gaps(now_s=10.0, patience_s=10.0) == [
        f"{GW}: gap: 3 event(s) missing (2 to 4)"
    ]
    assert sequences.gaps(now_s=99.0, patience_s=10.0) == []
    assert sequences.n_missing == 3


def test_what_comes_after_it_was_named_is_late_and_no_new_beginning():
    sequences = Sequences()
    taken(sequences, 1, 3)
    sequences.gaps(now_s=10.0, patience_s=10.0)
    assert taken(sequences, 2) == [f"{GW}: event 2 came late, after it was reported missing"]
    assert taken(sequences, 4) == []
    assert sequences.n_missing == 0


def test_numbers_that_fall_back_begin_anew():
    sequences = Sequences()
    assert taken(sequences, 500, 1) == [f"{GW}: its numbers begin anew at 1 (last was 500)"]
    assert taken(sequences, 2, 3) == []


def test_gateways_are_counted_apart():
    sequences = Sequences()
    assert sequences.take("a", 1, now_s=0) + sequences.take("b", 9, now_s=0) == []
    assert sequences.take("a", 2, now_s=0) + sequences.take("b", 10, now_s=0) == []
    assert sequences.gaps(now_s=99, patience_s=1) == []


def test_a_gap_while_nobody_listened_shows_after_a_restart():
    before = Sequences()
    taken(before, 1, 2)
    after = Sequences.restored(before.stored())
    assert taken(after, 5) == []
    assert after.gaps(now_s=99.0, patience_s=10.0) == [f"{GW}: gap: 2 event(s) missing (3 to 4)"]


def test_what_was_shown_or_missing_before_a_restart_is_known_after_it():
    before = Sequences()
    assert before.is_new("u1")
    taken(before, 1, 3)
    after = Sequences.restored(before.stored())
    assert not after.is_new("u1")
    assert after.is_new("u2")
    assert taken(after, 2) == [f"{GW}: event 2 came late, after it was reported missing"]
    assert after.n_missing == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"schema": "other"}',
        '{"schema": "wardwatch.alerts-state.v1"}',
        '{"schema": "wardwatch.alerts-state.v1", "gateways": {"g": 1}, "seen": []}',
        '{"schema": "wardwatch.alerts-state.v1", "gateways": {"g": {"last": "x", "gone": []}}, "seen": []}',
    ],
)
def test_anything_else_is_no_state(text):
    with pytest.raises(ValueError, match="not a state"):
        Sequences.restored(text)


def test_it_is_bounded_whatever_is_sent():
    sequences = Sequences()
    for i in range(MAX_GATEWAYS + 10):
        sequences.take(f"g{i}", 1, now_s=0)
    for i in range(MAX_SEEN + 10):
        sequences.is_new(str(i))
    (line,) = taken(sequences, 1, 10**12)
    assert "missing" in line
    assert len(sequences.gaps(now_s=99, patience_s=1)) == 1
    assert sequences.n_missing == 10**12 - 2
    assert len(sequences._gateways) == MAX_GATEWAYS
    assert len(sequences._seen) == MAX_SEEN
    assert len(sequences._gateways[GW].missing) == 0
    assert len(sequences._gateways[GW].gone) == MAX_GONE < MAX_MISSING
    assert len(sequences.stored()) < 400_000
