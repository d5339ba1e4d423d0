"""Verdicts of the baseline, with the facts: what is new, what is out of its range, and what is normal.

In: a row of a matrix and how it was judged. Out: a `Verdict` about the device itself, without an attacker: who is at
the other end may be the device's victim as well. Raises nothing. Remembers nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from agent.records import NOBODY, Endpoint, Fact, FeatureMatrix, Verdict
from agent.score.baseline_features import PROTOCOLS, RATES, edge, middle
from agent.score.baseline_score import Judged, ceiling

if TYPE_CHECKING:
    from agent.score.baseline_profiles import Profiles

NAME = "baseline"
KIND = "device_anomaly"
MAX_FACTS = 4
INWARD = ("in_", "new_peer_in", "new_port_in")


def verdict(
    profiles: Profiles, matrix: FeatureMatrix, row: int, judged: Judged, at: int, *, threshold: int
) -> Verdict:
    """The verdict of row `row` of the matrix, which is row `at` of `judged`."""
    subjects = matrix.subjects
    host = Endpoint(int(subjects.hi[row]), int(subjects.lo[row]))
    facts = facts_of(profiles, matrix, row, judged, at)
    ports = [
        int(port[row])
        for name, port in (("new_port_out", subjects.out_port), ("new_port_in", subjects.in_port))
        if judged.new[name][at]
    ]
    inward = bool(facts) and facts[0].feature.startswith(INWARD)
    packets = "in_packets_1s" if inward else "out_packets_1s"
    score = int(judged.score[at])
    return Verdict(
        detector=NAME,
        kind=KIND,
        subject=host,
        attacker=NOBODY,
        victim=host,
        spoofed=False,
        distributed=False,
        start_ns=int(matrix.start_ns[row]),
        end_ns=int(matrix.end_ns[row]),
        margin=score,
        threshold=threshold,
        score=round(1.0 - 0.5 * threshold / score, 4),
        count=max(1, int(matrix.values[row, matrix.schema.index[packets]])),
        ports=tuple(dict.fromkeys(ports)),
        facts=facts,
    )


def facts_of(
    profiles: Profiles, matrix: FeatureMatrix, row: int, judged: Judged, at: int
) -> tuple[Fact, ...]:
    """What is new, then the rates that lie farthest outside; at most `MAX_FACTS`."""
    index = matrix.schema.index

    def value(name: str) -> float:
        return float(matrix.values[row, index[name]])

    facts = [
        Fact(feature=name, value=1.0, normal=0.0) for name in judged.new if judged.new[name][at]
    ]
    spoken = [PROTOCOLS[which] for which in np.flatnonzero(judged.new_protocols[at]).tolist()]
    facts += [Fact(feature=name, value=value(name), normal=0.0) for name in spoken]
    told = {fact.feature for fact in facts}
    by = judged.by[at : at + 1]
    highest = ceiling(profiles, by)[0]
    for rate in np.argsort(-judged.excess[at].astype(np.int64), kind="stable")[:MAX_FACTS].tolist():
        name, soft = RATES[rate]
        if judged.excess[at, rate] and name not in told:
            limit = edge(int(highest[rate]) + 1, soft)
            normal = middle(profiles.normal(int(by[0]), rate), soft)
            facts.append(Fact(feature=name, value=value(name), limit=limit, normal=normal))
    return tuple(facts[:MAX_FACTS])
