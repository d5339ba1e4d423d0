"""What moved a score: the features whose benign value would lower it, the most telling first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from agent.score.explain import telling_features

if TYPE_CHECKING:
    from agent.records import F32, I64


class Weighted:
    """A scorer whose sum is plain to see: weights times values."""

    n_features, n_outputs = 4, 1

    def __init__(self, weights: list[int]) -> None:
        self.weights = np.array(weights)
        self.n_rows = 0

    def sums(self, values: F32) -> I64:
        self.n_rows += len(values)
        return np.asarray((values.astype(np.int64) * self.weights).sum(axis=1, keepdims=True))


MEDIAN = np.array([1, 1, 1, 1], np.float32)
ALL = np.arange(4)


def test_the_largest_drop_comes_first_and_what_does_not_lower_the_sum_is_left_out() -> None:
    row = np.array([5, 5, 1, 9], np.float32)  # drops by 4 x 2, 4 x 10; column 2 is normal; 3 helps
    scorer = Weighted([2, 10, 100, -1])
    assert telling_features(scorer, row, MEDIAN, ALL, n_most=3) == [1, 0]


def test_equal_drops_go_to_the_lower_column_and_the_number_is_bounded() -> None:
    row = np.array([3, 3, 3, 3], np.float32)
    assert telling_features(Weighted([1, 1, 1, 1]), row, MEDIAN, ALL, n_most=2) == [0, 1]


def test_only_the_columns_asked_for_are_tried() -> None:
    scorer = Weighted([9, 9, 9, 9])
    row = np.array([3, 3, 3, 3], np.float32)
    assert telling_features(scorer, row, MEDIAN, np.array([2]), n_most=4) == [2]
    assert scorer.n_rows == 2  # the changed row and the row itself


def test_a_normal_row_has_nothing_to_tell() -> None:
    assert telling_features(Weighted([1, 1, 1, 1]), MEDIAN.copy(), MEDIAN, ALL, n_most=3) == []
