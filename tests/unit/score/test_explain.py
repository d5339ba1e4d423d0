"""What moved a score: topics whose normal values lower it, one fact a topic, the most telling first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from agent.features.ip_schema import SCHEMA
from agent.score.explain import (
    MAX_FACTS,
    TOPICS,
    Reasons,
    lower_median,
    telling_columns,
    topic_of,
)

if TYPE_CHECKING:
    from agent.records import F32, I64


class Weighted:
    """A scorer whose sum is plain to see: weights times values."""

    n_outputs = 1

    def __init__(self, weights: list[int]) -> None:
        self.weights = np.array(weights)
        self.n_features = len(weights)
        self.n_rows = 0

    def sums(self, values: F32) -> I64:
        self.n_rows += len(values)
        return np.asarray((values.astype(np.int64) * self.weights).sum(axis=1, keepdims=True))


class Either(Weighted):
    """Hostile while any one feature is: what two features say alike."""

    def sums(self, values: F32) -> I64:
        return np.asarray((values > 1).any(axis=1).astype(np.int64)[:, None] * 100)


NORMAL = np.array([1, 1, 1, 1], np.float32)
EACH = {name: np.array([k]) for k, name in enumerate("abcd")}
PAIRS = {"ab": np.array([0, 1]), "cd": np.array([2, 3])}


def test_the_largest_drop_comes_first_and_what_does_not_lower_the_sum_is_left_out() -> None:
    row = np.array([5, 5, 1, 9], np.float32)  # drops by 4 x 2, 4 x 10; 2 is normal; 3 helps
    assert telling_columns(Weighted([2, 10, 100, -1]), row, NORMAL, EACH, threshold=0) == [1, 0]


def test_one_topic_is_said_once_by_the_column_that_says_most() -> None:
    row = np.array([5, 9, 3, 9], np.float32)
    found = telling_columns(Weighted([2, 2, 30, 1]), row, NORMAL, PAIRS, threshold=-(10**6))
    assert found == [2, 1]


def test_what_two_topics_say_alike_is_still_said() -> None:
    row = np.array([5, 1, 5, 1], np.float32)
    assert telling_columns(Either([1] * 4), row, NORMAL, EACH, threshold=50) == [0]


def test_it_ends_where_the_row_is_no_longer_hostile() -> None:
    row = np.array([9, 8, 7, 6], np.float32)
    scorer = Weighted([1, 1, 1, 1])
    assert telling_columns(scorer, row, NORMAL, EACH, threshold=5) == [0, 1, 2, 3]
    assert telling_columns(scorer, row, NORMAL, EACH, threshold=25) == [0, 1]
    assert telling_columns(scorer, row, NORMAL, EACH, n_most=1, threshold=5) == [0]


def test_equal_drops_go_to_the_earlier_topic_and_the_lower_column() -> None:
    row = np.array([3, 3, 3, 3], np.float32)
    assert telling_columns(Weighted([1] * 4), row, NORMAL, EACH, n_most=2, threshold=0) == [0, 1]
    assert telling_columns(Weighted([1] * 4), row, NORMAL, PAIRS, n_most=2, threshold=0) == [0, 2]


def test_the_same_number_under_another_name_is_not_said_again() -> None:
    row = np.array([50, 50, 40, 1], np.float32)
    scorer = Weighted([9, 5, 1, 1])
    assert telling_columns(scorer, row, NORMAL, EACH, threshold=-(10**6)) == [0, 2]


def test_what_is_said_is_put_back_first() -> None:
    row = np.array([9, 8, 7, 6], np.float32)
    found = telling_columns(Weighted([1] * 4), row, NORMAL, PAIRS, said={"ab": 0}, threshold=0)
    assert found == [2]


def test_a_normal_row_has_nothing_to_tell() -> None:
    assert telling_columns(Weighted([1] * 4), NORMAL.copy(), NORMAL, EACH, threshold=0) == []


def test_the_median_is_a_value_that_occurred() -> None:
    rows = np.array([[1, 9], [4, 2], [2, 2], [3, 7]], np.float32)
    assert lower_median(rows).tolist() == [2, 2]


def test_every_feature_belongs_to_one_topic() -> None:
    assert not [f.name for f in SCHEMA.features if topic_of(f.name) not in TOPICS]


def test_no_topic_speaks_of_a_feature_that_is_none() -> None:
    bases = {f.name.removesuffix("_1s").removesuffix("_60s") for f in SCHEMA.features}
    bare = {base.removeprefix("out_").removeprefix("in_") for base in bases}
    named = [base for bases in TOPICS.values() for base in bases.split()]
    assert len(named) == len(set(named))
    assert set(named) <= bases | bare


def reasons(row: F32, history: F32 | None = None, *, threshold: int = 500) -> Reasons:
    weights = [0] * len(SCHEMA)
    for name in ("in_tcp_syn_1s", "in_packets_1s", "out_packets_1s"):
        weights[SCHEMA.index[name]] = 1
    return Reasons(
        schema=SCHEMA,
        gate=Weighted(weights),
        threshold=threshold,
        row=row,
        own=(SCHEMA.index["in_tcp_syn_1s"],),
        columns=np.flatnonzero(weights),
        training=np.zeros(len(SCHEMA), np.float32),
        history=history,
    )


def loud() -> F32:
    row = np.zeros(len(SCHEMA), np.float32)
    row[SCHEMA.index["in_tcp_syn_1s"]] = 600
    row[SCHEMA.index["in_packets_1s"]] = 900
    row[SCHEMA.index["out_packets_1s"]] = 700
    return row


def test_a_fact_says_what_is_normal_and_whose() -> None:
    told = [(f.feature, f.value, f.normal, f.normal_of) for f in reasons(loud()).facts()]
    assert told == [
        ("in_tcp_syn_1s", 600, 0, "training"),
        ("in_packets_1s", 900, 0, "training"),
    ]
    usual = np.full((5, len(SCHEMA)), 3, np.float32)
    told = [(f.feature, f.value, f.normal, f.normal_of) for f in reasons(loud(), usual).facts()]
    assert told == [("in_tcp_syn_1s", 600, 3, "device"), ("in_packets_1s", 900, 3, "device")]


def test_a_device_that_is_never_quiet_is_compared_with_the_training_rows() -> None:
    noisy = np.full((5, len(SCHEMA)), 300, np.float32)
    assert {f.normal_of for f in reasons(loud(), noisy).facts()} == {"training"}


def test_reasons_are_worked_out_once() -> None:
    why = reasons(loud())
    assert isinstance(why.gate, Weighted)
    first, n_rows = why.facts(), why.gate.n_rows
    assert why.facts() is first
    assert why.gate.n_rows == n_rows > 0
    assert len(first) <= MAX_FACTS
