"""Quantising: what it keeps, what it merges, and what it refuses to say."""

from __future__ import annotations

import numpy as np
import pytest

from agent.errors import BundleError
from agent.score.integer_trees import EXACT_SUM_LIMIT, IntegerScorer, largest_sum
from converter.estimators import float_margins, read
from converter.forests import FloatTree
from converter.quantize import LARGEST_LEAF, floor_float32, quantize
from tests.support.forests import fitted, forest_of, rows_and_labels, stump

LEARNED = [(name, n) for name in ("hist-gradient-boosting", "gradient-boosting") for n in (2, 4)]


@pytest.mark.parametrize(("name", "n_classes"), LEARNED)
@pytest.mark.parametrize("leaf_bits", [8, 16])
def test_margins_stay_within_the_proved_bound(name: str, n_classes: int, leaf_bits: int) -> None:
    estimator = fitted(name, n_classes)
    quantised = quantize(read(estimator), leaf_bits=leaf_bits)
    rows, _ = rows_and_labels(3000, 2, n_classes)
    off = np.abs(
        IntegerScorer(quantised.trees).sums(rows) * quantised.scale - float_margins(estimator, rows)
    )
    assert np.all(off.max(axis=0) <= quantised.margin_bound * (1 + 1e-9))
    assert quantised.margin_bound.max() < (0.5 if leaf_bits == 8 else 0.002)
    assert largest_sum(quantised.trees) < EXACT_SUM_LIMIT


def test_a_threshold_decides_every_float32_as_the_float64_did() -> None:
    threshold = 0.1  # not a float32: float32(0.1) lies above it
    quantised = quantize(forest_of(stump(1, threshold, (-1.0, 1.0))))
    near = np.float32(0.1)
    values = [np.nextafter(near, np.float32(0)), near, np.nextafter(near, np.float32(1))]
    rows = np.array([[0, v, 0] for v in values], np.float32)
    right = rows[:, 1].astype(np.float64) > threshold
    assert right.tolist() == [False, True, True]
    assert (IntegerScorer(quantised.trees).sums(rows)[:, 0] > 0).tolist() == right.tolist()


def test_floor_float32_keeps_what_is_a_float32() -> None:
    exact = np.array([0.0, -0.0, 1.5, -3.25, 2.0**100])
    assert floor_float32(exact).astype(np.float64).tolist() == exact.tolist()


def test_splits_with_equal_sides_are_merged_and_lone_leaves_go_into_the_base() -> None:
    forest = forest_of(stump(0, 1.0, (0.5, 0.5)), stump(1, 2.0, (-1.0, 1.0)), base=(0.25,))
    quantised = quantize(forest)
    assert quantised.trees.tree_inner.tolist() == [1]
    margin = IntegerScorer(quantised.trees).sums(np.zeros((1, 3), np.float32)) * quantised.scale
    assert margin[0, 0] == pytest.approx(-0.25, abs=float(quantised.margin_bound[0]))


def test_an_enormous_leaf_is_clipped_and_counted_in_the_bound() -> None:
    forest = forest_of(stump(0, 1.0, (-1e6, 0.001)), stump(1, 1.0, (-0.5, 0.5)))
    quantised = quantize(forest)
    assert quantised.n_clipped == 1
    assert quantised.scale == pytest.approx(LARGEST_LEAF / 32767)
    assert quantised.margin_bound[0] >= 1e6 - LARGEST_LEAF


def test_sums_stay_exact_with_many_trees_by_a_coarser_scale() -> None:
    forest = forest_of(*[stump(k % 3, float(k), (-1.0, 1.0)) for k in range(700)])
    quantised = quantize(forest)
    assert EXACT_SUM_LIMIT * 0.99 < largest_sum(quantised.trees) < EXACT_SUM_LIMIT
    assert quantised.scale > 1 / 32767


def test_more_than_255_thresholds_of_a_feature_are_refused() -> None:
    forest = forest_of(*[stump(2, float(k), (-1.0, 1.0)) for k in range(256)])
    with pytest.raises(BundleError, match="feature 2 has 256 thresholds"):
        quantize(forest)


def test_a_forest_of_zeros_is_refused() -> None:
    with pytest.raises(BundleError, match="every leaf is zero"):
        quantize(forest_of(stump(0, 1.0, (0.0, 0.0))))


def test_the_same_forest_gives_the_same_arrays() -> None:
    forest = read(fitted("hist-gradient-boosting", 4))
    first, second = quantize(forest).trees.arrays(), quantize(forest).trees.arrays()
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_an_output_whose_trees_all_merge_away_keeps_its_base() -> None:
    lone = FloatTree(
        feature=np.array([0]),
        threshold=np.array([0.0]),
        left=np.array([0]),
        right=np.array([0]),
        leaf=np.array([0.75]),
        is_leaf=np.array([True]),
        output=1,
    )
    forest = forest_of(stump(0, 1.0, (-1.0, 1.0)), lone, base=(0.0, 0.25))
    quantised = quantize(forest)
    sums = IntegerScorer(quantised.trees).sums(np.zeros((2, 3), np.float32)) * quantised.scale
    assert sums[:, 1] == pytest.approx([1.0, 1.0], abs=1e-3)
