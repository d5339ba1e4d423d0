"""The control that must fail: labels permuted between runs, then the same training by run, with a small model.

Every run keeps its rows and gets the labels of another run, turned by a random number of rows. Nothing that a row
says can then tell its label, so a model that is judged on runs which it has not seen must come out at chance: AUC
0.5, and the macro-F1 that guessing with the same frequencies would have. If it does not, rows of one run stand on
both sides of the split, or a label has got among the features.

In: runs, `Settings`. Out: `Control`. Raises: nothing of its own. Remembers nothing.
Source: permutation tests by blocks (Good, 2005): the exchangeable unit is the run, so labels move by runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
from scipy.stats import rankdata  # type: ignore[import-untyped]
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from converter.datasets.matrix import KINDS, RunMatrix
from converter.figures import confusion, macro_f1
from converter.learners import fit, folds_of, training_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from agent.records import I64, BoolArray
    from converter.learners import Settings

    F64 = NDArray[np.float64]

N_FOLDS = 3
N_ROUNDS = 10
MAX_BENIGN = 100
"""Benign rows of a run: the control has to be cheap, for it runs before every training."""
N_DRAWS = 200


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """What the permuted labels gave; intervals are 95 %, whole runs drawn anew."""

    auc: float
    auc_interval: tuple[float, float]
    macro_f1: float
    macro_f1_chance: float
    """What guessing with the same frequencies would have."""
    macro_f1_gain_interval: tuple[float, float]
    """Of the difference to chance."""
    rows: int
    runs: int

    @property
    def at_chance(self) -> bool:
        """Whether neither figure is above chance with its whole interval."""
        return self.auc_interval[0] <= 0.5 and self.macro_f1_gain_interval[0] <= 0.0


def control(runs: Sequence[RunMatrix], settings: Settings) -> Control:
    """Permute the labels between runs, train on some runs, judge on the others."""
    random = np.random.default_rng(settings.seed)
    attacked = [run for run in runs if np.any(run.kind[~run.edge] > 0)]
    kept = [_some_rows(run, random) for run in attacked]
    order = np.roll(random.permutation(len(attacked)), 1)
    first = random.permutation(len(attacked))
    labels: list[I64] = [np.empty(0, np.int64)] * len(attacked)
    for to, start in zip(first, order, strict=True):  # every run gets another's: a cycle
        given = attacked[start].kind[kept[start]].astype(np.int64)
        turned = np.roll(given, int(random.integers(len(given))))
        labels[to] = np.resize(turned, len(kept[to]))
    values = training_values(
        [r.matrix.values[k] for r, k in zip(attacked, kept, strict=True)], settings
    )
    run_of = np.repeat(np.arange(len(attacked)), [len(k) for k in kept])
    fold = np.array(folds_of(attacked, settings.seed, N_FOLDS))[run_of]
    return judged(values, np.concatenate(labels), run_of, fold, settings)


def judged(values: F64, labels: I64, run_of: I64, fold: I64, settings: Settings) -> Control:
    """The control's figures for given labels and folds."""
    share = np.zeros((len(labels), len(KINDS)))
    for number in np.unique(fold).tolist():
        out = fold == number
        with threadpool_limits(1):  # the same sums on every machine, and no waiting for a busy one
            learner = fit(values[~out], labels[~out], _balanced(labels[~out]), settings, N_ROUNDS)
            told = learner.predict_proba(values[out])
        share[np.ix_(out, learner.classes_.astype(np.int64))] = told
    found, hostile = np.argmax(share, axis=1), 1 - share[:, 0]
    # Folds guess from different starts: ranks within a fold are what may be compared.
    for number in np.unique(fold).tolist():
        out = np.flatnonzero(fold == number)
        hostile[out] = np.argsort(np.argsort(hostile[out], kind="stable")) / len(out)
    runs = [np.flatnonzero(run_of == r) for r in range(int(run_of.max()) + 1)]
    tables = np.stack([confusion(labels[rows], found[rows], len(KINDS)) for rows in runs])
    random = np.random.default_rng(settings.seed)
    aucs, gains = [], []
    for _ in range(N_DRAWS):
        drawn = random.integers(0, len(runs), len(runs))
        rows = np.concatenate([runs[r] for r in drawn])
        aucs.append(_auc(labels[rows] > 0, hostile[rows]))
        table = tables[drawn].sum(axis=0)
        gains.append(macro_f1(table) - chance_f1(table))
    total = tables.sum(axis=0)
    return Control(
        auc=round(_auc(labels > 0, hostile), 4),
        auc_interval=_interval(aucs),
        macro_f1=round(macro_f1(total), 4),
        macro_f1_chance=round(chance_f1(total), 4),
        macro_f1_gain_interval=_interval(gains),
        rows=len(labels),
        runs=len(runs),
    )


def chance_f1(table: NDArray[np.int64]) -> float:
    """Macro-F1 over the kinds of guesses as frequent as the table's, made without looking at the row."""
    n = table.sum()
    wanted, found = table.sum(axis=1)[1:], table.sum(axis=0)[1:]
    met = wanted > 0
    f1 = 2 * wanted * found / n / np.maximum(wanted + found, 1)
    return float(f1[met].mean()) if met.any() else 0.0


def _auc(wanted: BoolArray, score: F64) -> float:
    """Area under the curve by ranks; 0.5 where only one class was drawn."""
    n = int(np.count_nonzero(wanted))
    pairs = n * (len(wanted) - n)
    if not pairs:
        return 0.5
    return float((rankdata(score)[wanted].sum() - n * (n + 1) / 2) / pairs)


def _some_rows(run: RunMatrix, random: np.random.Generator) -> I64:
    """All hostile rows of a run and some benign ones, in their order; never an edge row."""
    benign = np.flatnonzero((run.kind == 0) & ~run.edge)
    if len(benign) > MAX_BENIGN:
        benign = random.choice(benign, MAX_BENIGN, replace=False)
    return np.sort(np.concatenate([benign, np.flatnonzero((run.kind > 0) & ~run.edge)]))


def _balanced(labels: I64) -> F64:
    """Weights by which every class counts alike: else a small model says benign to everything."""
    counts = np.bincount(labels)
    return np.asarray(len(labels) / counts[labels] / np.count_nonzero(counts), np.float64)


def _interval(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.quantile(values, (0.025, 0.975))
    return round(float(low), 4), round(float(high), 4)
