"""A learner's trees in float64, as it made them: the reference that every quantised bundle is held against.

Kept in npz files between the steps of the converter, so nothing is ever pickled. It never rounds.

In: float32 rows (n, f). Out: float64 margins (n, outputs): the base plus one leaf a tree, `x <= threshold` left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    F64 = NDArray[np.float64]

_ROWS_PER_CHUNK = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatTree:
    """One tree; n nodes, the first is the root, children anywhere after it."""

    feature: NDArray[np.int64]
    threshold: F64
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    leaf: F64
    is_leaf: NDArray[np.bool_]
    output: int


_COLUMNS = ("feature", "threshold", "left", "right", "leaf", "is_leaf")


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatForest:
    """A row's margin per output is `base` plus one leaf a tree."""

    trees: tuple[FloatTree, ...]
    base: F64
    n_features: int
    classes: tuple[str, ...]

    @property
    def n_outputs(self) -> int:
        """1 for two classes (the margin of the second), else one a class."""
        return len(self.base)

    def margins(self, rows: NDArray[np.float32]) -> F64:
        """(n, n_outputs) float64, for float32 rows (n, n_features)."""
        result = np.tile(self.base, (len(rows), 1))
        for begin in range(0, len(rows), _ROWS_PER_CHUNK):
            chunk = rows[begin : begin + _ROWS_PER_CHUNK].astype(np.float64)
            for tree in self.trees:
                result[begin : begin + len(chunk), tree.output] += _leaves(tree, chunk)
        return result

    def arrays(self, prefix: str = "") -> dict[str, NDArray[np.generic]]:
        """Every node of every tree, tree after tree, for an npz."""
        joined = {c: np.concatenate([getattr(t, c) for t in self.trees]) for c in _COLUMNS}
        rest = {
            "n_nodes": np.array([len(t.leaf) for t in self.trees]),
            "output": np.array([t.output for t in self.trees]),
            "base": self.base,
            "n_features": np.array(self.n_features),
            "classes": np.array(self.classes),
        }
        return {prefix + name: array for name, array in {**joined, **rest}.items()}


def forest_from_arrays(arrays: Mapping[str, NDArray[np.generic]], prefix: str = "") -> FloatForest:
    """The forest that `arrays` stored."""
    ends = np.cumsum(arrays[prefix + "n_nodes"])
    columns = {c: np.split(arrays[prefix + c], ends[:-1]) for c in _COLUMNS}
    trees = tuple(
        FloatTree(output=int(output), **{c: columns[c][k] for c in _COLUMNS})
        for k, output in enumerate(arrays[prefix + "output"])
    )
    return FloatForest(
        trees=trees,
        base=arrays[prefix + "base"].astype(np.float64),
        n_features=int(arrays[prefix + "n_features"]),
        classes=tuple(str(c) for c in arrays[prefix + "classes"]),
    )


def _leaves(tree: FloatTree, rows: F64) -> F64:
    at = np.zeros(len(rows), np.int64)
    open_rows = np.flatnonzero(~tree.is_leaf[at])
    while len(open_rows):
        node = at[open_rows]
        goes_left = rows[open_rows, tree.feature[node]] <= tree.threshold[node]
        at[open_rows] = np.where(goes_left, tree.left[node], tree.right[node])
        open_rows = open_rows[~tree.is_leaf[at[open_rows]]]
    return tree.leaf[at]
