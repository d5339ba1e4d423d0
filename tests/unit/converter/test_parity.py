"""Parity: what it proves of a good model, and that each kind of broken one is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agent.errors import BundleError, BundleReason
from agent.score.integer_trees import IntegerTrees, from_arrays
from converter.estimators import read
from converter.export import graph_bytes, integer_graph
from converter.parity import check_metrics, check_size, prove, threshold_rows
from converter.quantize import Quantised, quantize
from tests.support.forests import N_FEATURES, fitted, rows_and_labels

FOREST = read(fitted("hist-gradient-boosting", 4))
ROWS = rows_and_labels(800, 9, 4)[0]


def best(margins: np.ndarray) -> np.ndarray:
    return np.argmax(margins, axis=1)


def graph(trees: IntegerTrees) -> bytes:
    return graph_bytes(integer_graph(trees), N_FEATURES)


def changed(quantised: Quantised, **arrays: np.ndarray) -> Quantised:
    return replace(quantised, trees=from_arrays({**quantised.trees.arrays(), **arrays}))


def test_a_good_model_passes_with_its_figures() -> None:
    quantised = quantize(FOREST)
    proof = prove(FOREST, quantised, graph(quantised.trees), ROWS, best)
    assert proof.label_agreement == 1.0
    assert proof.margin_error_max <= proof.margin_bound < 1e-3
    assert proof.n_threshold_rows == 3 * len(quantised.trees.split_value)
    assert proof.n_equal_sums == len(ROWS) + proof.n_threshold_rows
    assert proof.array_bytes < proof.float32_array_bytes * 0.35
    assert "latency_us" not in proof.as_json()


def test_eight_bit_leaves_are_smaller_and_their_bound_is_wider() -> None:
    wide, narrow = quantize(FOREST), quantize(FOREST, leaf_bits=8)
    assert narrow.trees.leaf.nbytes * 2 <= wide.trees.leaf.nbytes
    assert narrow.margin_bound.max() > 50 * wide.margin_bound.max()


def refusal(quantised: Quantised, model: bytes | None = None) -> str:
    with pytest.raises(BundleError) as caught:
        prove(FOREST, quantised, model or graph(quantised.trees), ROWS, best)
    assert caught.value.reason is BundleReason.PARITY
    return str(caught.value)


def test_a_leaf_that_moved_breaks_the_bound() -> None:
    quantised = quantize(FOREST)
    leaf = quantised.trees.leaf.copy()
    leaf[: len(leaf) // 2] //= 2
    assert "more than was proved" in refusal(changed(quantised, leaf=leaf))


def test_a_threshold_that_moved_breaks_the_bound() -> None:
    quantised = quantize(FOREST)
    moved = np.nextafter(quantised.trees.split_value, np.float32(-np.inf))
    assert "more than was proved" in refusal(changed(quantised, split_value=moved))


def test_a_graph_of_other_integers_is_told() -> None:
    quantised = quantize(FOREST)
    leaf = quantised.trees.leaf.copy()
    leaf[0] += 1
    other = graph(changed(quantised, leaf=leaf).trees)
    assert "differ in a sum" in refusal(quantised, other)


def test_rows_stand_on_every_threshold_and_one_ulp_beside() -> None:
    trees = quantize(FOREST).trees
    rows = threshold_rows(trees, ROWS, seed=1)
    feature = np.repeat(np.arange(trees.n_features), trees.split_count)
    placed = rows.reshape(-1, 3, N_FEATURES)[np.arange(len(feature)), :, feature]
    assert np.array_equal(placed[:, 0], trees.split_value)
    assert np.all(placed[:, 1] < placed[:, 0])
    assert np.all(placed[:, 0] < placed[:, 2])
    assert np.array_equal(np.nextafter(placed[:, 1], np.float32(np.inf)), placed[:, 0])


def test_metrics_may_move_by_a_thousandth_and_no_more() -> None:
    check_metrics({"macro_f1": 0.9500}, {"macro_f1": 0.9491})
    with pytest.raises(BundleError, match=r"macro_f1 moved from 0\.9500 to 0\.9480"):
        check_metrics({"macro_f1": 0.95}, {"macro_f1": 0.948})


def test_integers_that_did_not_shrink_are_refused() -> None:
    check_size(35, 100, "trees.npz")
    with pytest.raises(BundleError, match=r"trees\.npz take 36 bytes"):
        check_size(36, 100, "trees.npz")
