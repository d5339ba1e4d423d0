"""For every forest: quantised trees decide every float32 as the float64 trees did, in both runtimes."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.score.integer_trees import EXACT_SUM_LIMIT, IntegerScorer, from_arrays, largest_sum
from agent.score.onnx_session import OnnxScorer, start_session
from converter.export import graph_bytes, integer_graph
from converter.forests import FloatForest, FloatTree
from converter.quantize import floor_float32, quantize

N_FEATURES = 3
VALUES = st.floats(-1e30, 1e30, allow_subnormal=True) | st.sampled_from(
    [0.0, -0.0, 0.1, 1 / 3, 1e-45]
)
LEAVES = st.floats(-20, 20)


@st.composite
def trees(draw: st.DrawFn, output: int) -> FloatTree:
    """A tree of any shape with up to 7 questions, children after their parent."""
    feature, threshold, left, right, leaf, is_leaf = [0], [0.0], [0], [0], [0.0], [True]
    leaf[0] = draw(LEAVES)
    for _ in range(draw(st.integers(0, 7))):
        at = draw(st.sampled_from([k for k, flag in enumerate(is_leaf) if flag]))
        is_leaf[at], feature[at], threshold[at] = False, draw(st.integers(0, 2)), draw(VALUES)
        left[at], right[at] = len(leaf), len(leaf) + 1
        for _side in range(2):
            feature.append(0)
            threshold.append(0.0)
            left.append(0)
            right.append(0)
            is_leaf.append(True)
            leaf.append(draw(LEAVES))
    return FloatTree(
        feature=np.array(feature),
        threshold=np.array(threshold),
        left=np.array(left),
        right=np.array(right),
        leaf=np.array(leaf),
        is_leaf=np.array(is_leaf),
        output=output,
    )


@st.composite
def forests(draw: st.DrawFn) -> FloatForest:
    n_outputs = draw(st.integers(1, 3))
    grown = [draw(trees(k % n_outputs)) for k in range(draw(st.integers(1, 5)))]
    split = FloatTree(
        feature=np.array([0, 0, 0]),
        threshold=np.array([draw(VALUES), 0, 0]),
        left=np.array([1, 0, 0]),
        right=np.array([2, 0, 0]),
        leaf=np.array([0.0, -1.0, 1.0]),
        is_leaf=np.array([False, True, True]),
        output=0,
    )
    base = np.array([draw(LEAVES) for _ in range(n_outputs)])
    return FloatForest(
        trees=(split, *grown), base=base, n_features=N_FEATURES, classes=("a", "b", "c")
    )


def float_margins(forest: FloatForest, row: np.ndarray) -> np.ndarray:
    margin = forest.base.copy()
    for tree in forest.trees:
        at = 0
        while not tree.is_leaf[at]:
            goes_left = float(row[tree.feature[at]]) <= tree.threshold[at]
            at = int((tree.left if goes_left else tree.right)[at])
        margin[tree.output] += tree.leaf[at]
    return margin


def rows_at_thresholds(forest: FloatForest) -> np.ndarray:
    """Rows at each threshold (rounded either way) and one ulp beside, per feature, shuffled together."""
    columns = []
    for feature in range(N_FEATURES):
        asked = [t.threshold[(t.feature == feature) & ~t.is_leaf] for t in forest.trees]
        at = np.concatenate([*asked, [0.0]]).astype(np.float32)
        beside = [np.nextafter(at, np.float32(side)) for side in (-np.inf, np.inf)]
        columns.append(np.concatenate([at, *beside]))
    longest = max(map(len, columns))
    shuffled = [np.resize(np.roll(c, 2 * k), longest) for k, c in enumerate(columns)]
    return np.stack(shuffled, axis=1).astype(np.float32)


@settings(max_examples=120, deadline=None)
@given(forests(), st.sampled_from([8, 16]))
def test_quantised_margins_keep_their_bound_on_and_beside_every_threshold(
    forest: FloatForest, leaf_bits: int
) -> None:
    quantised = quantize(forest, leaf_bits=leaf_bits)
    rows = rows_at_thresholds(forest)
    sums = IntegerScorer(quantised.trees).sums(rows)
    wanted = np.array([float_margins(forest, row) for row in rows])
    assert np.all(np.abs(sums * quantised.scale - wanted) <= quantised.margin_bound + 1e-9)
    assert largest_sum(quantised.trees) < EXACT_SUM_LIMIT
    assert np.abs(sums).max() <= largest_sum(quantised.trees)


@settings(max_examples=60, deadline=None)
@given(forests())
def test_onnxruntime_and_numpy_agree_on_and_beside_every_threshold(forest: FloatForest) -> None:
    trees_ = quantize(forest).trees
    stored = from_arrays({f"gate.{k}": v for k, v in trees_.arrays().items()}, "gate.")
    session = start_session(
        graph_bytes(integer_graph(trees_), N_FEATURES), base=trees_.base, n_features=N_FEATURES
    )
    assert isinstance(session, OnnxScorer)
    rows = rows_at_thresholds(forest)
    assert np.array_equal(session.sums(rows), IntegerScorer(stored).sums(rows))


@given(
    st.floats(-3e38, 3e38, allow_subnormal=True),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
)
def test_flooring_a_threshold_changes_no_decision(threshold: float, value: float) -> None:
    floored = floor_float32(np.array([threshold]))[0]
    near = np.float32(threshold)
    for x in (np.float32(value), near, np.nextafter(near, np.float32(np.inf))):
        if np.isfinite(x):
            assert (x <= floored) == (float(x) <= threshold)
