"""Scores rows with integer boosted trees in plain numpy: the oracle for onnxruntime, and the fall-back.

A row goes left where `x <= threshold`, compared in float32 exactly as the ONNX graph does; a leaf is a
whole number; a row's sum per output is the base plus one leaf a tree, in int64. So the sum depends on
neither the order of addition nor the processor. Scale, sigmoid and thresholds are not applied here.
It never reads a file, and never scores with floats.

Compact layout (`trees.npz`, one set of arrays per forest), made to be small:

    split_value  float32 (s,)   the distinct thresholds of every feature, ascending, feature after feature
    split_count  uint8 (f,)     how many of them each feature has, at most 255
    tree_inner   uint16 (t,)    inner nodes of each tree; it has one leaf more
    tree_output  uint8 (t,)     which output the tree adds to, ascending
    is_leaf      uint8          one bit a node, trees after each other, each breadth first
    feature      uint8/16 (i,)  of each inner node
    bin          uint8 (i,)     its threshold's place among the feature's split values
    leaf         int16/8 (l,)   of each leaf
    base         int64 (o,)     of each output

Children are not stored: breadth first, the k-th inner node of a tree has its children at 2k+1 and 2k+2.

In: float32 (n, f), finite. Out: int64 (n, o). Raises: `BundleError` (malformed) where arrays disagree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agent.errors import BundleError, BundleReason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from agent.records import F32, I32, I64, U8, U16

MAX_SPLITS_PER_FEATURE = 255
"""So that a node's bin fits a uint8, and a feature's count too."""

EXACT_SUM_LIMIT = 1 << 24
"""Whole numbers up to here add exactly in float32, in any order; every partial sum must stay below."""

MAX_NODES = 2_000_000
"""Bound on what a bundle may unpack to, far above any model of 3 MB."""

_CELLS_PER_CHUNK = 1 << 16
"""Rows x trees walked at a time: keeps the walk's state in the second-level cache."""

