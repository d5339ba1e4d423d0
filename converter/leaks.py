"""How well each feature alone tells what it should (the class) and what it should not (the run, the recording).

A model that is judged by run can still lean on what its runs happen to share: an address drawn, a busy machine, a
rate that one run had. So, for each feature alone and before any training:

- class: the best AUC of one kind, or benign, against all other rows; and the mutual information with the class;
- run: within a class, the AUC of each run's rows against the rows of the class in the other runs. A feature is
  **flagged** when in some class that at least `MIN_RUNS` runs have, more than `FLAG_SHARE` of the runs are told so
  with an AUC above `FLAG_AUC`; or when that holds over all pairs of run and class;
- drift: the Kolmogorov-Smirnov distance of each run's rows from the others' within a class, its median and largest;
- recording: within a class, the best AUC of one plan against the others.

AUCs are folded: 0.5 tells nothing, 1 tells everything, whichever way it points. Edge rows are left out, as in
training; at most `MAX_ROWS` rows of a run and class are drawn, so that no run rules a class.

In: runs, a seed. Out: a `FeatureLeak` for each feature. Raises: nothing. Remembers nothing.
Source: Mann and Whitney (1947) for the AUC by ranks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
from scipy.stats import rankdata  # type: ignore[import-untyped]

from agent.features.ip import SCHEMA
from converter.datasets.matrix import KINDS, RunMatrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from agent.records import F32, I64, BoolArray

    F64 = NDArray[np.float64]

FLAG_AUC = 0.9
FLAG_SHARE = 0.2
MIN_RUNS = 5
"""Fewer runs of a class say nothing about a fifth of them."""
MIN_ROWS = 5
"""Of a run and class: with fewer, a perfect AUC is luck."""
MAX_ROWS = 200
"""Of a run and class."""
N_BINS = 32
"""Of a feature, for its mutual information with the class."""


class FeatureLeak(msgspec.Struct, frozen=True, kw_only=True):
    """What one feature tells by itself."""

    feature: str
    class_auc: float
    class_name: str
    """The class that it tells best."""
    class_bits: float
    """Mutual information with the class, in bits."""
    run_share: float
    """Share of all pairs of run and class that it tells with an AUC above `FLAG_AUC`."""
    worst_share: float
    """The same share within the class where it is largest."""
    worst_class: str
    flagged: bool
    flagged_classes: list[str]
    ks_median: float
    ks_max: float
    plan_auc: float
    plan_class: str


class _Sample(msgspec.Struct, frozen=True):
    """Rows drawn evenly from runs and classes."""

    values: F32
    kind: I64
    run: I64
    plan: I64


def feature_leaks(runs: Sequence[RunMatrix], *, seed: int) -> list[FeatureLeak]:
    """Every feature's figures, in the schema's order."""
    sample = _sample(runs, seed)
    classes = np.unique(sample.kind)
    parts = [np.flatnonzero(sample.kind == k) for k in classes]
    names = [KINDS[k] for k in classes]
    of_class = np.searchsorted(classes, sample.kind)
    return [
        _one_feature(feature.name, sample.values[:, i], sample, of_class, parts, names)
        for i, feature in enumerate(SCHEMA.features)
    ]


def folded_auc(ranks: F64, of_group: I64, n_groups: int) -> F64:
    """(n_groups,) AUC of each group against all others, folded to 0.5 and above; nan without any other."""
    n = np.bincount(of_group, minlength=n_groups).astype(np.float64)
    sums = np.bincount(of_group, weights=ranks, minlength=n_groups)
    pairs = n * (len(ranks) - n)
    with np.errstate(invalid="ignore", divide="ignore"):
        auc = (sums - n * (n + 1) / 2) / pairs
    return np.asarray(0.5 + np.abs(auc - 0.5), np.float64)


def ks_distances(values: F32, of_group: I64, n_groups: int) -> F64:
    """(n_groups,) largest gap between a group's distribution and that of all others."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    last = np.append(ordered[1:] != ordered[:-1], True)  # only where equal values end is it a step
    member = np.zeros((len(values), n_groups), np.float32)
    member[np.arange(len(values)), of_group[order]] = 1
    inside = np.cumsum(member, axis=0, dtype=np.float64)[last]
    total = inside[-1]
    up_to = np.flatnonzero(last)[:, None] + 1
    gap = np.abs(inside / total - (up_to - inside) / np.maximum(len(values) - total, 1))
    return np.asarray(gap.max(axis=0), np.float64)


