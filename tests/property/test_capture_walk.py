"""The lane walks give what a walk record by record gives, whatever the frames hold; cut files give what is whole."""

import random
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.capture import pcap as pcap_file
from agent.capture import pcapng as pcapng_file
from agent.capture.capture_file import open_capture
from agent.capture.lanes import LANE_BYTES_MIN, walk_lanes
from tests.support.pcap_writer import enhanced, frames_of, interface, pcap, section, simple

ORDERS = st.sampled_from("<>")
NOW_NS = 1_700_000_000_000_000_000
LANES_BYTES = 40 * LANE_BYTES_MIN
"""Enough data that a window is walked in lanes."""


def fake_record(order, rng):
    """What looks like a record, to be hidden in a frame: a chain of them can run on for long."""
    caplen = rng.choice([0, 0, 16, 60, 1500])
    return struct.pack(order + "IIII", NOW_NS // 10**9 + rng.randrange(60), 5, caplen, caplen)


def hostile_frame(rng, fake):
    kind = rng.randrange(5)
    if kind == 0:
        return bytes(rng.choice([0, 14, 60]))
    if kind == 1:
        return b"".join(fake(rng) for _ in range(rng.randrange(1, 95)))
    if kind == 2:
        return rng.randbytes(rng.randrange(3)) + fake(rng) * rng.randrange(1, 90)
    if kind == 3:
        return rng.randbytes(rng.randrange(1500))
    return fake(rng) * 500  # a frame far larger than what is searched for a lane's start


def many(rng, frame):
    """Frames until a window is walked in lanes."""
    frames, total = [], 0
    while total < LANES_BYTES:
        frames.append(frame(rng))
        total += len(frames[-1]) + 16
    return frames


@given(seed=st.integers(0, 2**32), order=ORDERS, hostile=st.booleans())
@settings(max_examples=40, deadline=None)
def test_pcap_lanes_equal_the_scalar_walk(seed, order, hostile):
    rng = random.Random(seed)
    fake = (lambda r: fake_record(order, r)) if hostile else (lambda r: r.randbytes(16))
    frames = many(rng, lambda r: hostile_frame(r, fake))
    data = pcap([(NOW_NS + i, f) for i, f in enumerate(frames)], order=order)[24:]
    window = np.frombuffer(data, np.uint8)[: rng.randrange(LANES_BYTES // 2, len(data) + 1)]
    lanes = pcap_file.record_offsets(window, order)
    scalar = pcap_file.scalar_offsets(window, 0, len(window) - 15, order)
    assert np.array_equal(lanes[0], scalar[0])
    assert lanes[1] == scalar[1]


def test_ordinary_traffic_is_walked_in_lanes_to_its_end():
    """Guards the speed: were no lane ever proved, the results would be right and slow."""
    rng = random.Random(7)
    frames = many(rng, lambda r: r.randbytes(r.randrange(60, 1514)))
    data = pcap([(NOW_NS + i * 1000, f) for i, f in enumerate(frames)])[24:]
    window = np.frombuffer(data, np.uint8)
    start, stop = pcap_file.lane_starts(window, "<"), len(window) - 15
    caplen = pcap_file.words(window, "<")[8:]
    offset, at = walk_lanes(start, stop, lambda position: position + 16 + caplen[position])
    assert len(start) > 30
    assert len(offset) == len(frames)
    assert at == len(window)


def ng_frame(rng, order):
    """A block, or one whose frame holds whole blocks."""
    inner = [
        enhanced(rng.randbytes(rng.randrange(80)), order=order) for _ in range(rng.randrange(12))
    ]
    frame = b"".join(inner)[rng.choice([0, 0, 4, 5]) :]
    if rng.random() < 0.5:
        return simple(frame, order=order)
    return enhanced(frame, NOW_NS // 1000, order=order, comment=rng.choice([b"", b"note"]))


@given(seed=st.integers(0, 2**32), order=ORDERS)
@settings(max_examples=25, deadline=None)
def test_pcapng_lanes_equal_the_scalar_walk(seed, order):
    rng = random.Random(seed)
    blocks = many(rng, lambda r: ng_frame(r, order))
    data = b"".join(blocks)
    window = np.frombuffer(data, np.uint8)[: rng.randrange(LANES_BYTES // 2, len(data) + 1)]
    lanes = pcapng_file.block_offsets(window, order)
    assert np.array_equal(lanes, pcapng_file.scalar_offsets(window, 0, len(window) - 7, order))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("walk") / "capture"


RECORDS = st.lists(
    st.tuples(st.integers(0, 2**32 * 10**9 - 1), st.binary(max_size=90), st.integers(0, 2**31 - 1)),
    max_size=12,
)


@given(records=RECORDS, order=ORDERS, ns=st.booleans(), cut=st.floats(0, 1))
@settings(max_examples=150, deadline=None)
def test_pcap_cut_anywhere(path, records, order, ns, cut):
    data = pcap(records, order=order, ns=ns)
    end = 24 + round(cut * (len(data) - 24))
    path.write_bytes(data[:end])
    ends = (24 + np.cumsum([0, *(16 + len(f) for _, f, _ in records)])).tolist()
    whole = sum(e <= end for e in ends) - 1
    with open_capture(path, batch_frames=5) as capture:
        seen = frames_of(capture)
        assert seen == [
            (ts if ns else ts // 1000 * 1000, f, max(w, len(f))) for ts, f, w in records[:whole]
        ]
        assert (capture.truncated is None) == (end == ends[whole])


@given(records=RECORDS, order=ORDERS, cut=st.floats(0, 1), data=st.data())
@settings(max_examples=150, deadline=None)
def test_pcapng_cut_anywhere(path, records, order, cut, data):
    blocks = [section(order), interface(order=order, resolution=9)]
    for ts, frame, wirelen in records:
        blocks.append(enhanced(frame, ts, order=order, wirelen=wirelen))
    whole_file = b"".join(blocks)
    end = 12 + round(cut * (len(whole_file) - 12))
    path.write_bytes(whole_file[:end])
    ends = np.cumsum([len(b) for b in blocks]).tolist()
    whole = max(sum(e <= end for e in ends) - 2, 0)
    with open_capture(path, batch_frames=data.draw(st.integers(1, 20))) as capture:
        seen = frames_of(capture)
        assert seen == [(min(ts, 2**62), f, max(w, len(f))) for ts, f, w in records[:whole]]
        assert (capture.truncated is None) == (end in ends)


@given(noise=st.binary(max_size=300), order=ORDERS, start=st.sampled_from(["pcap", "pcapng"]))
@settings(max_examples=200, deadline=None)
def test_noise_behind_a_good_start_never_breaks_the_reader(path, noise, order, start):
    head = pcap([(0, b"first")], order=order)
    if start == "pcapng":
        head = section(order) + interface(order=order) + enhanced(b"first", order=order)
    path.write_bytes(head + noise)
    with open_capture(path) as capture:
        seen = frames_of(capture)
    assert seen[0] == (0, b"first", 5)
