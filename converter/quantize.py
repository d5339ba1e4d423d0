"""Makes integers of a learner's trees: DESIGN.md, "What quantised means here".

Thresholds: each float64 threshold t becomes the largest float32 not above it. For every float32 x, `x <= t` holds
exactly when `x <= floor32(t)` does, so no decision changes. Leaves: whole numbers of 16 (or 8) bits times
one scale a model. Base: a whole number of the same scale. Every partial sum stays below 2^24, so it is
exact in float32 in any order. Splits whose two sides came out equal are merged away, which changes no sum;
a tree that is left with one leaf goes into the base.

It never changes what a tree asks, and never trains.

In: `FloatForest`. Out: `Quantised`. Raises: `BundleError` (parity) where a forest cannot be said this way.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agent.errors import BundleError, BundleReason
from agent.score.integer_trees import (
    EXACT_SUM_LIMIT,
    MAX_SPLITS_PER_FEATURE,
    IntegerTrees,
    from_arrays,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from converter.forests import F64, FloatForest, FloatTree

LARGEST_LEAF = 16.0
"""Leaves are clipped to +-this margin (a factor of 9 million in odds): one enormous leaf, which boosting
with subsampling can make, would otherwise take the resolution of all the others. Clipping counts in the bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantised:
    """Integer trees, and what is proved about them."""

    trees: IntegerTrees
    scale: float
    """Margin = integer sum x scale."""
    margin_bound: F64
    """(n_outputs,) no row's margin is off by more than this: the largest leaf error of each tree, summed."""
    n_clipped: int


@dataclass(slots=True)
class _Node:
    """A tree on its way to breadth-first order."""

    feature: int = 0
    threshold: float = 0.0
    left: _Node | None = None
    right: _Node | None = None
    leaf: int = 0


def floor_float32(values: F64) -> NDArray[np.float32]:
    """The largest float32 not above each float64."""
    near = values.astype(np.float32)
    below = np.nextafter(near, np.float32(-np.inf))
    return np.where(near.astype(np.float64) > values, below, near).astype(np.float32)


def quantize(forest: FloatForest, *, leaf_bits: int = 16) -> Quantised:
    """Integer trees of a learner's trees; the same forest gives the same integers."""
    if leaf_bits not in (8, 16):
        raise BundleError(BundleReason.PARITY, f"leaves of {leaf_bits} bits: 8 or 16 are possible")
    largest_int = (1 << (leaf_bits - 1)) - 1
    leaves = [tree.leaf[tree.is_leaf] for tree in forest.trees]
    n_clipped = int(sum(np.count_nonzero(np.abs(leaf) > LARGEST_LEAF) for leaf in leaves))
    scale = _scale(forest, leaves, largest_int)

    bound = np.abs(forest.base - np.rint(forest.base / scale) * scale)
    base = np.rint(forest.base / scale).astype(np.int64)
    grown: list[tuple[int, _Node]] = []
    for tree in forest.trees:
        whole = _whole_leaves(tree.leaf, scale, largest_int)
        error = np.abs(tree.leaf - whole * scale)[tree.is_leaf]
        bound[tree.output] += error.max()
        root = _merged(tree, whole)
        if root.left is None:
            base[tree.output] += root.leaf
        else:
            grown.append((tree.output, root))
    grown.sort(key=lambda item: item[0])  # stable: within an output the order of training stays
    trees = _compact(grown, base, forest.n_features, np.int8 if leaf_bits == 8 else np.int16)
    return Quantised(trees=trees, scale=scale, margin_bound=bound, n_clipped=n_clipped)


def _scale(forest: FloatForest, leaves: list[F64], largest_int: int) -> float:
    """The finest scale at which each leaf fits its bits and each sum stays exact."""
    per_tree = np.array([np.abs(np.clip(x, -LARGEST_LEAF, LARGEST_LEAF)).max() for x in leaves])
    output = np.array([tree.output for tree in forest.trees])
    reach = np.bincount(output, weights=per_tree, minlength=forest.n_outputs) + np.abs(forest.base)
    room = (
        EXACT_SUM_LIMIT - 2 - len(leaves)
    )  # rounding adds at most half a unit a tree and for the base
    scale = max(float(per_tree.max()) / largest_int, float(reach.max()) / room)
    if not scale > 0 or not np.isfinite(scale):
        raise BundleError(BundleReason.PARITY, "every leaf is zero, or one is not finite")
    return scale


def _whole_leaves(leaf: F64, scale: float, largest_int: int) -> NDArray[np.int64]:
    return np.clip(np.rint(leaf / scale), -largest_int, largest_int).astype(np.int64)


def _merged(tree: FloatTree, whole: NDArray[np.int64]) -> _Node:
    """The tree with whole leaves, without the splits that no longer matter. Children come after parents."""
    threshold = floor_float32(np.where(tree.is_leaf, 0.0, tree.threshold))
    nodes: list[_Node] = [_Node() for _ in range(len(tree.leaf))]
    for at in range(len(nodes) - 1, -1, -1):
        if tree.is_leaf[at]:
            nodes[at] = _Node(leaf=int(whole[at]))
            continue
        left, right = nodes[tree.left[at]], nodes[tree.right[at]]
        if left.left is None and right.left is None and left.leaf == right.leaf:
            nodes[at] = left
        else:
            nodes[at] = _Node(int(tree.feature[at]), float(threshold[at]), left, right)
    return nodes[0]


def _compact(
    grown: list[tuple[int, _Node]],
    base: NDArray[np.int64],
    n_features: int,
    leaf_type: type[np.int8 | np.int16],
) -> IntegerTrees:
    feature: list[int] = []
    threshold: list[float] = []
    leaf: list[int] = []
    is_leaf: list[bool] = []
    inner: list[int] = []
    for _, root in grown:
        before = len(feature)
        queue = deque([root])
        while queue:
            node = queue.popleft()
            is_leaf.append(node.left is None)
            if node.left is None or node.right is None:
                leaf.append(node.leaf)
                continue
            feature.append(node.feature)
            threshold.append(node.threshold)
            queue.extend((node.left, node.right))
        inner.append(len(feature) - before)

    features, thresholds = np.array(feature, np.int64), np.array(threshold, np.float32)
    tables = [np.unique(thresholds[features == f]) for f in range(n_features)]
    counts = [len(table) for table in tables]
    if max(counts, default=0) > MAX_SPLITS_PER_FEATURE:
        raise BundleError(
            BundleReason.PARITY,
            f"feature {int(np.argmax(counts))} has {max(counts)} thresholds, at most "
            f"{MAX_SPLITS_PER_FEATURE} are possible: train with fewer bins",
        )
    bins = [int(np.searchsorted(tables[f], t)) for f, t in zip(feature, thresholds, strict=True)]
    return from_arrays(
        {
            "split_value": np.concatenate([*tables, np.empty(0, np.float32)]),
            "split_count": np.array(counts, np.uint8),
            "tree_inner": np.array(inner, np.uint16),
            "tree_output": np.array([output for output, _ in grown], np.uint8),
            "is_leaf": np.packbits(np.array(is_leaf, bool)),
            "feature": features.astype(np.uint8 if n_features <= 256 else np.uint16),
            "bin": np.array(bins, np.uint8),
            "leaf": np.array(leaf, leaf_type),
            "base": base,
        }
    )
