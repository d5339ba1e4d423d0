"""Harder than split by run: leave a tool, a variant, a ward or a whole kind out of training, and see what is found.

Small models of the same pipeline, so that all of it takes minutes; held-out runs are never trained on. What is left
out is made edge: nobody trains on it, not even as benign.

- **variant**: the variants of each kind are dealt into folds; each fold's are found, or not, by a model that has
  seen none of them. **tool**: likewise a kind's variants by one tool; a kind that only this tool makes has nothing
  left to learn it from, which the table says. **ward**: whole runs, each a ward of its own; here false findings
  count, too. All three inside the training runs.
- **kind**: with its twin, for a flood from one source and the same from many are one kind here. Three columns, each
  alone: the gate, the site's baseline, the rules. Episodes of all runs count, for none was trained on; false
  findings of the held-out runs. The gate says "unusual" and no more, so it counts for any group; its threshold lets
  through at most `max_false_rate_kinds` of the benign rows of wards that its fold has not seen.

A part is found when at least half of its episodes are (`FOUND_SHARE`); the table gives n and interval beside.

In: runs, `Settings`. Out: plain figures for JSON and the report. Raises: `DatasetError` on an unknown name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from agent.features.ip import SCHEMA
from agent.records import NOBODY, Detector, Endpoint, FeatureMatrix, Verdict
from agent.score.boosting import BoostingDetector
from agent.score.rules import RulesDetector
from converter.dataset import is_held_out
from converter.datasets.labels import DatasetError
from converter.datasets.matrix import KINDS, RunMatrix
from converter.episodes import DAY_S, EpisodeFound, run_findings
from converter.figures import poisson, wilson
from converter.in_memory import quantised_bundle
from converter.prove_model import quantise_only
from converter.train import train_gate, train_on

if TYPE_CHECKING:
    from converter.datasets.labels import Episode
    from converter.forests import FloatForest
    from converter.learners import Settings

    Baseline = Callable[[RunMatrix], Detector]
    """A detector that has learned the run's ward; None: there is none to measure."""
    Name = Callable[[Episode], str]

N_FOLDS = 4
FOUND_SHARE = 0.5
NOT_MEASURED = "not measured"

SMALL: dict[str, Any] = {
    "n_folds": 2,
    "learning_rate": 0.2,
    "max_iter_gate": 70,
    "max_iter_kinds": 30,
    "max_benign_fitted": 15_000,
    "max_hard_benign": 5_000,
}
"""What makes a model small: a third of the time and about the same trees for each class."""

WHAT: dict[str, Name] = {
    "variant": lambda e: f"{e.kind}/{e.variant}",
    "tool": lambda e: f"{e.kind}/{e.tool}",
    "ward": lambda e: e.run,
    "kind": lambda e: e.kind,
}
"""What can be left out, and the name of an episode's part."""


@dataclass(slots=True)
class GateDetector:
    """The gate alone: a row is unusual or not, and that is all it says."""

    forest: FloatForest
    threshold: float
    name: str = "boosting"

    def judge(self, matrix: FeatureMatrix) -> Sequence[Verdict]:
        """A `device_anomaly` for each row from the threshold on."""
        margins = self.forest.margins(matrix.values)[:, 0]
        hosts = matrix.subjects
        return [
            Verdict(
                detector=self.name,
                kind="device_anomaly",
                subject=(host := Endpoint(int(hosts.hi[row]), int(hosts.lo[row]))),
                attacker=NOBODY,
                victim=host,
                spoofed=False,
                distributed=False,
                start_ns=int(matrix.start_ns[row]),
                end_ns=int(matrix.end_ns[row]),
                margin=int(margins[row]),
                threshold=int(self.threshold),
                score=1.0,
                count=1,
                ports=(),
                facts=(),
            )
            for row in np.flatnonzero(margins >= self.threshold).tolist()
        ]


