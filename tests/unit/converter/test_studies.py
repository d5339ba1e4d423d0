"""What was left out is never trained on; times, classes of speed."""

from __future__ import annotations

import numpy as np
import pytest

from agent.score.rules import RulesDetector
from converter.dataset import is_held_out
from converter.datasets.labels import DatasetError, Episode
from converter.datasets.matrix import SLICE_NS, RunMatrix
from converter.episodes import PACES, pace_of, run_findings
from converter.figures import quantile_with_misses
from converter.learners import Settings
from converter.leave_out import NOT_MEASURED, WHAT, leave_out, without
from converter.report_studies import study_text
from tests.support.runs import SCHEMA, made_up_run, made_up_runs

SETTINGS = Settings(min_samples_leaf=4, patience=40, max_features=0.4, max_false_rate=0.01)
TINY = {"n_folds": 2, "learning_rate": 0.3, "max_iter_gate": 20, "max_iter_kinds": 10}


@pytest.fixture(scope="module")
def runs() -> list[RunMatrix]:
    return made_up_runs()


def test_every_plan_whose_name_begins_with_heldout_is_held_out() -> None:
    prefixes = Settings().test_plans
    assert all(is_held_out(plan, prefixes) for plan in ("heldout", "heldout2", "heldout3"))
    assert not any(is_held_out(plan, prefixes) for plan in ("first", "second", "not-heldout"))


def test_what_is_left_out_is_neither_hostile_nor_benign(runs: list[RunMatrix]) -> None:
    run = runs[0]
    kept = without(run, WHAT["kind"], {"icmp_flood"})
    gone = run.kind == 4
    assert gone.any()
    assert kept.edge[gone].all()
    assert not kept.kind[gone].any()
    assert np.array_equal(kept.kind[~gone], run.kind[~gone])
    assert without(run, WHAT["kind"], {"udp_flood"}) is run


def test_a_kind_that_was_never_trained_on_has_three_columns(runs: list[RunMatrix]) -> None:
    told: list[str] = []
    found = leave_out(runs, SETTINGS, "kind", only=["icmp"], tell=told.append, smaller=TINY)
    (row,) = found["kinds"]
    assert row["kind"] == "icmp_flood"
    assert row["gate"]["episodes"] == row["rules"]["episodes"] == 6  # five runs and a held-out one
    assert row["baseline"] == NOT_MEASURED
    assert found["found_by_gate"] == int(row["gate"]["is_found"])
    assert told == ["leave out kind 1 of 1: icmp_flood"]
    page = study_text(found, about={"commit": "x"})
    assert "| kind left out | episodes | gate alone | baseline alone | rules alone |" in page
    assert "| `icmp_flood` | 6 |" in page


def test_a_baseline_that_is_handed_in_is_measured(runs: list[RunMatrix]) -> None:
    found = leave_out(
        runs,
        SETTINGS,
        "kind",
        only=["icmp"],
        tell=lambda _: None,
        baseline=lambda _: RulesDetector(SCHEMA),
        smaller=TINY,
    )
    (row,) = found["kinds"]
    assert row["baseline"] == row["rules"]


def test_wards_are_judged_by_models_that_have_not_seen_them(runs: list[RunMatrix]) -> None:
    found = leave_out(runs, SETTINGS, "ward", only=["a0"], tell=lambda _: None, smaller=TINY)
    assert sum(part["episodes"] for part in found["parts"].values()) == 3
    assert sum(part["found"] for part in found["parts"].values()) >= 2
    assert "a gateway-day" in study_text(found, about={})


def test_an_unknown_part_is_refused(runs: list[RunMatrix]) -> None:
    with pytest.raises(DatasetError, match="nothing to leave out"):
        leave_out(runs, SETTINGS, "tool", only=["no-such"], tell=lambda _: None)


def episode(kind: str, frames: int, seconds: float) -> Episode:
    return Episode(
        run="r", kind=kind, variant="v", tool="t", start_ns=0, end_ns=round(seconds * SLICE_NS),
        attackers=[], victims=[], frames=frames,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "frames", "seconds", "bar_s"),
    [
        ("udp_flood", 1000, 10, 2.0),
        ("mqtt_publish_flood", 1000, 10, 2.0),
        ("mqtt_connect_flood", 20, 30, 90.0),
        ("port_scan", 2000, 4, 5.0),
        ("port_scan", 20, 100, 180.0),
        ("port_scan", 20, 20, None),
        ("arp_spoofing", 5, 10, 2.0),
        ("icmp_flood", 50, 10, None),
    ],
)
def test_each_episode_has_its_class_of_speed(
    kind: str, frames: int, seconds: float, bar_s: float | None
) -> None:
    name = pace_of(episode(kind, frames, seconds))
    assert next(pace.bar_s for pace in PACES if pace.name == name) == bar_s


def test_a_miss_counts_as_never_in_a_quantile() -> None:
    times: list[float | None] = [1.0] * 19
    assert quantile_with_misses([*times, None], 0.95) == 1.0
    assert quantile_with_misses([*times[:18], None, None], 0.95) is None
    assert quantile_with_misses([*times[:18], None, None], 0.5) == 1.0
    assert quantile_with_misses([], 0.5) is None


def test_the_time_is_from_the_first_frame_to_the_end_of_the_grace() -> None:
    run = made_up_run("first-a0", "first", 1, ("tcp_syn_flood",))
    (found,) = run_findings(run, [RulesDetector(SCHEMA)]).episodes
    assert found.found
    assert found.seconds is not None
    assert found.seconds % 1 == pytest.approx(0.2, abs=1e-6)
    silent = run_findings(run, [])
    assert [item.seconds for item in silent.episodes] == [None]
    assert not silent.false
