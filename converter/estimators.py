"""The one table of learners that can become a bundle: it feeds the code, the help of the command and the docs.

A learner is read into a `FloatForest`: its own trees, thresholds and leaves in float64, nothing rounded.
It never trains and never quantises.

In: a fitted scikit-learn estimator. Out: `FloatForest`. Raises: `BundleError` (parity) on a learner that
is not in the table, or that uses what a bundle cannot say (missing values, categories, no splits at all).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier

from agent.errors import BundleError, BundleReason
from converter.forests import FloatForest, FloatTree

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner:
    """A row of the table."""

    name: str
    estimator: type[Any]
    read: Callable[[Any], FloatForest]
    margins: Callable[[Any, F64], F64]
    """(estimator, float64 rows) -> float64 (n, n_outputs): what the learner itself says."""
    notes: str


def _read_hist(estimator: Any) -> FloatForest:
    """Source: sklearn/ensemble/_hist_gradient_boosting/predictor.pyx, `_predict_one_from_raw_data`."""
    trees = []
    for iteration in estimator._predictors:  # noqa: SLF001  the only place where the trees stand
        for output, predictor in enumerate(iteration):
            nodes = predictor.nodes
            is_leaf = nodes["is_leaf"].astype(bool)
            if nodes["is_categorical"].any():
                raise _unreadable("splits on categories")
            threshold = nodes["num_threshold"].astype(np.float64)
            if not np.all(np.isfinite(threshold[~is_leaf])):
                raise _unreadable("was trained with missing values")
            trees.append(
                FloatTree(
                    feature=nodes["feature_idx"].astype(np.int64),
                    threshold=threshold,
                    left=nodes["left"].astype(np.int64),
                    right=nodes["right"].astype(np.int64),
                    leaf=nodes["value"].astype(np.float64),
                    is_leaf=is_leaf,
                    output=output,
                )
            )
    base = np.asarray(estimator._baseline_prediction, np.float64).ravel()  # noqa: SLF001  as above
    return _forest(estimator, trees, base)


def _read_plain(estimator: Any) -> FloatForest:
    """Source: sklearn/ensemble/_gb.py, `_raw_predict`: the init's prior, then learning rate times each tree."""
    rows = np.zeros((1, estimator.n_features_in_), np.float32)
    base = np.asarray(estimator._raw_predict_init(rows), np.float64).ravel()  # noqa: SLF001  no public way
    trees = []
    for stage in estimator.estimators_:
        for output, regressor in enumerate(stage):
            tree = regressor.tree_
            trees.append(
                FloatTree(
                    feature=tree.feature.astype(np.int64),
                    threshold=tree.threshold.astype(np.float64),
                    left=tree.children_left.astype(np.int64),
                    right=tree.children_right.astype(np.int64),
                    leaf=tree.value[:, 0, 0] * estimator.learning_rate,
                    is_leaf=tree.children_left < 0,
                    output=output,
                )
            )
    return _forest(estimator, trees, base)


def _forest(estimator: Any, trees: list[FloatTree], base: F64) -> FloatForest:
    if not any((~tree.is_leaf).any() for tree in trees):
        raise _unreadable("has learnt no split at all")
    return FloatForest(
        trees=tuple(trees),
        base=base,
        n_features=int(estimator.n_features_in_),
        classes=tuple(str(c) for c in estimator.classes_),
    )


def _hist_margins(estimator: Any, rows: F64) -> F64:
    raw = estimator._raw_predict(rows)  # noqa: SLF001  decision_function drops a column for two classes only
    return np.asarray(raw, np.float64).reshape(len(rows), -1)


def _plain_margins(estimator: Any, rows: F64) -> F64:
    return np.asarray(estimator.decision_function(rows), np.float64).reshape(len(rows), -1)


LEARNERS: tuple[Learner, ...] = (
    Learner(
        name="hist-gradient-boosting",
        estimator=HistGradientBoostingClassifier,
        read=_read_hist,
        margins=_hist_margins,
        notes="the default: it bins every feature into at most 255 values while it trains",
    ),
    Learner(
        name="gradient-boosting",
        estimator=GradientBoostingClassifier,
        read=_read_plain,
        margins=_plain_margins,
        notes="slow on many rows; fails parity where it uses more than 255 thresholds of one feature",
    ),
)


def learner_of(estimator: Any) -> Learner:
    """The table's row for a fitted estimator."""
    for learner in LEARNERS:
        if type(estimator) is learner.estimator:
            return learner
    names = ", ".join(row.estimator.__name__ for row in LEARNERS)
    raise _unreadable(f"is not one that can be converted ({names})", type(estimator).__name__)


def read(estimator: Any) -> FloatForest:
    """The trees of a fitted estimator of the table."""
    return learner_of(estimator).read(estimator)


def float_margins(estimator: Any, rows: NDArray[np.float32]) -> F64:
    """(n, n_outputs) the learner's own margins, in float64."""
    return learner_of(estimator).margins(estimator, rows.astype(np.float64))


def help_text() -> str:
    """The table in words, a line a learner."""
    return "\n".join(f"{row.name}: {row.estimator.__name__}; {row.notes}" for row in LEARNERS)


def _unreadable(problem: str, what: str = "the learner") -> BundleError:
    return BundleError(BundleReason.PARITY, f"{what} {problem}")
