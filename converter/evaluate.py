"""Judges a model on runs that it never saw: the step `evaluate`.

First what a ward notices, through the agent's own detector and alert policy (`episodes` says when an episode is
found and a finding false): episodes found, the time to the first finding, false findings for a gateway-day. Then
rows: of variants that training has seen, of new ones, ward by ward. Float and quantised side by side, each rate
with n and interval.

In: a float model, its integers, runs. Out: plain figures for JSON and the report. Raises: nothing of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.features.ip import SCHEMA
from agent.records import Detector
from agent.score.boosting import BoostingDetector
from agent.score.rules import RulesDetector
from converter.curves import curves
from converter.datasets.matrix import GROUPS, KINDS, RunMatrix
from converter.episodes import DAY_S, GROUP_OF, PACES, EpisodeFound, run_findings
from converter.figures import (
    bootstrap_macro_f1,
    confusion,
    f1_by_class,
    macro_f1,
    poisson,
    quantile_with_misses,
    wilson,
)
from converter.in_memory import float_bundle, quantised_bundle

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.score.bundle import Bundle
    from converter.work import FloatModel, QuantisedModel


def evaluate(
    model: FloatModel, quantised: QuantisedModel, runs: Sequence[RunMatrix], *, seed: int
) -> dict[str, Any]:
    """All figures on `runs`: `float`, `quantised`, and `with_rules` (findings only)."""
    bundles = {
        "float": float_bundle(model, quantised),
        "quantised": quantised_bundle(model, quantised),
    }
    labels = {
        "float": _labels(model.predict, model.kinds.classes, runs),
        "quantised": _labels(quantised.predict, model.kinds.classes, runs),
    }
    variants = set(model.record.data["variants"])
    result: dict[str, Any] = {
        "runs": len(runs),
        "hours": round(sum(run.info.duration_s for run in runs) / 3600, 3),
        "label_agreement": _agreement(labels["float"], labels["quantised"]),
    }
    for name, bundle in bundles.items():
        result[name] = findings_figures(runs, [_detect(bundle)] * len(runs)) | row_figures(
            runs, labels[name], variants, seed=seed
        )
    result["curves"] = curves(model, quantised, runs)
    both = [_detect(bundles["quantised"], RulesDetector(SCHEMA))] * len(runs)
    result["with_rules"] = findings_figures(runs, both)
    result["rules"] = findings_figures(runs, [[RulesDetector(SCHEMA)]] * len(runs))
    return result


def summary(figures: dict[str, Any]) -> dict[str, Any]:
    """The few figures that a manifest carries."""
    names = (
        "episodes",
        "episodes_found",
        "episodes_named",
        "false_findings",
        "false_findings_above_low",
        "misnamed_findings",
        "macro_f1",
        "macro_f1_trained_variants",
        "macro_f1_new_variants",
        "macro_f1_groups",
        "false_row_rate",
        "hostile_row_recall",
    )
    return {
        "runs": figures["runs"],
        "hours": figures["hours"],
        "label_agreement": figures["label_agreement"],
        "float": {name: figures["float"][name] for name in names},
        "quantised": {name: figures["quantised"][name] for name in names},
    }


def findings_figures(
    runs: Sequence[RunMatrix], detectors: Sequence[Sequence[Detector]]
) -> dict[str, Any]:
    """Episodes found and findings that should not be, over all runs."""
    parts = [run_findings(run, each) for run, each in zip(runs, detectors, strict=True)]
    found = [item for part in parts for item in part.episodes]
    days = sum(run.info.duration_s for run in runs) / DAY_S
    false = [name for part in parts for name in part.false]
    n_above_low = sum(part.n_false_above_low for part in parts)
    times = [item.seconds for item in found if item.seconds is not None]
    return {
        "episodes": len(found),
        "episodes_found": sum(item.found for item in found),
        "episodes_found_interval": _rounded(wilson(sum(i.found for i in found), len(found))),
        "episodes_named": sum(item.named for item in found),
        "findings": sum(part.n_findings for part in parts),
        "false_findings": len(false),
        **_a_day("false_findings", len(false), days),
        "false_findings_above_low": n_above_low,
        **_a_day("false_findings_above_low", n_above_low, days),
        "false_finding_kinds": _counted(false),
        "misnamed_findings": sum(len(part.misnamed) for part in parts),
        "misnamed_findings_of_another_group": sum(part.n_misnamed_group for part in parts),
        "misnamed_finding_kinds": _counted([n for part in parts for n in part.misnamed]),
        "seconds_to_finding_median": round(float(np.median(times)), 2) if times else None,
        "seconds_to_finding_p95": round(float(np.quantile(times, 0.95)), 2) if times else None,
        "by_kind": _found_by(found, lambda i: i.kind, KINDS[1:]),
        "by_variant": _found_by(
            found,
            lambda i: f"{i.kind}/{i.variant}",
            sorted({f"{i.kind}/{i.variant}" for i in found}),
        ),
        "by_pace": _by_pace(found),
    }


def _found_by(
    found: Sequence[EpisodeFound], key: Callable[[EpisodeFound], str], names: Sequence[str]
) -> dict[str, Any]:
    """Episodes found for each value of `key`, in the order of `names`; those without an episode are left out."""
    table = {}
    for name in names:
        of_name = [item for item in found if key(item) == name]
        if not of_name:
            continue
        hits = sum(item.found for item in of_name)
        seconds = [item.seconds for item in of_name]
        table[name] = {
            "episodes": len(of_name),
            "found": hits,
            "interval": _rounded(wilson(hits, len(of_name))),
            "named": sum(item.named for item in of_name),
            "seconds_p50": quantile_with_misses(seconds, 0.5),
            "seconds_p95": quantile_with_misses(seconds, 0.95),
            "missed_variants": sorted({item.variant for item in of_name if not item.found}),
        }
    return table


def _by_pace(found: Sequence[EpisodeFound]) -> list[dict[str, Any]]:
    """Times to the first finding by class of speed; a miss counts as never."""
    rows = []
    for pace in PACES:
        of_pace = [item for item in found if item.pace == pace.name]
        if not of_pace:
            continue
        at_all = [item.seconds for item in of_pace]
        at_medium = [item.seconds_medium for item in of_pace]
        row: dict[str, Any] = {
            "pace": pace.name,
            "episodes": len(of_pace),
            "found": sum(item.found for item in of_pace),
            "bar_s": pace.bar_s,
            "bar_medium_s": pace.bar_medium_s,
        }
        for name, seconds in (("seconds", at_all), ("seconds_medium", at_medium)):
            row |= {f"{name}_p50": quantile_with_misses(seconds, 0.5)}
            row |= {f"{name}_p95": quantile_with_misses(seconds, 0.95)}
            row |= {f"{name}_p95_of_found": quantile_with_misses([s for s in seconds if s], 0.95)}
        rows.append(row)
    return rows


def _a_day(name: str, count: int, days: float) -> dict[str, Any]:
    """A count for a gateway-day, with its Poisson interval."""
    low, high = poisson(count)
    return {
        f"{name}_a_day": round(count / days, 2),
        f"{name}_a_day_interval": [round(low / days, 2), round(high / days, 2)],
    }


def row_figures(
    runs: Sequence[RunMatrix],
    labels: Sequence[NDArray[np.int64]],
    variants: set[str],
    *,
    seed: int,
) -> dict[str, Any]:
    """Row metrics, edge rows left out and reported apart; also of the trained `variants` and of new ones alone."""
    tables: list[NDArray[np.int64]] = []
    trained: list[NDArray[np.int64]] = []
    new: list[NDArray[np.int64]] = []
    edge_flagged = edge_rows = 0
    for run, found in zip(runs, labels, strict=True):
        is_new = np.array([e.variant not in variants for e in run.info.episodes] + [False])
        for into, kept in (
            (tables, ~run.edge),
            (trained, ~run.edge & ~is_new[run.episode]),  # episode -1 is the last one: benign
            (new, ~run.edge & (is_new[run.episode] | (run.kind == 0))),
        ):
            into.append(confusion(run.kind[kept].astype(np.int64), found[kept], len(KINDS)))
        edge_rows += int(run.edge.sum())
        edge_flagged += int(np.count_nonzero(found[run.edge]))
    table = np.sum(tables, axis=0)
    f1 = f1_by_class(table)
    n_benign, n_false = int(table[0].sum()), int(table[0, 1:].sum())
    n_hostile, n_seen = int(table[1:].sum()), int(table[1:, 1:].sum())
    by_kind = {
        KINDS[k]: {
            "rows": int(table[k].sum()),
            "f1": round(float(f1[k]), 4),
            "recall": round(float(table[k, k] / table[k].sum()), 4),
            "recall_interval": _rounded(wilson(int(table[k, k]), int(table[k].sum()))),
            "precision": round(float(table[k, k] / max(1, table[:, k].sum())), 4),
            "precision_interval": _rounded(wilson(int(table[k, k]), int(table[:, k].sum()))),
        }
        for k in range(1, len(KINDS))
        if table[k].sum()
    }
    return {
        "rows": int(table.sum()),
        "macro_f1": round(macro_f1(table), 6),
        "macro_f1_interval": _rounded(bootstrap_macro_f1(tables, seed=seed)),
        "macro_f1_trained_variants": round(macro_f1(np.sum(trained, axis=0)), 6),
        "macro_f1_trained_variants_interval": _rounded(bootstrap_macro_f1(trained, seed=seed)),
        "macro_f1_new_variants": round(macro_f1(np.sum(new, axis=0)), 6),
        "macro_f1_new_variants_interval": _rounded(bootstrap_macro_f1(new, seed=seed)),
        **_group_figures(tables, trained, new, seed=seed),
        "macro_f1_by_ward": _by_ward(runs, tables),
        "benign_rows": n_benign,
        "false_row_rate": round(n_false / max(1, n_benign), 8),
        "false_row_rate_interval": _rounded(wilson(n_false, n_benign), 7),
        "hostile_rows": n_hostile,
        "hostile_row_recall": round(n_seen / max(1, n_hostile), 6),
        "hostile_row_recall_interval": _rounded(wilson(n_seen, n_hostile)),
        "edge_rows": edge_rows,
        "edge_rows_flagged": edge_flagged,
        "rows_by_kind": by_kind,
        "confusion": table.tolist(),
    }


def _group_figures(
    tables: Sequence[NDArray[np.int64]],
    trained: Sequence[NDArray[np.int64]],
    new: Sequence[NDArray[np.int64]],
    *,
    seed: int,
) -> dict[str, Any]:
    """Macro-F1 over the five groups, benign among them: over all rows, of trained variants, of new ones."""
    result: dict[str, Any] = {}
    for name, parts in (("", tables), ("_trained_variants", trained), ("_new_variants", new)):
        grouped = [_by_group(part) for part in parts]
        value = macro_f1(np.sum(grouped, axis=0), first=0)
        interval = bootstrap_macro_f1(grouped, seed=seed, first=0)
        result[f"macro_f1_groups{name}"] = round(value, 6)
        result[f"macro_f1_groups{name}_interval"] = _rounded(interval)
    return result


def _by_ward(
    runs: Sequence[RunMatrix], tables: Sequence[NDArray[np.int64]]
) -> dict[str, dict[str, float]]:
    """Each held-out run is a ward of its own: macro-F1 over the kinds that it met, and over its groups."""
    return {
        run.info.run: {
            "kinds": round(macro_f1(table), 4),
            "groups": round(macro_f1(_by_group(table), first=0), 4),
        }
        for run, table in zip(runs, tables, strict=True)
        if table[1:].sum()
    }


def _by_group(table: NDArray[np.int64]) -> NDArray[np.int64]:
    """A confusion of the five groups, benign first, from one of kinds."""
    names = list(GROUPS)
    place = np.array([0, *(1 + names.index(GROUP_OF[kind]) for kind in KINDS[1:])])
    summed = np.zeros((len(names) + 1, len(names) + 1), np.int64)
    np.add.at(summed, (place[:, None], place[None, :]), table)
    return summed


def _detect(bundle: Bundle, *others: Detector) -> list[Detector]:
    return [*others, BoostingDetector(bundle, max_explained=0)]


def _labels(
    predict: Any, classes: Sequence[str], runs: Sequence[RunMatrix]
) -> list[NDArray[np.int64]]:
    """For each run (n,) places in `KINDS`."""
    place = np.array([KINDS.index(name) for name in classes], np.int64)
    return [place[predict(run.matrix.values)] for run in runs]


def _agreement(first: Sequence[NDArray[np.int64]], second: Sequence[NDArray[np.int64]]) -> float:
    same = sum(int(np.count_nonzero(a == b)) for a, b in zip(first, second, strict=True))
    return round(same / max(1, sum(map(len, first))), 8)


def _counted(names: list[str]) -> dict[str, int]:
    return {name: names.count(name) for name in sorted(set(names))}


def _rounded(interval: tuple[float, float], digits: int = 4) -> list[float]:
    return [round(value, digits) for value in interval]
