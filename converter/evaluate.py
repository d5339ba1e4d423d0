"""Judges a model on runs that it never saw: the step `evaluate`.

First what a ward notices, through the agent's own detector and alert policy: episodes found, false findings for a
gateway-day, time to the first verdict. Then rows. Float and quantised side by side, each rate with n and interval.

- An episode is **found** when a finding of its group was told whose attacker or victim is one of its hosts, and a
  verdict of that group about these hosts fell into the episode (a slice and its grace beyond its end). The policy
  folds kinds of one group between the same hosts into one finding (decision 0008). It is **named** when finding and
  verdict are of its very kind.
- A finding is **false** when no episode touches it: none whose hosts are among its attacker and victim, within the
  episode's time and the 60 s horizon after it. One that an episode touches, of another kind, is **misnamed**.
- Every run starts with fresh state; storms are not folded together here, so that each finding counts.

In: a float model, its integers, runs. Out: plain figures for JSON and the report. Raises: nothing of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.alert.policy import FindingPolicy
from agent.features.ip import SCHEMA
from agent.records import MAC_HI, NOBODY, Alert, Detector, Endpoint, Verdict
from agent.score.boosting import BoostingDetector
from agent.score.rules import RulesDetector
from converter.datasets.matrix import GROUPS, HORIZON_SLICES, KINDS, SLICE_NS, RunMatrix, host_of
from converter.figures import (
    bootstrap_macro_f1,
    confusion,
    f1_by_class,
    macro_f1,
    poisson,
    wilson,
)
from converter.in_memory import float_bundle, quantised_bundle

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.score.bundle import Bundle
    from converter.datasets.labels import Episode
    from converter.work import FloatModel, QuantisedModel

AFTER_NS = 2 * SLICE_NS
"""How long after its last hostile frame a verdict still counts for an episode: its slice's end, and one more."""

HORIZON_NS = (HORIZON_SLICES + 1) * SLICE_NS
DAY_S = 86_400
NO_BURST = "100000/min"

