"""The leak report: figures of every feature, the control, and the reasons why flagged features stay.

Reasons stand in `leaks.toml` beside this file: names of features, with `*`, and why. A flagged feature that training
sees and that no entry names is **unjustified**: an error of the report. A flagged one that training may not see at
all is gone. It writes no reason itself.

In: runs, settings. Out: `LeakReport`; as lines for `--json`, as a table, as a summary for the manifest.
Raises: `DatasetError` where there are no runs, or the table of reasons cannot be read.
"""

from __future__ import annotations

import tomllib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from rich.table import Table

from converter.datasets.labels import DatasetError
from converter.leaks import FLAG_AUC, FLAG_SHARE, FeatureLeak, feature_leaks
from converter.leaks_control import N_FOLDS, Control, control
from converter.learners import Settings, is_withheld

if TYPE_CHECKING:
    from collections.abc import Sequence

    from converter.datasets.matrix import RunMatrix

REASONS = Path(__file__).with_name("leaks.toml")
N_STRONGEST = 5
N_SHOWN = 25


class Reason(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why some features may tell runs apart."""

    features: list[str]
    """Names; `*` stands for any part."""
    why: str


class _Reasons(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    entry: list[Reason]


class LeakReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the step found."""

    runs: int
    features: list[FeatureLeak]
    control: Control
    withheld: list[str]
    """Features that training may not see."""
    justified: dict[str, str]
    """Flagged feature to why it stays."""
    unjustified: list[str]


def read_reasons(path: Path = REASONS) -> list[Reason]:
    """The committed table of reasons; one without words is refused."""
    try:
        found = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _Reasons)
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise DatasetError(f"{path}: not a table of reasons: {error}") from None
    for entry in found.entry:
        if not entry.why.strip() or not entry.features:
            raise DatasetError(f"{path}: an entry without features or without a reason")
    return found.entry


def leak_report(
    runs: Sequence[RunMatrix], settings: Settings, reasons: Sequence[Reason]
) -> LeakReport:
    """Figures, control and reasons for the runs that training sees; hand in no others."""
    n_attacked = sum(bool(np.any(run.kind > 0)) for run in runs)
    if n_attacked < N_FOLDS:
        raise DatasetError(
            f"{n_attacked} runs with attacks to look for leaks in, {N_FOLDS} are the least: record more"
        )
    features = feature_leaks(runs, seed=settings.seed)
    withheld = [leak.feature for leak in features if is_withheld(leak.feature, settings)]
    flagged = [leak.feature for leak in features if leak.flagged and leak.feature not in withheld]
    why = {name: _why(name, reasons) for name in flagged}
    return LeakReport(
        runs=len(runs),
        features=features,
        control=control(runs, settings),
        withheld=withheld,
        justified={name: words for name, words in why.items() if words is not None},
        unjustified=[name for name, words in why.items() if words is None],
    )


def leak_summary(report: LeakReport) -> dict[str, Any]:
    """What the manifest and the card carry."""
    strongest = sorted(report.features, key=lambda leak: -leak.class_auc)[:N_STRONGEST]
    by_run = max(report.features, key=lambda leak: leak.worst_share)
    return {
        "control_auc": report.control.auc,
        "control_auc_interval": list(report.control.auc_interval),
        "control_macro_f1": report.control.macro_f1,
        "control_macro_f1_chance": report.control.macro_f1_chance,
        "control_at_chance": report.control.at_chance,
        "withheld": report.withheld,
        "flagged": [*report.justified, *report.unjustified],
        "unjustified": report.unjustified,
        "strongest": {x.feature: f"{x.class_name} {x.class_auc}" for x in strongest},
        "most_of_a_run": f"{by_run.feature}: {by_run.worst_share:.0%} of the runs of {by_run.worst_class}",
    }


def leak_lines(report: LeakReport) -> list[bytes]:
    """One JSON object a line: each feature, then the control, then the verdict."""
    lines: list[dict[str, Any]] = [
        {"leak": "feature", **msgspec.to_builtins(leak), "why": report.justified.get(leak.feature)}
        for leak in report.features
    ]
    given = msgspec.to_builtins(report.control)
    lines.append({"leak": "control", **given, "at_chance": report.control.at_chance})
    lines.append({"leak": "verdict", "runs": report.runs, "problems": problems(report)})
    return [msgspec.json.encode(line) for line in lines]


def leak_table(report: LeakReport) -> Table:
    """For the terminal: flagged features first, then those that tell a class or a run best."""
    title = f"What each feature tells alone, over {report.runs} runs (the {N_SHOWN} to look at; --json has all)"
    table = Table(title=title, title_justify="left")
    for head in ("feature", "class AUC", "bits", "runs told", "KS median", "plan AUC", "verdict"):
        table.add_column(head, justify="left" if head in {"feature", "verdict"} else "right")
    order = sorted(report.features, key=lambda x: (not x.flagged, -x.worst_share, -x.class_auc))
    for leak in order[:N_SHOWN]:
        table.add_row(
            leak.feature,
            f"{leak.class_auc:.3f} {leak.class_name}",
            f"{leak.class_bits:.2f}",
            f"{leak.worst_share:.0%} {leak.worst_class}",
            f"{leak.ks_median:.2f}",
            f"{leak.plan_auc:.2f}",
            _verdict(leak, report),
        )
    return table


def leak_words(report: LeakReport) -> list[str]:
    """The verdict in lines: flagged and justified features, the control, and what is wrong."""
    given, n_flagged = report.control, len(report.justified) + len(report.unjustified)
    low, high = given.auc_interval
    flagged = (
        f"{n_flagged} features that training sees tell one run from the rest of its class with an AUC above "
        f"{FLAG_AUC} in more than {FLAG_SHARE:.0%} of the runs; {len(report.withheld)} are withheld from training"
    )
    permuted = (
        f"labels permuted between runs: AUC {given.auc} ({low} to {high}), macro-F1 {given.macro_f1} against "
        f"{given.macro_f1_chance} by chance"
    )
    lines = [flagged, permuted]
    return lines + [f"problem: {words}" for words in problems(report)]


def problems(report: LeakReport) -> list[str]:
    """What has to be put right before a model of these runs can be believed; empty: nothing."""
    found = [
        f"{name} tells runs apart and has no reason in converter/leaks.toml"
        for name in report.unjustified
    ]
    if not report.control.at_chance:
        found.append("labels permuted between runs are still learnt: the split or a feature leaks")
    return found


def _why(name: str, reasons: Sequence[Reason]) -> str | None:
    for entry in reasons:
        if any(fnmatchcase(name, pattern) for pattern in entry.features):
            return " ".join(entry.why.split())
    return None


def _verdict(leak: FeatureLeak, report: LeakReport) -> str:
    if leak.feature in report.withheld:
        return "withheld"
    if leak.feature in report.unjustified:
        return "UNJUSTIFIED"
    return "justified" if leak.feature in report.justified else ""
