"""The leak report finds what is planted, asks for reasons, and its control fails where a split leaks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from agent.features.ip_schema import SCHEMA
from converter.cli import main
from converter.datasets.labels import DatasetError
from converter.datasets.matrix import RunMatrix, save_run
from converter.leaks import FeatureLeak, feature_leaks, folded_auc, ks_distances
from converter.leaks_control import control, judged
from converter.leaks_report import Reason, leak_report, problems, read_reasons
from converter.learners import Settings
from tests.support.runs import LOUD, made_up_run

SETTINGS = Settings(min_samples_leaf=4)
PLANTED = "out_dns_queries_1s"


@pytest.fixture(scope="module")
def runs() -> list[RunMatrix]:
    return [made_up_run(f"first-a{k}", "first", k, tuple(LOUD)) for k in range(8)]


def planted(runs: list[RunMatrix]) -> list[RunMatrix]:
    """The same runs with one feature that is the run's own number."""
    found = []
    for number, run in enumerate(runs):
        values = run.matrix.values.copy()
        values[:, SCHEMA.index[PLANTED]] = number
        found.append(replace(run, matrix=replace(run.matrix, values=values)))
    return found


def by_name(leaks: list[FeatureLeak]) -> dict[str, FeatureLeak]:
    return {leak.feature: leak for leak in leaks}


def test_a_feature_that_numbers_the_runs_is_flagged_and_wants_a_reason(
    runs: list[RunMatrix],
) -> None:
    with_leak = planted(runs)
    leak = by_name(feature_leaks(with_leak, seed=1))[PLANTED]
    assert leak.flagged
    assert "benign" in leak.flagged_classes
    assert leak.ks_max == 1.0
    assert not by_name(feature_leaks(runs, seed=1))[PLANTED].flagged
    alone = leak_report(with_leak, SETTINGS, [])
    assert alone.unjustified == [PLANTED]
    assert PLANTED in problems(alone)[0]
    reasoned = leak_report(with_leak, SETTINGS, [Reason(["out_dns_*"], "made up for a test")])
    assert reasoned.justified == {PLANTED: "made up for a test"}
    assert problems(reasoned) == []


def test_a_withheld_feature_is_gone_and_needs_no_reason(runs: list[RunMatrix]) -> None:
    report = leak_report(planted(runs), Settings(ignored=("_dns_",)), [])
    assert PLANTED in report.withheld
    assert report.unjustified == []


def test_a_feature_that_is_the_attack_tells_its_class(runs: list[RunMatrix]) -> None:
    leak = by_name(feature_leaks(runs, seed=1))["in_tcp_syn_1s"]
    assert leak.class_name == "tcp_syn_flood"
    assert leak.class_auc > 0.7  # the victim's rows; the attacker's look ordinary
    assert leak.class_bits > by_name(feature_leaks(runs, seed=1))["in_udp_1s"].class_bits


def test_labels_permuted_between_runs_are_not_learnt(runs: list[RunMatrix]) -> None:
    found = control(runs, SETTINGS)
    assert found.at_chance
    assert found.auc_interval[0] <= 0.5 <= found.auc_interval[1]
    assert found.macro_f1_gain_interval[0] <= 0 <= found.macro_f1_gain_interval[1] + 0.02


def test_the_control_fails_where_a_feature_carries_the_label_or_rows_stand_on_both_sides() -> None:
    random = np.random.default_rng(3)
    run_of = np.repeat(np.arange(12), 50)
    labels = (random.random(len(run_of)) < 0.2).astype(np.int64)
    values = random.normal(size=(len(run_of), 6))
    by_run = run_of % 3
    assert judged(values, labels, run_of, by_run, SETTINGS).at_chance
    carried = values.copy()
    carried[:, 0] = labels
    assert not judged(carried, labels, run_of, by_run, SETTINGS).at_chance
    # A run's own number tells nothing by run, and much where the run's rows stand on both sides.
    often = np.where(random.permutation(12)[run_of] < 6, 0.9, 0.1)
    of_run = (random.random(len(run_of)) < often).astype(np.int64)
    values[:, 1] = random.permutation(12)[run_of]
    assert judged(values, of_run, run_of, by_run, SETTINGS).auc < 0.75
    both_sides = np.arange(len(run_of)) % 3
    leaky = judged(values, of_run, run_of, both_sides, SETTINGS)
    assert leaky.auc > 0.8
    assert not leaky.at_chance


def test_auc_and_distance_of_groups() -> None:
    ranks = np.array([1.0, 2.0, 3.0, 4.0])
    assert folded_auc(ranks, np.array([0, 0, 1, 1]), 2).tolist() == [1.0, 1.0]
    assert folded_auc(ranks, np.array([0, 1, 1, 0]), 2).tolist() == [0.5, 0.5]
    values = np.array([0, 0, 1, 1], np.float32)
    assert ks_distances(values, np.array([0, 0, 1, 1]), 2).tolist() == [1.0, 1.0]
    assert ks_distances(values, np.array([0, 1, 0, 1]), 2).tolist() == [0.0, 0.0]


def test_every_committed_reason_has_words_and_names_features_of_the_schema() -> None:
    names = [f.name for f in SCHEMA.features]
    from fnmatch import filter as matching

    for entry in read_reasons():
        assert len(entry.why.split()) > 8
        for pattern in entry.features:
            assert matching(names, pattern), pattern


def test_an_empty_reason_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "reasons.toml"
    table.write_text('[[entry]]\nfeatures = ["out_*"]\nwhy = " "\n')
    with pytest.raises(DatasetError, match="without a reason"):
        read_reasons(table)


def test_the_command_tells_each_feature_and_fails_on_an_unjustified_one(
    runs: list[RunMatrix], tmp_path: Path
) -> None:
    for run in planted(runs):
        save_run(tmp_path / f"{run.info.run}.npz", run)
    done = CliRunner().invoke(main, ["leaks", str(tmp_path), "--json"])
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["feature"] for line in lines if line["leak"] == "feature"] == [
        f.name for f in SCHEMA.features
    ]
    assert lines[-2]["at_chance"] is True
    assert done.exit_code == 1
    assert PLANTED in done.stderr
