"""Precision-recall and calibration of a model's rows, float and quantised side by side: points for plots.

The score of "hostile" is the sigmoid of the gate's margin; of a kind, that times its softmax share, as the detector
displays it. Edge rows are left out. It decides nothing: thresholds stand in the model.

In: a float model, its integers, runs. Out: plain lists for JSON. Raises: nothing of its own.
Source: Davis and Goadrich (2006) for precision-recall; average precision as scikit-learn defines it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, precision_recall_curve

from agent.score.integer_trees import IntegerScorer
from converter.datasets.matrix import KINDS, RunMatrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from agent.records import BoolArray
    from converter.work import FloatModel, QuantisedModel

    F64 = NDArray[np.float64]

N_POINTS = 60
N_BINS = 10
MARGIN_LIMIT = 50.0
"""Beyond this a sigmoid is 0 or 1 to the last digit that is shown."""


def curves(
    model: FloatModel, quantised: QuantisedModel, runs: Sequence[RunMatrix]
) -> dict[str, Any]:
    """For `float` and `quantised`: the gate's curves, and those of each kind that occurs."""
    kept = [~run.edge for run in runs]
    values = np.concatenate([run.matrix.values[k] for run, k in zip(runs, kept, strict=True)])
    kind = np.concatenate([run.kind[k] for run, k in zip(runs, kept, strict=True)])
    gate_trees, kinds_trees = (IntegerScorer(p.trees) for p in (quantised.gate, quantised.kinds))
    margins = {
        "float": (model.gate.margins(values)[:, 0], model.kinds.margins(values)),
        "quantised": (
            gate_trees.sums(values)[:, 0] * quantised.gate.scale,
            kinds_trees.sums(values) * quantised.kinds.scale,
        ),
    }
    result: dict[str, Any] = {}
    for side, (gate, kinds) in margins.items():
        hostile = _sigmoid(gate)
        share = _softmax(kinds)
        by_kind = {
            name: _precision_recall(kind == KINDS.index(name), hostile * share[:, column])
            for column, name in enumerate(model.kinds.classes)
            if column and np.any(kind == KINDS.index(name))
        }
        result[side] = {
            "hostile": _precision_recall(kind > 0, hostile),
            "calibration": _calibration(kind > 0, hostile),
            "by_kind": by_kind,
        }
    return result


def _precision_recall(wanted: BoolArray, score: F64) -> dict[str, Any]:
    """At most `N_POINTS` points, evenly spread over recall, and the average precision."""
    if not wanted.any():
        return {"recall": [], "precision": [], "average_precision": None}
    precision, recall, _ = precision_recall_curve(wanted, score)
    at = np.unique(np.searchsorted(-recall, -np.linspace(1, 0, N_POINTS)).clip(0, len(recall) - 1))
    return {
        "recall": np.round(recall[at], 4).tolist(),
        "precision": np.round(precision[at], 4).tolist(),
        "average_precision": round(float(average_precision_score(wanted, score)), 4),
    }


def _calibration(wanted: BoolArray, score: F64) -> dict[str, Any]:
    """Share of hostile rows against the mean score, in bins of equal width; with n a bin."""
    share, mean = calibration_curve(wanted, score, n_bins=N_BINS)
    n = np.histogram(score, np.linspace(0, 1, N_BINS + 1))[0]
    return {
        "mean_score": np.round(mean, 4).tolist(),
        "hostile_share": np.round(share, 4).tolist(),
        "rows": n[n > 0].tolist(),
        "brier": round(float(np.mean((score - wanted) ** 2)), 6),
    }


def _sigmoid(margin: NDArray[Any]) -> F64:
    return np.asarray(1 / (1 + np.exp(-np.clip(margin, -MARGIN_LIMIT, MARGIN_LIMIT))), np.float64)


def _softmax(margins: NDArray[Any]) -> F64:
    odds = np.exp(margins - margins.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True), np.float64)