def leave_out(
    runs: Sequence[RunMatrix],
    settings: Settings,
    what: str,
    *,
    only: Sequence[str] = (),
    tell: Callable[[str], None],
    baseline: Baseline | None = None,
    smaller: Mapping[str, Any] = SMALL,
) -> dict[str, Any]:
    """The figures of one study: `what` is a key of `WHAT`; `only`: parts whose name contains one of these."""
    small = msgspec.structs.replace(settings, **smaller)
    training = [run for run in runs if not is_held_out(run.info.plan, settings.test_plans)]
    name = WHAT[what]
    parts = sorted({name(e) for run in training for e in run.info.episodes})
    chosen = [part for part in parts if not only or any(word in part for word in only)]
    if not chosen:
        raise DatasetError(f"nothing to leave out: no {what} of {', '.join(only)} in training runs")
    if what == "kind":
        held_out = [run for run in runs if is_held_out(run.info.plan, settings.test_plans)]
        return _kinds(training, held_out, chosen, small, tell, baseline)
    rows: list[EpisodeFound] = []
    n_false = n_above_low = 0
    seconds = 0.0
    folds = list(_folds(what, chosen))
    for number, left in enumerate(folds):
        tell(f"leave out {what} {number + 1} of {len(folds)}: {', '.join(sorted(left))}")
        kept = [without(run, name, left) for run in training]
        if what == "ward":
            kept = [run for run in kept if run.info.run not in left]
        judged = [run for run in training if any(name(e) in left for e in run.info.episodes)]
        detector = _model(kept, small, tell)
        for run in judged:
            found = run_findings(run, [detector])
            rows += [
                item
                for item, e in zip(found.episodes, run.info.episodes, strict=True)
                if name(e) in left
            ]
            if what == "ward":
                n_false += len(found.false)
                n_above_low += found.n_false_above_low
                seconds += run.info.duration_s
    result: dict[str, Any] = {"what": what, "by": "the model alone", "parts": _parts(rows, what)}
    if what == "ward":
        result |= _false(n_false, n_above_low, seconds)
    if what == "tool":
        result["only_tool_of_its_kind"] = [part for part in chosen if _is_only_tool(part, parts)]
    return result


def without(run: RunMatrix, name: Name, left: set[str]) -> RunMatrix:
    """The run with all rows of some episodes made edge: never trained on, as neither hostile nor benign."""
    gone = np.array([name(e) in left for e in run.info.episodes] + [False])[run.episode]
    if not gone.any():
        return run
    return replace(
        run,
        kind=np.where(gone, 0, run.kind).astype(np.int8),
        episode=np.where(gone, -1, run.episode).astype(np.int16),
        edge=run.edge | gone,
    )


def _kinds(
    training: Sequence[RunMatrix],
    held_out: Sequence[RunMatrix],
    kinds: Sequence[str],
    settings: Settings,
    tell: Callable[[str], None],
    baseline: Baseline | None,
) -> dict[str, Any]:
    """Three columns for each kind that was not trained on."""
    everything = [*training, *held_out]
    rules: Detector = RulesDetector(SCHEMA)
    rows = []
    for number, kind in enumerate(kinds):
        tell(f"leave out kind {number + 1} of {len(kinds)}: {kind}")
        kept = [without(run, WHAT["kind"], {kind}) for run in training]
        forest, threshold = train_gate(kept, settings, settings.max_false_rate_kinds)
        gate = GateDetector(forest, threshold)
        row: dict[str, Any] = {"kind": kind, "gate": _column(everything, held_out, kind, gate)}
        row["baseline"] = NOT_MEASURED
        if baseline is not None:
            row["baseline"] = _column(everything, held_out, kind, baseline)
        row["rules"] = _column(everything, held_out, kind, rules)
        rows.append(row)
    counted = {
        column: sum(row[column]["is_found"] for row in rows if row[column] != NOT_MEASURED)
        for column in ("gate", "rules")
    }
    either = sum(
        row["gate"]["is_found"] or (row["baseline"] != NOT_MEASURED and row["baseline"]["is_found"])
        for row in rows
    )
    return {
        "what": "kind",
        "kinds": rows,
        "n_kinds": len(rows),
        "found_by_gate": counted["gate"],
        "found_by_rules": counted["rules"],
        "found_by_gate_or_baseline": either,
        "hours_for_false_findings": round(sum(r.info.duration_s for r in held_out) / 3600, 3),
    }


