"""Small learners, forests and schemas for the tests of score and converter; all from seeds."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier

from converter.forests import FloatForest, FloatTree

N_FEATURES = 12


def rows_and_labels(n: int, seed: int, n_classes: int) -> tuple[Any, Any]:
    """Heavy-tailed rows as traffic has them, and labels that depend on a few columns."""
    random = np.random.default_rng(seed)
    rows = random.lognormal(0.0, 2.0, (n, N_FEATURES)).astype(np.float32)
    rows[:, ::3] = np.floor(rows[:, ::3])  # counts
    figure = rows[:, 0] + 3 * (rows[:, 1] > 2) + rows[:, 3] * (rows[:, 4] > 1)
    cuts = np.quantile(figure, np.linspace(0, 1, n_classes + 1)[1:-1])
    return rows, np.searchsorted(cuts, figure)


@cache
def fitted(name: str, n_classes: int) -> Any:
    """A small fitted learner of the table, the same for every test."""
    rows, labels = rows_and_labels(1500, 1, n_classes)
    made: Any = (
        HistGradientBoostingClassifier(max_iter=12, max_leaf_nodes=15, random_state=0)
        if name == "hist-gradient-boosting"
        else GradientBoostingClassifier(n_estimators=8, max_depth=3, random_state=0)
    )
    return made.fit(rows.astype(np.float64), labels)


def stump(
    feature: int, threshold: float, leaves: tuple[float, float], output: int = 0
) -> FloatTree:
    """A tree of one question."""
    return FloatTree(
        feature=np.array([feature, 0, 0]),
        threshold=np.array([threshold, 0.0, 0.0]),
        left=np.array([1, 0, 0]),
        right=np.array([2, 0, 0]),
        leaf=np.array([0.0, *leaves]),
        is_leaf=np.array([False, True, True]),
        output=output,
    )


def forest_of(
    *trees: FloatTree, n_features: int = 3, base: tuple[float, ...] = (0.0,)
) -> FloatForest:
    return FloatForest(
        trees=trees, base=np.array(base), n_features=n_features, classes=("benign", "other")
    )
