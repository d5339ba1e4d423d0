"""The baseline for evaluations: learned on some wards' benign rows, judged on another's, by class."""

from pathlib import Path

import pytest

from agent.features.ip_schema import SCHEMA
from converter.baseline import learned_baseline, site_file
from converter.datasets.labels import DatasetError
from converter.datasets.matrix import load_run

FOLDER = Path(__file__).parents[3] / "datasets" / "ip-1"


def load(run):
    return load_run(FOLDER / f"{run}.npz", SCHEMA)


def test_it_judges_a_ward_that_it_has_not_seen_and_learns_nothing_of_it():
    training = [load(f"{plan}-benign{n:02d}") for plan in ("first", "second") for n in range(5)]
    ready = learned_baseline(training, FOLDER)
    run = load("heldout-attack09")
    first, again = (ready(run).judge(run.matrix) for _ in range(2))
    assert first == again
    hostile = {int(run.matrix.end_ns[i]) for i in (run.episode >= 0).nonzero()[0]}
    assert len({v.end_ns for v in first} & hostile) > 10
    quiet = load("heldout-benign03")
    assert len(ready(quiet).judge(quiet.matrix)) < len(first)


def test_the_site_file_names_devices_and_servers_and_no_attacker():
    listed = site_file(FOLDER, "heldout-attack09")
    assert {"broker", "gateway", "pump"} <= set(listed.values())
    assert "laptop" not in listed.values()


def test_a_recording_without_a_manifest_is_one_line(tmp_path: Path):
    with pytest.raises(DatasetError, match="not a recording's manifest"):
        site_file(tmp_path, "x")