def _column(
    everything: Sequence[RunMatrix],
    held_out: Sequence[RunMatrix],
    kind: str,
    detector: Detector | Baseline,
) -> dict[str, Any]:
    """Episodes of one kind found by one detector alone, and its false findings on the held-out runs."""
    hits = n = n_false = n_above_low = 0
    quiet = {run.info.run for run in held_out}
    for run in everything:
        has_kind = any(e.kind == kind for e in run.info.episodes)
        if not has_kind and run.info.run not in quiet:
            continue
        mine = detector(run) if callable(detector) else detector
        found = run_findings(run, [mine])
        of_kind = [item for item in found.episodes if item.kind == kind]
        n += len(of_kind)
        hits += sum(item.found for item in of_kind)
        if run.info.run in quiet:
            n_false += len(found.false)
            n_above_low += found.n_false_above_low
    seconds = sum(run.info.duration_s for run in held_out)
    low, high = wilson(hits, n)
    return {
        "episodes": n,
        "found": hits,
        "interval": [round(low, 4), round(high, 4)],
        "is_found": n > 0 and hits >= FOUND_SHARE * n,
        **_false(n_false, n_above_low, seconds),
    }


def _model(
    runs: Sequence[RunMatrix], settings: Settings, tell: Callable[[str], None]
) -> BoostingDetector:
    model = train_on(runs, settings, data={}, tell=lambda _: None)
    tell(f"  flagged from {model.record.gate_threshold:.2f}, lead {model.record.kinds_lead:.2f}")
    return BoostingDetector(quantised_bundle(model, quantise_only(model)), max_explained=0)


def _folds(what: str, parts: Sequence[str]) -> Iterator[set[str]]:
    """Which parts are left out together: of each kind's variants some, so that every kind stays trained."""
    if what == "tool":
        for tool in sorted({part.split("/", 1)[1] for part in parts}):
            yield {part for part in parts if part.split("/", 1)[1] == tool}
        return
    for fold in range(min(N_FOLDS, len(parts))):
        yield {part for place, part in enumerate(parts) if place % N_FOLDS == fold}


def _is_only_tool(part: str, parts: Sequence[str]) -> bool:
    kind = part.split("/", 1)[0]
    return sum(other.split("/", 1)[0] == kind for other in parts) == 1


def _parts(rows: Sequence[EpisodeFound], what: str) -> dict[str, Any]:
    """n, found and interval for each part; of wards, for each kind."""
    by_part: dict[str, list[EpisodeFound]] = {}
    for item in rows:
        ends = {"variant": f"/{item.variant}", "tool": f"/{item.tool}", "ward": ""}
        by_part.setdefault(item.kind + ends[what], []).append(item)
    table = {}
    for part in sorted(by_part, key=_by_kind):
        of_part = by_part[part]
        hits = sum(item.found for item in of_part)
        low, high = wilson(hits, len(of_part))
        table[part] = {
            "episodes": len(of_part),
            "found": hits,
            "named": sum(item.named for item in of_part),
            "interval": [round(low, 4), round(high, 4)],
        }
    return table


def _by_kind(part: str) -> tuple[int, str]:
    return KINDS.index(part.split("/", 1)[0]), part


def _false(n: int, n_above_low: int, seconds: float) -> dict[str, Any]:
    days = max(seconds, 1.0) / DAY_S
    low, high = poisson(n)
    return {
        "false_findings": n,
        "false_findings_above_low": n_above_low,
        "false_findings_a_day": round(n / days, 2),
        "false_findings_a_day_interval": [round(low / days, 2), round(high / days, 2)],
    }
