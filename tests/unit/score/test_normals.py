"""What is normal for a device: learned from its own benign rows, never from an attack, bounded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agent.features.ip_schema import SCHEMA
from agent.records import NOBODY, V4_MAPPED_LO, Endpoint, Fact, FeatureMatrix, Verdict
from agent.score.normals import EVERY_NS, HOLD_NS, MIN_ROWS, ROWS, SECOND_NS, DeviceNormals
from tests.support.bundles import loud, matrix_of

FEATURE = "in_packets_1s"
DUE = range(0, 400, EVERY_NS // SECOND_NS)
"""Slices that are learned from."""


def host(number: int) -> Endpoint:
    return Endpoint(0, V4_MAPPED_LO | (0x0A000000 + number))


def said(second: int, number: int = 1, value: float = 900.0) -> Verdict:
    return Verdict(
        detector="rules",
        kind="tcp_syn_flood",
        subject=host(number),
        attacker=NOBODY,
        victim=host(number),
        spoofed=False,
        distributed=False,
        start_ns=second * SECOND_NS,
        end_ns=(second + 1) * SECOND_NS,
        margin=1,
        threshold=1,
        score=1.0,
        count=1,
        ports=(),
        facts=(
            Fact(feature=FEATURE, value=value, limit=200.0),
            Fact(feature="new_peer", value=1.0),
        ),
    )


def rows(seconds: range, packets: int = 7) -> FeatureMatrix:
    lo = np.full(len(seconds), host(1).lo, np.uint64)
    return matrix_of([loud(**{FEATURE: packets})] * len(seconds), slices=list(seconds), lo=lo)


def up_to_100(matrix: FeatureMatrix) -> np.ndarray:
    """A model: benign where at most 100 packets came."""
    return matrix.values[:, SCHEMA.index[FEATURE]] <= 100


def normal_of(normals: DeviceNormals, second: int) -> tuple[float | None, str]:
    matrix = rows(range(second, second + 1))
    (verdict,) = normals.explain(matrix, [said(second)])
    fact = told(verdict)[0]
    return fact.normal, fact.normal_of


def told(verdict: Verdict) -> tuple[Fact, ...]:
    """What is told of a verdict."""
    return verdict.why.facts() if verdict.why else verdict.facts


def test_a_device_is_known_after_a_few_rows_and_its_fact_says_so() -> None:
    normals = DeviceNormals(SCHEMA)
    enough = int(DUE[MIN_ROWS - 1])
    assert normals.explain(rows(range(enough)), []) == []
    assert normal_of(normals, enough)[0] is None
    normals = DeviceNormals(SCHEMA)
    normals.explain(rows(range(enough + 1)), [])
    (verdict,) = normals.explain(rows(range(40, 41)), [said(40)])
    assert [(f.normal, f.normal_of) for f in told(verdict)] == [(7.0, "device"), (None, "device")]
    assert told(verdict)[0].limit == 200.0


def test_until_then_the_training_rows_are_what_is_normal() -> None:
    training = np.full(len(SCHEMA), 2, np.float32)
    assert normal_of(DeviceNormals(SCHEMA, training=training), 3) == (2.0, "training")


def test_an_attack_is_not_learned_nor_what_the_minute_remembers_of_it() -> None:
    normals = DeviceNormals(SCHEMA)
    normals.explain(rows(range(30)), [])
    attack = range(30, 60)
    normals.explain(rows(attack, packets=900), [said(s) for s in attack])
    after = range(60, 60 + HOLD_NS // SECOND_NS - 1)
    normals.explain(rows(after, packets=500), [])
    history = normals.history(host(1))
    assert history is not None
    assert set(history[:, SCHEMA.index[FEATURE]].tolist()) == {7.0}


def test_what_the_model_finds_hostile_is_not_learned_even_if_nobody_says_so() -> None:
    normals = DeviceNormals(SCHEMA, benign=up_to_100)
    normals.explain(rows(range(60), packets=101), [])
    assert normals.history(host(1)) is None
    normals.explain(rows(range(60, 120), packets=99), [])
    assert normals.history(host(1)) is not None


def test_old_rows_go_as_new_ones_come() -> None:
    normals = DeviceNormals(SCHEMA)
    normals.explain(rows(range(60), packets=7), [])
    normals.explain(rows(range(60, 60 + 60 * (ROWS + 1)), packets=20), [])
    history = normals.history(host(1))
    assert history is not None
    assert len(history) == ROWS
    assert set(history[:, SCHEMA.index[FEATURE]].tolist()) == {20.0}


@pytest.mark.parametrize("cut", [1, 3, 17, 200])
def test_the_cut_of_batches_changes_nothing(cut: int) -> None:
    verdicts = [said(s) for s in (2, 50, 51, 190)]
    whole = DeviceNormals(SCHEMA).explain(rows(range(200)), verdicts)
    normals, pieces = DeviceNormals(SCHEMA), []
    for start in range(0, 200, cut):
        part = range(start, min(start + cut, 200))
        pieces += normals.explain(
            rows(part), [v for v in verdicts if v.end_ns // SECOND_NS - 1 in part]
        )
    assert pieces == whole
    assert [told(v) for v in pieces] == [told(v) for v in whole]


def test_devices_are_bounded_and_the_longest_unseen_goes() -> None:
    normals = DeviceNormals(SCHEMA, max_devices=3)
    for second in DUE[:20]:
        normals.explain(matrix_of([loud()] * 4, slices=[second] * 4), [])
    assert normals.n_devices == 3
    assert normals.counters()["devices_forgotten"] > 0


def test_what_a_detector_says_of_normal_itself_stays() -> None:
    normals = DeviceNormals(SCHEMA, training=np.full(len(SCHEMA), 2, np.float32))
    own = replace(said(3), facts=(Fact(feature=FEATURE, value=9.0, normal=4.0),))
    (verdict,) = normals.explain(rows(range(3, 4)), [own])
    assert told(verdict) == own.facts
