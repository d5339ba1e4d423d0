"""Trains the gate and the kinds on labelled matrices: the step `train`.

Split by run, always: rows of one run are never on both sides. Runs of the test plans are not looked at. Of the
others, each fifth of the runs is predicted by a model that has not seen it; these out-of-fold margins choose the
number of trees, the gate's threshold and the kinds' lead. Then both are fitted once more on all of them. Edge rows
are left out. The same matrices and settings give the same trees.

- gate: hostile or not, on every row. Threshold: the lowest margin at which at most `max_false_rate` of the
  out-of-fold benign rows are flagged.
- kinds: benign and each kind, on hostile rows and on the benign rows that the gate finds hardest, so that it can take
  back what the gate flags wrongly. Lead: the lowest at which at most `max_false_rate_kinds` benign rows remain.

In: `RunMatrix`es, `Settings`. Out: `FloatModel`. Raises: `DatasetError` where there is too little to train on.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from agent import __version__
from agent.features.ip import SCHEMA
from converter.dataset import is_held_out
from converter.datasets.labels import DatasetError
from converter.datasets.matrix import KINDS, RunMatrix
from converter.estimators import float_margins, read
from converter.export import estimator_bytes
from converter.forests import FloatForest
from converter.leaks_report import leak_report, leak_summary, leak_words, read_reasons
from converter.learners import Settings, fit, folds_of, learner, training_values
from converter.work import FloatModel, TrainRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from agent.records import F32, I64, BoolArray

TOOLS = ("scikit-learn", "skl2onnx", "onnx", "onnxruntime", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows that training may see."""

    values: NDArray[np.float64]
    kind: I64
    weight: NDArray[np.float64]
    fold: I64
    fitted: BoolArray
    """(n,) rows that a model may be fitted on; the others are judged only."""


def train(
    runs: Sequence[RunMatrix], settings: Settings, *, data_digest: str, tell: Callable[[str], None]
) -> FloatModel:
    """Gate and kinds for the runs that are not of a test plan."""
    # One thread: the order of float sums is then the same on every machine, and so are the trees.
    with threadpool_limits(1):
        seen = [run for run in runs if not is_held_out(run.info.plan, settings.test_plans)]
        require_enough(seen, settings)
        leaks = leak_report(seen, settings, read_reasons())
        for line in leak_words(leaks):
            tell(f"leaks: {line}")
        data = _data(runs, seen, settings, data_digest) | {"leaks": leak_summary(leaks)}
        return train_on(seen, settings, data=data, tell=tell)


def train_gate(
    runs: Sequence[RunMatrix], settings: Settings, max_false_rate: float
) -> tuple[FloatForest, float]:
    """The gate alone, and the margin that at most `max_false_rate` of the out-of-fold benign rows reach."""
    require_enough(runs, settings)
    with threadpool_limits(1):
        rows = _rows(runs, settings)
        hostile = (rows.kind > 0).astype(np.int64)
        margins, n_gate = _out_of_fold(
            rows, hostile, settings, settings.max_iter_gate, lambda _: None
        )
        fitted = _subset(rows, rows.fitted)
        gate = fit(fitted.values, hostile[rows.fitted], fitted.weight, settings, n_gate)
        return read(gate), lowest_cut(margins[hostile == 0, 0], max_false_rate)


