"""Walks of payloads: the vectorised one and the plain one find what a naive one finds, within their bounds."""

import random
from collections import Counter

import numpy as np
import pytest

from agent.decode.mqtt_scan import Purse, Stop, max_entries, max_headers, scan
from agent.decode.mqtt_walk import walk
from tests.support import mqtt_packets as mq

KINDS = [
    mq.PINGREQ,
    mq.PINGRESP,
    mq.acknowledge(4, 1),
    mq.acknowledge(4, 2),
    mq.publish("a", b""),
    mq.publish("a", b"12"),
    mq.publish("a", b"x" * 200),
]


def payload(chance, n):
    parts = []
    for _ in range(n):
        parts += [chance.choice(KINDS)] * chance.choice([1, 1, 1, 2, 5, 12, 40, 130])
    return parts


def walk_all(data, purse=None):
    length = np.array([len(d) for d in data])
    offset = np.cumsum(length) - length
    return walk(np.frombuffer(b"".join(data), np.uint8), offset, length, length, purse)


def counts(walked, i):
    mine = walked.payload == i
    total = Counter()
    for first, count in zip(walked.first[mine].tolist(), walked.count[mine].tolist(), strict=True):
        total[first] += count
    return total


def test_many_payloads_at_once():
    chance = random.Random(3)
    parts = [payload(chance, chance.randrange(1, 30)) for _ in range(200)]
    walked = walk_all([b"".join(p) for p in parts])
    assert (walked.stop == Stop.LANDED).all()
    assert not walked.extrapolated.any()
    for i, packets in enumerate(parts):
        assert walked.packets[i] == len(packets)
        assert counts(walked, i) == Counter(p[0] for p in packets)
    assert (
        np.bincount(walked.payload).max() <= max_entries(max(len(b"".join(p)) for p in parts)) + 16
    )


@pytest.mark.parametrize("trusting", [False, True])
def test_one_payload(trusting):
    chance = random.Random(4)
    for _ in range(100):
        packets = payload(chance, chance.randrange(1, 30))
        data = b"".join(packets)
        found = scan(data, 0, len(data), trusting=trusting)
        assert (found.stop, found.end, found.packets) == (Stop.LANDED, len(data), len(packets))
        total = Counter()
        for entry in found.entries:
            total[entry[1]] += entry[4]
        assert total == Counter(p[0] for p in packets)


ENDS = [
    (mq.PINGREQ + b"\x30", 3, Stop.CUT, 2),
    (mq.PINGREQ + b"\x30\x05ab", 6, Stop.CUT, 2),
    (mq.PINGREQ + b"\xc0", 3, Stop.CUT, 2),
    (mq.PINGREQ + b"\x30\x80", 4, Stop.CUT, 2),
    (mq.PINGREQ + b"\x30\xff\xff\xff\xff\x01", 8, Stop.MALFORMED, 2),
    (mq.PINGREQ + b"\x00\x01x", 5, Stop.IMPLAUSIBLE, 2),
    (mq.PINGREQ, 5, Stop.LOST, 2),
]


@pytest.mark.parametrize(("data", "length", "stop", "end"), ENDS)
def test_why_a_walk_ends(data, length, stop, end):
    found = scan(data, 0, length, trusting=False)
    assert (found.stop, found.end) == (stop, end)
    many = 40
    walked = walk(
        np.frombuffer(data + b"\xc0\x00", np.uint8),
        np.zeros(many, np.int64),
        np.full(many, length),
        np.full(many, len(data)),
    )
    assert set(walked.stop.tolist()) == {stop}
    assert set(walked.end.tolist()) == {end}


def test_what_no_bound_holds_is_estimated_and_marked():
    """Two- and four-byte packets in turn, 65 kB of them: too many headers for one payload."""
    chance = random.Random(5)
    packets = [chance.choice([mq.PINGREQ, mq.acknowledge(4, 9)]) for _ in range(22_000)]
    data = b"".join(packets)
    found = scan(data, 0, len(data), trusting=False)
    assert found.stop == Stop.BUDGET
    assert [e for e in found.entries if e[5]] == [found.entries[-1]]
    assert abs(found.packets - len(packets)) < len(packets) / 20
    assert len(found.entries) <= max_entries(len(data)) + 257
    assert found.cost <= max_headers(len(data))
    walked = walk_all([data] * 30)
    assert set(walked.stop.tolist()) == {Stop.BUDGET}
    assert abs(int(walked.packets[0]) - len(packets)) < len(packets) / 10
    assert walked.extrapolated.sum() == 30


def test_a_full_frame_of_equal_packets_is_exact_to_the_last():
    for one, n in (
        (mq.PINGREQ, 32_000),
        (mq.acknowledge(4, 9), 16_000),
        (mq.publish("a", b"12"), 8_000),
    ):
        for copies in (1, 30):
            walked = walk_all([one * n] * copies)
            assert walked.packets.tolist() == [n] * copies
            assert not walked.extrapolated.any()


@pytest.mark.parametrize("n", [3, 300])
def test_an_empty_purse_ends_the_walks_of_long_payloads_only(n):
    chance = random.Random(11)
    short = mq.publish("a", b"12") + mq.acknowledge(4, 9)
    parts = [chance.choices([mq.PINGREQ, mq.acknowledge(4, 9)], k=500) for _ in range(n)]
    data = [short] * n + [b"".join(p) for p in parts]
    purse = Purse(most=100, per_segment=1, per_ms=1)
    walked = walk_all(data, purse)
    assert walked.packets[:n].tolist() == [2] * n
    assert set(walked.stop[n:].tolist()) == {Stop.BUDGET}
    assert np.bincount(walked.payload[walked.extrapolated], minlength=2 * n).tolist() == (
        [0] * n + [1] * n
    )
    assert abs(walked.packets[n:].mean() - 500) < 125
    assert -16 * 2 * n <= purse.steps <= 2 * n


def test_an_empty_purse_does_no_harm_to_runs():
    walked = walk_all([mq.PINGREQ * 700] * 100, Purse(most=0, per_segment=0, per_ms=0))
    assert walked.packets.tolist() == [700] * 100
    assert not walked.extrapolated.any()


def test_a_purse_fills_by_segments_and_by_time_up_to_its_size():
    purse = Purse(most=100, per_segment=2, per_ms=10)
    purse.steps = -1_000_000  # what a batch overdrew is not held against the next one
    purse.refill(5, 1_000_000_000)
    assert purse.steps == 10
    purse.refill(0, 1_003_000_000)
    assert purse.steps == 40
    purse.refill(0, 1_000_000_000)
    assert purse.steps == 40
    purse.refill(7, 9_000_000_000)
    assert purse.steps == 114