def _sample(runs: Sequence[RunMatrix], seed: int) -> _Sample:
    random = np.random.default_rng(seed)
    plans = sorted({run.info.plan for run in runs})
    values, kinds, numbers, places = [], [], [], []
    for number, run in enumerate(runs):
        for kind in np.unique(run.kind[~run.edge]):
            rows = np.flatnonzero((run.kind == kind) & ~run.edge)
            if len(rows) > MAX_ROWS:
                rows = np.sort(random.choice(rows, MAX_ROWS, replace=False))
            values.append(run.matrix.values[rows])
            kinds.append(np.full(len(rows), kind, np.int64))
            numbers.append(np.full(len(rows), number, np.int64))
            places.append(np.full(len(rows), plans.index(run.info.plan), np.int64))
    return _Sample(
        np.concatenate(values),
        np.concatenate(kinds),
        np.concatenate(numbers),
        np.concatenate(places),
    )


def _one_feature(
    name: str,
    values: F32,
    sample: _Sample,
    of_class: I64,
    parts: Sequence[I64],
    names: Sequence[str],
) -> FeatureLeak:
    class_auc = folded_auc(rankdata(values), of_class, len(names))
    told: dict[str, tuple[int, int]] = {}
    distances: list[float] = []
    plans: dict[str, float] = {}
    for rows, class_name in zip(parts, names, strict=True):
        runs, of_run = np.unique(sample.run[rows], return_inverse=True)
        if len(runs) < MIN_RUNS:
            continue
        ranks = rankdata(values[rows])
        enough: BoolArray = np.bincount(of_run) >= MIN_ROWS
        auc = folded_auc(ranks, of_run, len(runs))
        told[class_name] = int(np.count_nonzero(auc[enough] > FLAG_AUC)), int(enough.sum())
        distances += ks_distances(values[rows], of_run, len(runs))[enough].tolist()
        distinct, of_plan = np.unique(sample.plan[rows], return_inverse=True)
        if len(distinct) > 1:
            plans[class_name] = float(folded_auc(ranks, of_plan, len(distinct)).max())
    shares = {kind: hits / n for kind, (hits, n) in told.items() if n >= MIN_RUNS}
    worst = max(shares, key=lambda kind: shares[kind], default="")
    n_pairs = sum(n for _, n in told.values())
    over_all = sum(hits for hits, _ in told.values()) / max(1, n_pairs)
    flagged = [kind for kind, share in shares.items() if share > FLAG_SHARE]
    best = int(np.argmax(class_auc))
    plan = max(plans, key=lambda kind: plans[kind], default="")
    return FeatureLeak(
        feature=name,
        class_auc=round(float(class_auc[best]), 4),
        class_name=names[best],
        class_bits=round(_bits(values, of_class), 4),
        run_share=round(over_all, 4),
        worst_share=round(shares.get(worst, 0.0), 4),
        worst_class=worst,
        flagged=bool(flagged) or over_all > FLAG_SHARE,
        flagged_classes=flagged,
        ks_median=round(float(np.median(distances)), 4) if distances else 0.0,
        ks_max=round(max(distances, default=0.0), 4),
        plan_auc=round(plans.get(plan, 0.5), 4),
        plan_class=plan,
    )


def _bits(values: F32, of_class: I64) -> float:
    """Mutual information of the feature, in bins of equal shares, and the class."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, N_BINS + 1)[1:-1]))
    bins = np.searchsorted(edges, values, side="left")
    table = np.zeros((len(edges) + 1, int(of_class.max()) + 1))
    np.add.at(table, (bins, of_class), 1)
    joint = table / table.sum()
    alone = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    met = joint > 0
    return float(np.sum(joint[met] * np.log2(joint[met] / alone[met])))