def train_on(
    runs: Sequence[RunMatrix],
    settings: Settings,
    *,
    data: dict[str, Any],
    tell: Callable[[str], None],
) -> FloatModel:
    """Gate and kinds for all of these runs; `data` goes into the record as it is."""
    require_enough(runs, settings)
    rows = _rows(runs, settings)
    hostile = (rows.kind > 0).astype(np.int64)
    tell(f"gate: {len(hostile)} rows, {int(hostile.sum())} hostile, {settings.n_folds} folds")
    margins, n_gate = _out_of_fold(rows, hostile, settings, settings.max_iter_gate, tell)
    threshold = lowest_cut(margins[hostile == 0, 0], settings.max_false_rate)
    fitted = _subset(rows, rows.fitted)
    gate = fit(fitted.values, hostile[rows.fitted], fitted.weight, settings, n_gate)

    classes = present_kinds(rows.kind)
    hard = _hardest(margins[:, 0], hostile, settings)
    kind_rows = _subset(rows, hard, fit_all=True)
    labels = np.searchsorted(classes, kind_rows.kind)
    tell(f"kinds: {len(labels)} rows, {len(classes)} classes")
    kind_margins, n_kinds = _out_of_fold(kind_rows, labels, settings, settings.max_iter_kinds, tell)
    lead = _lead(kind_margins, labels, margins[hard, 0] >= threshold, hostile, settings)
    confidence = _score_p30(margins[hard, 0], kind_margins, labels)
    kinds = fit(kind_rows.values, labels, kind_rows.weight, settings, n_kinds)
    tell(
        f"gate: {n_gate} trees, flagged from {threshold:.3f}; kinds: {n_kinds} rounds, lead {lead:.3f}"
    )

    forest = read(kinds)
    values32 = rows.values.astype(np.float32)
    return FloatModel(
        gate=read(gate),
        kinds=FloatForest(
            trees=forest.trees,
            base=forest.base,
            n_features=forest.n_features,
            classes=tuple(KINDS[c] for c in classes),
        ),
        benign_median=np.median(values32[hostile == 0], axis=0).astype(np.float32),
        golden_rows=_golden(values32, rows.kind, settings.seed),
        gate_graph=estimator_bytes(gate),
        kinds_graph=estimator_bytes(kinds),
        record=TrainRecord(
            schema_id=SCHEMA.id,
            schema_digest=SCHEMA.digest,
            gate_threshold=threshold,
            kinds_lead=lead,
            score_p30=confidence,
            data=data,
            split=(
                f"by run: plans named {', '.join(settings.test_plans)}... held out; thresholds and numbers of trees "
                f"from out-of-fold rows, {settings.n_folds} folds of whole runs"
            ),
            settings={**msgspec.to_builtins(settings), "n_gate": n_gate, "n_kinds": n_kinds},
            tools={
                **{name: version(name) for name in TOOLS},
                "wardwatch": __version__,
                "python": platform.python_version(),
            },
        ),
    )


def lowest_cut(benign: NDArray[np.float64], max_rate: float) -> float:
    """The lowest threshold that at most `max_rate` of the benign margins reach: just above the first that may not."""
    ordered = np.sort(benign)[::-1]
    allowed = int(max_rate * len(ordered))
    return float(np.nextafter(ordered[min(allowed, len(ordered) - 1)], np.inf))


def present_kinds(kind: I64) -> I64:
    """Class numbers that occur, benign first."""
    return np.unique(np.append(kind, 0))


def require_enough(runs: Sequence[RunMatrix], settings: Settings) -> None:
    """Refuse runs that no fold could be made of."""
    if len(runs) < settings.n_folds or not any((run.kind > 0).any() for run in runs):
        raise DatasetError(
            f"{len(runs)} runs to train on, {settings.n_folds} with attacks among them are the least: record more"
        )


def _rows(runs: Sequence[RunMatrix], settings: Settings) -> Rows:
    """All rows but edge; features to ignore are constant, so no tree asks about them."""
    kept = [~run.edge for run in runs]
    values = training_values(
        [run.matrix.values[k] for run, k in zip(runs, kept, strict=True)], settings
    )
    kind = np.concatenate([run.kind[k] for run, k in zip(runs, kept, strict=True)]).astype(np.int64)
    weight = np.concatenate([_weights(run)[k] for run, k in zip(runs, kept, strict=True)])
    folds = folds_of(runs, settings.seed, settings.n_folds)
    fold = np.concatenate([np.full(int(k.sum()), f) for k, f in zip(kept, folds, strict=True)])
    for k in present_kinds(kind)[1:]:  # every kind weighs as much as the benign rows' fifth part
        weight[kind == k] *= 0.2 * np.count_nonzero(kind == 0) / weight[kind == k].sum()
    benign = np.flatnonzero(kind == 0)
    fitted = np.ones(len(kind), np.bool_)
    if len(benign) > settings.max_benign_fitted:
        random = np.random.default_rng(settings.seed)
        left = random.choice(benign, len(benign) - settings.max_benign_fitted, replace=False)
        fitted[left] = False
        weight[benign] *= len(benign) / settings.max_benign_fitted
    return Rows(values=values, kind=kind, weight=weight, fold=fold, fitted=fitted)


def _weights(run: RunMatrix) -> NDArray[np.float64]:
    """(n,) 1 for benign rows; an episode's rows weigh the root of their number together: long ones do not rule."""
    weight = np.ones(len(run))
    for number in range(len(run.info.episodes)):
        at = run.episode == number
        weight[at] = 1 / np.sqrt(max(1, int(np.count_nonzero(at))))
    return np.asarray(weight, np.float64)