ARRAY_NAMES = (
    "split_value",
    "split_count",
    "tree_inner",
    "tree_output",
    "is_leaf",
    "feature",
    "bin",
    "leaf",
    "base",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegerTrees:
    """A forest in the compact layout of this module's header; field names are the array names."""

    split_value: F32
    split_count: U8
    tree_inner: U16
    tree_output: U8
    is_leaf: U8
    feature: U8 | U16
    bin: U8
    leaf: NDArray[np.int16] | NDArray[np.int8]
    base: I64

    @property
    def n_features(self) -> int:
        """Columns that a row must have."""
        return len(self.split_count)

    @property
    def n_outputs(self) -> int:
        """Sums that a row gets: 1 for a gate, one a class for kinds."""
        return len(self.base)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """The arrays by name, as `trees.npz` stores them."""
        return {name: getattr(self, name) for name in ARRAY_NAMES}


def from_arrays(arrays: Mapping[str, NDArray[np.generic]], prefix: str = "") -> IntegerTrees:
    """A forest from stored arrays (`prefix + name`), every one checked against the others."""
    try:
        found = {name: arrays[prefix + name] for name in ARRAY_NAMES}
    except KeyError as error:
        raise _malformed(f"array {error} is missing") from None
    kinds = {name: found[name].dtype.name for name in ARRAY_NAMES}
    wanted = {
        "split_value": ("float32",),
        "split_count": ("uint8",),
        "tree_inner": ("uint16",),
        "tree_output": ("uint8",),
        "is_leaf": ("uint8",),
        "feature": ("uint8", "uint16"),
        "bin": ("uint8",),
        "leaf": ("int16", "int8"),
        "base": ("int64",),
    }
    for name, allowed in wanted.items():
        if kinds[name] not in allowed or found[name].ndim != 1:
            raise _malformed(f"array {name} is {kinds[name]} {found[name].shape}")
    trees = IntegerTrees(**found)  # type: ignore[arg-type]
    _check(trees)
    return trees


class IntegerScorer:
    """Walks every row through every tree at once, level by level."""

    def __init__(self, trees: IntegerTrees) -> None:
        self.n_features = trees.n_features
        self.n_outputs = trees.n_outputs
        self._base = trees.base
        flat = expand(trees)
        self._feature = flat.feature
        self._threshold = flat.threshold
        self._left = flat.left
        self._leaf = flat.leaf
        self._root = flat.root
        self._depth = flat.depth
        self._output_start = np.searchsorted(trees.tree_output, np.arange(trees.n_outputs + 1))

    def sums(self, values: F32) -> I64:
        """(n, n_outputs) int64 exact sums of the rows `values`, float32 (n, n_features)."""
        if values.dtype != np.float32 or values.ndim != 2 or values.shape[1] != self.n_features:
            raise _malformed(
                f"rows are {values.dtype} {values.shape}, the model has {self.n_features} features"
            )
        result = np.empty((len(values), self.n_outputs), np.int64)
        step = max(1, _CELLS_PER_CHUNK // max(1, len(self._root)))
        for begin in range(0, len(values), step):
            leaves = self._leaves(np.ascontiguousarray(values[begin : begin + step]))
            for output in range(self.n_outputs):
                first, last = self._output_start[output : output + 2]
                total = leaves[:, first:last].sum(axis=1, dtype=np.int64)
                result[begin : begin + step, output] = total + self._base[output]
        return result

    def _leaves(self, values: F32) -> I32:
        """(rows, trees) int32: the leaf of each row in each tree."""
        flat = values.ravel()
        row_start = (np.arange(len(values)) * self.n_features)[:, None]
        node = np.broadcast_to(self._root, (len(values), len(self._root)))
        for _ in range(self._depth):
            # A leaf points at itself and has the threshold +inf, so it stays where it is.
            right = flat.take(row_start + self._feature.take(node)) > self._threshold.take(node)
            node = self._left.take(node) + right
        return self._leaf.take(node)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatTrees:
    """The same forest, one entry a node, children as absolute node numbers; n nodes, t trees."""

    feature: I64
    """(n,) 0 at leaves."""
    threshold: F32
    """(n,) +inf at leaves."""
    left: I64
    """(n,) the left child, the right one stands next to it; a leaf's own number at leaves."""
    leaf: I32
    """(n,) 0 at inner nodes."""
    is_leaf: NDArray[np.bool_]
    root: I64
    """(t,) where each tree begins."""
    depth: int
    """Decisions on the longest way from a root to a leaf."""


def expand(trees: IntegerTrees) -> FlatTrees:
    """The forest with one entry a node, for walking and for writing as a graph."""
    inner = trees.tree_inner.astype(np.int64)
    n_nodes = int((2 * inner + 1).sum())
    root = np.concatenate(([0], np.cumsum(2 * inner + 1)[:-1])).astype(np.int64)
    if not len(inner):
        root = root[:0]
    is_leaf = np.unpackbits(trees.is_leaf, count=n_nodes).astype(bool)
    at = np.flatnonzero(~is_leaf)
    tree = np.repeat(np.arange(len(inner)), inner)
    first_inner = np.cumsum(inner) - inner
    rank = np.arange(len(at)) - first_inner[tree]

    feature = np.zeros(n_nodes, np.int64)
    feature[at] = trees.feature
    threshold = np.full(n_nodes, np.inf, np.float32)
    split_start = np.cumsum(trees.split_count, dtype=np.int64) - trees.split_count
    threshold[at] = trees.split_value[split_start[trees.feature] + trees.bin]
    left = np.arange(n_nodes)
    left[at] = root[tree] + 2 * rank + 1
    leaf = np.zeros(n_nodes, np.int32)
    leaf[is_leaf] = trees.leaf
    return FlatTrees(
        feature=feature,
        threshold=threshold,
        left=left,
        leaf=leaf,
        is_leaf=is_leaf,
        root=root,
        depth=_depth(left, is_leaf, root),
    )


def largest_sum(trees: IntegerTrees) -> int:
    """A bound on the absolute value of every partial sum of any row: base and largest leaf of each tree."""
    flat = expand(trees)
    if not len(flat.root):
        return int(np.abs(trees.base).max(initial=0))
    largest = np.maximum.reduceat(np.abs(flat.leaf.astype(np.int64)), flat.root)
    per_output = np.bincount(trees.tree_output, weights=largest, minlength=trees.n_outputs)
    return int((per_output + np.abs(trees.base)).max())


def _depth(left: I64, is_leaf: NDArray[np.bool_], root: I64) -> int:
    node, depth = root, 0
    while True:
        node = node[~is_leaf[node]]
        if not len(node):
            return depth
        node = np.concatenate((left[node], left[node] + 1))
        depth += 1


def _check(trees: IntegerTrees) -> None:
    """Whatever the arrays say, walking them must stay inside them and end."""
    inner = trees.tree_inner.astype(np.int64)
    n_inner, n_trees = int(inner.sum()), len(inner)
    n_nodes = 2 * n_inner + n_trees
    n_splits = trees.split_count.astype(np.int64)
    if n_nodes > MAX_NODES or not trees.n_features or not trees.n_outputs:
        raise _malformed(f"{n_nodes} nodes, {trees.n_features} features, {trees.n_outputs} outputs")
    sizes = (
        (len(trees.split_value), int(n_splits.sum()), "split_value"),
        (len(trees.tree_output), n_trees, "tree_output"),
        (len(trees.is_leaf), (n_nodes + 7) // 8, "is_leaf"),
        (len(trees.feature), n_inner, "feature"),
        (len(trees.bin), n_inner, "bin"),
        (len(trees.leaf), n_inner + n_trees, "leaf"),
    )
    for found, wanted, name in sizes:
        if found != wanted:
            raise _malformed(f"array {name} has {found} items, {wanted} are due")
    if n_inner and int(trees.feature.max()) >= trees.n_features:
        raise _malformed("a node asks for a feature that is not there")
    if np.any(trees.bin >= n_splits[trees.feature]):
        raise _malformed("a node asks for a split value that is not there")
    if not np.all(np.isfinite(trees.split_value)):
        raise _malformed("a split value is not finite")
    if np.any(np.diff(trees.tree_output.astype(np.int64)) < 0) or np.any(
        trees.tree_output >= trees.n_outputs
    ):
        raise _malformed("trees are not ordered by output")
    if n_trees:
        _check_shapes(trees, inner, n_nodes)
    if largest_sum(trees) >= EXACT_SUM_LIMIT:
        raise _malformed(f"sums can reach {largest_sum(trees)}, exact only below {EXACT_SUM_LIMIT}")


def _check_shapes(trees: IntegerTrees, inner: I64, n_nodes: int) -> None:
    """Each tree has its inner nodes, and each inner node stands before its children."""
    is_inner = ~np.unpackbits(trees.is_leaf, count=n_nodes).astype(bool)
    root = np.cumsum(2 * inner + 1) - (2 * inner + 1)
    if np.any(np.add.reduceat(is_inner.astype(np.int64), root) != inner):
        raise _malformed("a tree's leaf bits do not fit its number of nodes")
    at = np.flatnonzero(is_inner)
    tree = np.repeat(np.arange(len(inner)), inner)
    rank = np.arange(len(at)) - (np.cumsum(inner) - inner)[tree]
    # Place p in breadth-first order of the k-th inner node: its parent came before it iff p <= 2k.
    if np.any(at - root[tree] > 2 * rank):
        raise _malformed("a tree is not in breadth-first order")


def _malformed(problem: str) -> BundleError:
    return BundleError(BundleReason.MALFORMED, f"trees.npz: {problem}")
