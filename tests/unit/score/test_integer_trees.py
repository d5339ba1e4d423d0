"""The numpy scorer: right sums, and no array that could lead a walk astray gets through."""

from __future__ import annotations

import numpy as np
import pytest

from agent.errors import BundleError, BundleReason
from agent.score.integer_trees import (
    EXACT_SUM_LIMIT,
    IntegerScorer,
    expand,
    from_arrays,
    largest_sum,
)


def two_trees() -> dict[str, np.ndarray]:
    """Output 0: x0 <= 1.5 ? (x1 <= 2 ? 10 : 20) : 30. Output 1: x1 <= 7 ? -5 : 5. Bases 100 and 0."""
    return {
        "split_value": np.array([1.5, 2.0, 7.0], np.float32),
        "split_count": np.array([1, 2], np.uint8),
        "tree_inner": np.array([2, 1], np.uint16),
        "tree_output": np.array([0, 1], np.uint8),
        # first tree breadth first: inner, inner, leaf 30, leaf 10, leaf 20; second: inner, leaf, leaf
        "is_leaf": np.packbits(np.array([0, 0, 1, 1, 1, 0, 1, 1], bool)),
        "feature": np.array([0, 1, 1], np.uint8),
        "bin": np.array([0, 0, 1], np.uint8),
        "leaf": np.array([30, 10, 20, -5, 5], np.int16),
        "base": np.array([100, 0], np.int64),
    }


def test_sums_are_those_worked_out_by_hand() -> None:
    scorer = IntegerScorer(from_arrays(two_trees()))
    rows = np.array([[1.5, 2.0], [1.5, 2.1], [1.6, 0.0], [-1e30, 7.1]], np.float32)
    assert scorer.sums(rows).tolist() == [[110, -5], [120, -5], [130, -5], [120, 5]]
    assert scorer.sums(rows[:0]).shape == (0, 2)


def test_a_row_on_the_threshold_goes_left_and_one_ulp_above_goes_right() -> None:
    scorer = IntegerScorer(from_arrays(two_trees()))
    at = np.float32(1.5)
    above, below = np.nextafter(at, np.float32(2)), np.nextafter(at, np.float32(1))
    rows = np.array([[below, 9], [at, 9], [above, 9]], np.float32)
    assert scorer.sums(rows)[:, 0].tolist() == [120, 120, 130]


def test_many_rows_in_chunks_equal_single_rows() -> None:
    scorer = IntegerScorer(from_arrays(two_trees()))
    rows = np.random.default_rng(0).normal(2, 3, (70_000, 2)).astype(np.float32)
    together = scorer.sums(rows)
    assert np.array_equal(
        together[::997], np.concatenate([scorer.sums(r[None]) for r in rows[::997]])
    )


def test_expanded_children_and_depth() -> None:
    flat = expand(from_arrays(two_trees()))
    assert flat.left.tolist() == [1, 3, 2, 3, 4, 6, 6, 7]
    assert flat.depth == 2
    assert flat.root.tolist() == [0, 5]


def test_the_largest_sum_is_the_base_and_the_largest_leaf_of_each_tree() -> None:
    assert largest_sum(from_arrays(two_trees())) == 130


def broken(**changes: np.ndarray) -> dict[str, np.ndarray]:
    return {**two_trees(), **changes}


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (broken(leaf=np.array([1, 2], np.int16)), "leaf has 2 items"),
        (broken(feature=np.array([0, 1, 2], np.uint8)), "a feature that is not there"),
        (broken(bin=np.array([1, 0, 1], np.uint8)), "a split value that is not there"),
        (broken(split_value=np.array([1.5, np.nan, 7], np.float32)), "not finite"),
        (broken(split_value=np.array([1.5, 2, 7], np.float64)), "split_value is float64"),
        (broken(tree_output=np.array([1, 0], np.uint8)), "not ordered"),
        (broken(tree_output=np.array([0, 2], np.uint8)), "not ordered"),
        (broken(tree_inner=np.array([1, 2], np.uint16)), "leaf bits"),
        (broken(is_leaf=np.packbits(np.array([1, 0, 0, 1, 1, 0, 1, 1], bool))), "breadth-first"),
        (broken(base=np.array([EXACT_SUM_LIMIT, 0], np.int64)), "exact only below"),
        (broken(base=np.empty(0, np.int64)), "0 outputs"),
        ({k: v for k, v in two_trees().items() if k != "bin"}, "missing"),
    ],
)
def test_arrays_that_disagree_are_refused(arrays: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(BundleError, match=words) as caught:
        from_arrays(arrays)
    assert caught.value.reason is BundleReason.MALFORMED


def test_rows_of_another_width_or_type_are_refused() -> None:
    scorer = IntegerScorer(from_arrays(two_trees()))
    for rows in (np.zeros((1, 3), np.float32), np.zeros((1, 2), np.float64)):
        with pytest.raises(BundleError, match="the model has 2 features"):
            scorer.sums(rows)  # type: ignore[arg-type]
