"""Small wards for the baseline: matrices of `ip-1` with the columns that a story needs, second by second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cache

import numpy as np

from agent.features.ip_schema import SCHEMA
from agent.records import NOBODY, V4_MAPPED_LO, Endpoint, FeatureMatrix, Subjects
from agent.score.baseline import BaselineDetector, Settings

SECOND_NS = 1_000_000_000
T0_NS = 1_700_000_000 * SECOND_NS
SPAN_S = 100.0
"""The learning time of the tests, in the place of a day."""
QUICK = Settings(max_devices=64, max_sample_rows=50).compressed(SPAN_S)


def host(number: int) -> Endpoint:
    """10.0.x.y"""
    return Endpoint(0, V4_MAPPED_LO | 0x0A000000 | number)


BROKER = host(250)


def row(
    device: Endpoint, peer: Endpoint = BROKER, port: int = 1883, **features: float
) -> dict[str, object]:
    """One device in one second: a few packets to its broker, unless the story says otherwise."""
    features = {"out_packets_1s": 5, "in_packets_1s": 5, "out_mqtt_publishes_1s": 1, **features}
    return {"device": device, "peer": peer, "port": port, "features": features}


def matrix(*seconds: tuple[int, Sequence[Mapping[str, object]]]) -> FeatureMatrix:
    """Rows of several seconds after T0, ordered as the extractor orders them."""
    rows = [
        (second, r) for second, group in seconds for r in sorted(group, key=lambda r: r["device"])
    ]
    n = len(rows)
    values = np.zeros((n, len(SCHEMA)), np.float32)
    for i, (_, r) in enumerate(rows):
        for name, value in r["features"].items():
            values[i, SCHEMA.index[name]] = value

    def u64(part):
        return np.array([part(r) for _, r in rows], np.uint64)

    zeros = np.zeros(n, np.uint64)
    end_ns = np.array([T0_NS + (second + 1) * SECOND_NS for second, _ in rows], np.int64)
    subjects = Subjects(
        hi=u64(lambda r: r["device"].hi),
        lo=u64(lambda r: r["device"].lo),
        mac=zeros,
        in_peer_hi=u64(lambda r: r["peer"].hi),
        in_peer_lo=u64(lambda r: r["peer"].lo),
        in_peer_packets=np.ones(n, np.int64),
        out_peer_hi=u64(lambda r: r["peer"].hi),
        out_peer_lo=u64(lambda r: r["peer"].lo),
        out_peer_packets=np.ones(n, np.int64),
        in_port=np.full(n, -1, np.int32),
        out_port=np.array([r["port"] for _, r in rows], np.int32),
        in_new_sources=np.zeros(n, np.int64),
        rival_mac=zeros,
        probed_hi=np.full(n, NOBODY.hi, np.uint64),
        probed_lo=zeros,
    )
    return FeatureMatrix(
        schema=SCHEMA,
        values=values,
        subjects=subjects,
        start_ns=end_ns - SECOND_NS,
        end_ns=end_ns,
    )


PUMP, MONITOR, NEWCOMER = host(7), host(9), host(99)


@cache
def quiet(start: int, stop: int) -> FeatureMatrix:
    """A pump and a monitor, as always; their rate swings between 5 and 8 packets a second."""
    return matrix(
        *(
            (s, [row(PUMP, out_packets_1s=5 + s % 4), row(MONITOR, in_packets_1s=5 + s % 3)])
            for s in range(start, stop)
        )
    )


def learned(settings: Settings = QUICK, stop: int = 200, **kwargs) -> BaselineDetector:
    """A baseline that knows the pump and the monitor, by judging quiet traffic up to second `stop`."""
    if kwargs:
        return _learned(settings, stop, **kwargs)
    return deepcopy(_learned_once(settings, stop))


def _learned(settings: Settings, stop: int, **kwargs) -> BaselineDetector:
    detector = BaselineDetector(SCHEMA, settings, **kwargs)
    assert detector.judge(quiet(0, stop)) == []
    return detector


@cache
def _learned_once(settings: Settings, stop: int) -> BaselineDetector:
    return _learned(settings, stop)
