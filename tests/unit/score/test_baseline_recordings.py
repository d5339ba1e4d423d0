"""The baseline on the testbed's own matrices: wards of one set learned by class, wards of another judged.

It has never seen an attack: every kind is new to it. What benign runs of other wards cause is bounded, too.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from agent.features.ip_schema import SCHEMA
from agent.features.matrices import take
from agent.records import Endpoint
from agent.score.baseline import BaselineDetector, Settings
from converter.datasets.matrix import host_of, load_run

FOLDER = Path(__file__).parents[3] / "datasets" / "ip-1"
LEARNED = tuple(f"first-benign{n:02d}" for n in range(10))
ATTACKS = ("heldout-attack00", "heldout-attack03", "heldout-attack08", "heldout-attack09")
BENIGN = ("heldout-benign00", "heldout-benign01", "heldout-benign02", "heldout-benign03")
THRESHOLD = 8
"""Runs of two minutes set no budget a day; 16 times the range, as before a site's own is known."""


def classes(run):
    """What a site file would say: the devices' profiles, the servers' roles; nothing of attackers."""
    ward = json.loads((FOLDER / f"{run}.manifest.json").read_text())["ward"]
    return {
        Endpoint(*host_of(h["ip"])): h["profile"] if h["role"] == "device" else h["role"]
        for h in ward["hosts"]
        if h["role"] != "attacker" and h["ip"].count(".") == 3
    }


def load(run):
    return load_run(FOLDER / f"{run}.npz", SCHEMA)


@pytest.fixture(scope="module")
def baseline():
    detector = BaselineDetector(SCHEMA, Settings(max_devices=256).compressed(600.0))
    for run in LEARNED:
        detector.new_ward(classes(run).get)
        detector.learn(load(run).matrix)
    detector.frozen = True
    detector.budget.threshold = THRESHOLD
    return detector


def test_attacks_that_it_was_never_told_of_are_found(baseline):
    n_found = n_there = 0
    for run in ATTACKS:
        recorded = load(run)
        baseline.new_ward(classes(run).get)
        verdicts = baseline.judge(recorded.matrix)
        assert all(v.facts and v.margin >= v.threshold for v in verdicts)
        flagged = {(v.end_ns, v.subject) for v in verdicts}
        subjects = recorded.matrix.subjects
        found = set()
        for i in np.flatnonzero(recorded.episode >= 0).tolist():
            host = Endpoint(int(subjects.hi[i]), int(subjects.lo[i]))
            if (int(recorded.matrix.end_ns[i]), host) in flagged:
                found.add(int(recorded.episode[i]))
        n_found += len(found)
        n_there += len(set(recorded.episode[recorded.episode >= 0].tolist()))
    assert n_found >= 0.75 * n_there


@pytest.mark.parametrize("run", BENIGN)
def test_few_devices_of_a_quiet_ward_are_told(baseline, run):
    baseline.new_ward(classes(run).get)
    matrix = load(run).matrix
    told = {v.subject for v in baseline.judge(matrix)}
    assert len(told) <= 4, [v.facts for v in baseline.judge(matrix)]


def test_a_ward_that_was_learned_by_device_is_quiet_the_same_way():
    """Without any class: each device by itself, in the first two thirds of its own recording."""
    matrix = load("first-benign07").matrix
    second = (matrix.end_ns - matrix.end_ns.min()) // 10**9
    detector = BaselineDetector(SCHEMA, Settings(max_devices=256).compressed(70.0))
    detector.learn(take(matrix, second <= 95))
    detector.frozen = True
    assert detector.profiles.learned.sum() > 10
    rest = take(matrix, second > 95)
    told = {v.subject for v in detector.judge(rest)}
    assert len(told) <= 3