def _out_of_fold(
    rows: Rows, labels: I64, settings: Settings, max_iter: int, tell: Callable[[str], None]
) -> tuple[NDArray[np.float64], int]:
    """Each row's margins by a model that has not seen its run, and the median number of rounds."""
    n_outputs = 1 if labels.max() == 1 else int(labels.max()) + 1
    margins = np.zeros((len(labels), n_outputs))
    rounds = []
    for fold in range(settings.n_folds):
        out = rows.fold == fold
        used = ~out & rows.fitted
        chosen = learner(settings, max_iter, patience=settings.patience)
        # A kind of this fold's runs alone has no class to be in.
        judged = out & rows.fitted & np.isin(labels, labels[used])
        chosen.fit(
            rows.values[used],
            labels[used],
            sample_weight=rows.weight[used],
            X_val=rows.values[judged],
            y_val=labels[judged],
            sample_weight_val=rows.weight[judged],
        )
        found = float_margins(chosen, rows.values[out].astype(np.float32))
        columns = [0] if n_outputs == 1 else chosen.classes_.astype(np.int64)
        part = np.full((int(out.sum()), n_outputs), -np.inf if n_outputs > 1 else 0.0)
        part[:, columns] = found
        margins[out] = part
        rounds.append(int(chosen.n_iter_))
        tell(f"  fold {fold}: {rounds[-1]} rounds")
    return margins, int(np.median(rounds))


def _hardest(margins: NDArray[np.float64], hostile: I64, settings: Settings) -> BoolArray:
    """Hostile rows, and the benign rows that look most hostile."""
    benign = margins[hostile == 0]
    share = min(settings.hard_benign_share, settings.max_hard_benign / max(1, len(benign)))
    cut = np.quantile(benign, 1 - share)
    return np.asarray((hostile == 1) | (margins >= cut), np.bool_)


def _lead(
    margins: NDArray[np.float64], labels: I64, flagged: BoolArray, hostile: I64, settings: Settings
) -> float:
    """The lowest lead, 0 or above, at which few enough of all benign rows are reported."""
    lead = margins[:, 1:].max(axis=1) - margins[:, 0]
    wrong = np.sort(lead[flagged & (labels == 0)])[::-1]
    allowed = int(settings.max_false_rate_kinds * np.count_nonzero(hostile == 0))
    if len(wrong) <= allowed:
        return 0.0
    return max(0.0, float(np.nextafter(wrong[allowed], np.inf)))


def _score_p30(gate: NDArray[np.float64], kinds: NDArray[np.float64], labels: I64) -> float:
    """The displayed score that 30 % of the rightly named hostile rows stay below, out of fold."""
    right = (labels > 0) & (np.argmax(kinds, axis=1) == labels)
    odds = np.exp(kinds[right] - kinds[right].max(axis=1, keepdims=True))
    share = odds.max(axis=1) / odds.sum(axis=1)
    return round(float(np.quantile(share / (1 + np.exp(-gate[right])), 0.3)), 4)


def _subset(rows: Rows, mask: BoolArray, *, fit_all: bool = False) -> Rows:
    # With `fit_all` each benign row stands for itself.
    return Rows(
        values=rows.values[mask],
        kind=rows.kind[mask],
        weight=np.where(rows.kind == 0, 1.0, rows.weight)[mask] if fit_all else rows.weight[mask],
        fold=rows.fold[mask],
        fitted=np.ones(int(mask.sum()), np.bool_) if fit_all else rows.fitted[mask],
    )


def _golden(values: F32, kind: I64, seed: int) -> F32:
    """Up to 24 rows of each kind and of benign, in the order in which they stand."""
    random = np.random.default_rng(seed)
    chosen: list[int] = []
    for k in present_kinds(kind):
        at = np.flatnonzero(kind == k)
        chosen += random.choice(at, min(24, len(at)), replace=False).tolist()
    return np.ascontiguousarray(values[np.sort(np.array(chosen))])


def _data(
    runs: Sequence[RunMatrix], seen: Sequence[RunMatrix], settings: Settings, digest: str
) -> dict[str, Any]:
    """Counts and digests for the manifest."""
    held_out = [run for run in runs if is_held_out(run.info.plan, settings.test_plans)]
    counts = {
        name: int(sum(np.count_nonzero((run.kind == k) & ~run.edge) for run in seen))
        for k, name in enumerate(KINDS)
    }
    return {
        "matrices_sha256_16": digest,
        "runs": len(seen),
        "runs_held_out": len(held_out),
        "rows": sum(len(run) for run in seen),
        "rows_edge": int(sum(run.edge.sum() for run in seen)),
        "frames": sum(run.info.frames for run in seen),
        "episodes": sum(len(run.info.episodes) for run in seen),
        "variants": sorted({e.variant for run in seen for e in run.info.episodes}),
        "rows_by_kind": {name: n for name, n in counts.items() if n},
        "captures": {run.info.run: run.info.capture_sha256[:16] for run in runs},
    }
