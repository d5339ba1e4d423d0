"""What every training of ours shares: its settings, the values that it may see, the folds of runs, one learner.

It fits what it is told to and judges nothing. The same rows and settings give the same trees.

In: settings, rows. Out: fitted scikit-learn estimators, folds. Raises: nothing of its own. Remembers nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier

from agent.features.ip import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from agent.records import F32, I64
    from converter.datasets.matrix import RunMatrix

    F64 = NDArray[np.float64]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that training can be told; all of it stands in the manifest."""

    seed: int = 20261122
    n_folds: int = 5
    test_plans: tuple[str, ...] = ("heldout",)
    """Runs of plans whose names begin so are for `evaluate` only."""
    ignored: tuple[str, ...] = ("_gap_", "_active_60s")
    """Features with one of these in their name are withheld: how busy the recording machine was shows in gaps, and
    how long ago a recording began in active slices."""
    learning_rate: float = 0.1
    max_leaf_nodes: int = 12
    min_samples_leaf: int = 8
    """Few: some variants have no more rows than this in a fold."""
    l2_regularization: float = 3.0
    max_features: float = 0.25
    """Share of the features that each split may choose from: no single one carries a kind."""
    max_bins: int = 127
    max_iter_gate: int = 200
    max_iter_kinds: int = 70
    patience: int = 12
    """Rounds without a better log loss on the fold's own runs before it stops."""
    max_false_rate: float = 2e-3
    max_false_rate_kinds: float = 2e-5
    hard_benign_share: float = 0.25
    """Of the benign rows, those with the highest out-of-fold margin; the kinds are trained on these."""
    max_hard_benign: int = 20_000
    """At most so many of them, whatever the share."""
    max_benign_fitted: int = 60_000
    """Benign rows that a gate is fitted on, drawn evenly and weighted for the rest; all of them are judged."""


def is_withheld(feature: str, settings: Settings) -> bool:
    """Whether training may not see a feature."""
    return any(name in feature for name in settings.ignored)


def training_values(parts: Sequence[F32], settings: Settings) -> F64:
    """Rows one after the other in float64; withheld features are constant, so no tree asks about them."""
    values = np.concatenate(list(parts)).astype(np.float64)
    values[:, [i for i, f in enumerate(SCHEMA.features) if is_withheld(f.name, settings)]] = 0
    return values


def folds_of(runs: Sequence[RunMatrix], seed: int, n_folds: int) -> list[int]:
    """A fold for each run: benign runs and attacked ones dealt out in turn, in an order drawn from the seed."""
    order = np.random.default_rng(seed).permutation(len(runs))
    attacked = [i for i in order if (runs[i].kind > 0).any()]
    quiet = [i for i in order if not (runs[i].kind > 0).any()]
    fold = [0] * len(runs)
    for place, i in enumerate([*attacked, *quiet]):
        fold[i] = place % n_folds
    return fold


def fit(values: F64, labels: I64, weight: F64, settings: Settings, n_iter: int) -> Any:
    """A learner of `n_iter` rounds, fitted."""
    chosen = learner(settings, n_iter, patience=None)
    chosen.fit(values, labels, sample_weight=weight)
    return chosen


def learner(settings: Settings, max_iter: int, *, patience: int | None) -> Any:
    """An unfitted learner; with `patience` it stops by the validation rows that it is handed."""
    return HistGradientBoostingClassifier(
        learning_rate=settings.learning_rate,
        max_iter=max_iter,
        max_leaf_nodes=settings.max_leaf_nodes,
        min_samples_leaf=settings.min_samples_leaf,
        l2_regularization=settings.l2_regularization,
        max_features=settings.max_features,
        max_bins=settings.max_bins,
        early_stopping=patience is not None,
        n_iter_no_change=patience or 10,
        random_state=settings.seed,
    )