GROUP_OF = {kind: group for group, kinds in GROUPS.items() for kind in kinds}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFindings:
    """What came of one run."""

    found: list[tuple[str, str, bool, bool, float | None]]
    """For each episode: kind, variant, found, named, seconds from its first hostile frame to the first verdict."""
    n_findings: int
    false: list[str]
    n_false_above_low: int
    """Of the false ones, those that reached more than severity low."""
    misnamed: list[str]
    """`kind for kind` or kinds."""
    n_misnamed_group: int
    """Of these, whose group is not one of the episodes' either."""


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
    both = [_detect(bundles["quantised"], RulesDetector(SCHEMA))] * len(runs)
    result["with_rules"] = findings_figures(runs, both)
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
    found = [item for part in parts for item in part.found]
    n_found = sum(item[2] for item in found)
    days = sum(run.info.duration_s for run in runs) / DAY_S
    false = [name for part in parts for name in part.false]
    low, high = poisson(len(false))
    n_above_low = sum(part.n_false_above_low for part in parts)
    low_above, high_above = poisson(n_above_low)
    times = [item[4] for item in found if item[4] is not None]
    by_kind = {
        kind: {
            "episodes": len(of_kind),
            "found": sum(item[2] for item in of_kind),
            "interval": _rounded(wilson(sum(item[2] for item in of_kind), len(of_kind))),
            "named": sum(item[3] for item in of_kind),
            "missed_variants": sorted({item[1] for item in of_kind if not item[2]}),
        }
        for kind in KINDS[1:]
        if (of_kind := [item for item in found if item[0] == kind])
    }
    return {
        "episodes": len(found),
        "episodes_found": n_found,
        "episodes_found_interval": _rounded(wilson(n_found, len(found))),
        "episodes_named": sum(item[3] for item in found),
        "findings": sum(part.n_findings for part in parts),
        "false_findings": len(false),
        "false_findings_a_day": round(len(false) / days, 2),
        "false_findings_a_day_interval": [round(low / days, 2), round(high / days, 2)],
        "false_findings_above_low": n_above_low,
        "false_findings_above_low_a_day": round(n_above_low / days, 2),
        "false_findings_above_low_a_day_interval": [
            round(low_above / days, 2),
            round(high_above / days, 2),
        ],
        "false_finding_kinds": _counted(false),
        "misnamed_findings": sum(len(part.misnamed) for part in parts),
        "misnamed_findings_of_another_group": sum(part.n_misnamed_group for part in parts),
        "misnamed_finding_kinds": _counted([n for part in parts for n in part.misnamed]),
        "seconds_to_verdict_median": round(float(np.median(times)), 2) if times else None,
        "seconds_to_verdict_p95": round(float(np.quantile(times, 0.95)), 2) if times else None,
        "by_kind": by_kind,
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
        "macro_f1_groups": round(macro_f1(_by_group(table)), 6),
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


def run_findings(run: RunMatrix, detectors: Sequence[Detector]) -> RunFindings:
    """One run through detectors and policy; a detector judges all slices at once, which changes nothing it says."""
    policy = FindingPolicy(gateway="evaluation", source=run.info.run, burst=NO_BURST)
    verdicts = [v for detector in detectors for v in detector.judge(run.matrix)]
    by_slice: dict[int, list[Verdict]] = {}
    for verdict in verdicts:
        by_slice.setdefault(verdict.end_ns, []).append(verdict)
    alerts: list[Alert] = []
    ends = np.unique(run.matrix.end_ns)
    for end_ns in ends.tolist():
        alerts += policy.consider(by_slice.get(end_ns, []), end_ns)
        alerts += policy.advance(end_ns)
    if len(ends):
        alerts += policy.close_all(int(ends[-1]))
    told = {a.uid: a for a in alerts if a.activity == "close"}  # the last word on each finding
    episodes = [(episode, _hosts(episode)) for episode in run.info.episodes]
    found = []
    for episode, hosts in episodes:
        group = GROUP_OF[episode.kind]
        inside = [
            (v.end_ns, v.kind)
            for v in verdicts
            if GROUP_OF[v.kind] == group
            and _touches(v.attacker, v.victim, v.subject, hosts)
            and v.end_ns > episode.start_ns
            and v.start_ns <= episode.end_ns + AFTER_NS
        ]
        told_kinds = {
            a.kind
            for a in told.values()
            if _touches(a.attacker, a.victim, NOBODY, hosts)
            and a.last_ns > episode.start_ns
            and a.start_ns <= episode.end_ns + AFTER_NS
        }
        is_found = bool(inside) and group in {GROUP_OF.get(kind) for kind in told_kinds}
        is_named = episode.kind in told_kinds and episode.kind in {kind for _, kind in inside}
        seconds = float(min(inside)[0] - episode.start_ns) / SLICE_NS if is_found else None
        found.append((episode.kind, episode.variant, is_found, is_named, seconds))
    false: list[str] = []
    misnamed: list[str] = []
    n_group = n_above_low = 0
    for alert in told.values():
        near = [
            episode.kind
            for episode, hosts in episodes
            if _touches(alert.attacker, alert.victim, NOBODY, hosts)
            and alert.last_ns > episode.start_ns
            and alert.start_ns <= episode.end_ns + HORIZON_NS
        ]
        if not near:
            false.append(alert.kind)
            n_above_low += alert.highest_severity not in {"info", "low"}
        elif alert.kind not in near:
            misnamed.append(f"{alert.kind} for {' or '.join(sorted(set(near)))}")
            n_group += GROUP_OF[alert.kind] not in {GROUP_OF[kind] for kind in near}
    return RunFindings(
        found=found,
        n_findings=len(told),
        false=false,
        misnamed=misnamed,
        n_misnamed_group=n_group,
        n_false_above_low=n_above_low,
    )


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


def _hosts(episode: Episode) -> set[Endpoint]:
    """Everybody whom a finding about the episode may name."""
    listed = {Endpoint(*host_of(text)) for text in (*episode.attackers, *episode.victims)}
    macs = {Endpoint(MAC_HI, int(mac.replace(":", ""), 16)) for mac in episode.attacker_macs}
    return listed | macs


def _touches(attacker: Endpoint, victim: Endpoint, subject: Endpoint, hosts: set[Endpoint]) -> bool:
    return any(end != NOBODY and end in hosts for end in (attacker, victim, subject))


def _counted(names: list[str]) -> dict[str, int]:
    return {name: names.count(name) for name in sorted(set(names))}


def _rounded(interval: tuple[float, float], digits: int = 4) -> list[float]:
    return [round(value, digits) for value in interval]
