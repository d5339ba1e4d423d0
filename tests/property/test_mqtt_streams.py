"""Random conversations in random segments: the fast decoder equals the slow reference, however they are cut."""

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from agent.decode.mqtt import MqttStreams
from tests.support import mqtt_packets as mq
from tests.support.mqtt_reference import Reference

LEVELS = st.sampled_from([3, 4, 5])
TEXT = st.one_of(
    st.text("abcz/019", min_size=0, max_size=30),
    st.text(min_size=0, max_size=12).map(lambda t: t.encode("utf-8", "replace")),
    st.binary(max_size=12),
    st.sampled_from(
        ["a/+", "#", "ward/1/bed/10/vitals/heart/rate/of/the/patient/in/the/second/bed"]
    ),
)
IDS = st.sampled_from([0, 1, 7, 65535])


def upward(level):
    """Packets that clients send, good and bad."""
    return st.one_of(
        st.builds(
            mq.publish, TEXT, st.binary(max_size=300), qos=st.integers(0, 3), dup=st.integers(0, 1),
            packet_id=IDS, level=st.just(level),
        ),
        st.just(mq.PINGREQ),
        st.just(mq.PINGREQ * 9),
        st.just(mq.publish("a", b"1", level=level) * 12),
        st.builds(mq.subscribe, TEXT, TEXT, packet_id=IDS, level=st.just(level), qos=st.integers(0, 3)),
        st.builds(mq.unsubscribe, TEXT, packet_id=IDS, level=st.just(level)),
        st.builds(mq.acknowledge, st.integers(4, 7), IDS, code=st.sampled_from([None, 0, 0x80])),
        st.builds(mq.connect, level=st.just(level)),
        st.just(mq.disconnect(4)),
        st.builds(mq.packet, st.integers(0, 255), st.binary(max_size=200)),
    )  # fmt: skip


def downward(level):
    return st.one_of(
        st.builds(
            mq.publish, TEXT, st.binary(max_size=300), qos=st.integers(0, 2), level=st.just(level)
        ),
        st.just(mq.PINGRESP),
        st.builds(mq.suback, st.sampled_from([0, 1, 0x80]), packet_id=IDS, level=st.just(level)),
        st.builds(mq.unsuback, level=st.just(level)),
        st.builds(mq.acknowledge, st.integers(4, 7), IDS),
        st.builds(mq.packet, st.integers(0, 255), st.binary(max_size=200)),
    )


@st.composite
def talks(draw):
    """A level, the bytes of both directions, and where to cut them."""
    level = draw(LEVELS)
    up = mq.connect(level=level) + b"".join(draw(st.lists(upward(level), max_size=12)))
    down = mq.connack(level=level) + b"".join(draw(st.lists(downward(level), max_size=8)))
    return level, up, down


def cut(data, draw, *, most=120):
    """The data in pieces of random sizes, many of them tiny."""
    sizes = st.one_of(st.integers(1, 4), st.integers(1, most))
    pieces, at = [], 0
    while at < len(data):
        size = draw(sizes)
        pieces.append(data[at : at + size])
        at += size
    return pieces


def segments_of(level, up, down, draw):
    """CONNECT first, whole or not; then both directions, interleaved."""
    talk = mq.Talk().open()
    first = len(mq.connect(level=level))
    talk.up(*cut(up[:first], draw))
    ways = [(True, cut(up[first:], draw)), (False, cut(down, draw))]
    while any(pieces for _, pieces in ways):
        way, pieces = draw(st.sampled_from([w for w in ways if w[1]]))
        talk.add(way, pieces.pop(0))
    return talk.segments


def expected(level, data, *, to_server):
    reference = Reference(to_server=to_server, level=0 if to_server else level)
    return reference.parse(data)


def compare(rows, level, up, down):
    for way, data in ((True, up), (False, down)):
        got = [
            {k: v for k, v in r.items() if k not in {"row", "extrapolated", "synchronised"}}
            for r in rows
            if r["to_server"] is way
        ]
        want = expected(level, data, to_server=way)
        # The last packet may have been taken from its header, before its end.
        assert got[: len(want)] == want
        assert len(got) - len(want) in {0, 1}
    assert all(r["synchronised"] for r in rows)
    assert not any(r["extrapolated"] for r in rows)


QUICK = settings(
    max_examples=120,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@QUICK
@given(talks(), st.data(), st.sampled_from([None, 1, 3]))
def test_any_segmentation_equals_the_reference(talk, data, batch):
    level, up, down = talk
    segments = segments_of(level, up, down, data.draw)
    compare(mq.decode(MqttStreams(), segments, batch=batch), level, up, down)


@QUICK
@given(talks(), st.data())
def test_retransmission_changes_nothing(talk, data):
    level, up, down = talk
    segments = segments_of(level, up, down, data.draw)
    for _ in range(4):
        again = data.draw(st.integers(2, len(segments) - 1))
        segments.insert(data.draw(st.integers(again, len(segments))), segments[again])
    batch = data.draw(st.sampled_from([None, 1, 3]))
    compare(mq.decode(MqttStreams(), segments, batch=batch), level, up, down)


@QUICK
@given(talks(), st.data())
def test_reordering_within_a_batch_changes_nothing(talk, data):
    level, up, down = talk
    segments = segments_of(level, up, down, data.draw)
    head = 2 + data.draw(st.integers(0, len(segments) - 2))
    tail = segments[head:]
    shuffled = sorted(range(len(tail)), key=lambda i: i + data.draw(st.integers(0, 4)))
    rows = mq.decode(MqttStreams(), segments[:head] + [tail[i] for i in shuffled])
    assert [r["row"] for r in rows] == sorted(r["row"] for r in rows)
    compare_types(rows, level, up, down)


def compare_types(rows, level, up, down):
    """Reordering may put a packet before the CONNECT that tells its level: types and lengths are compared."""
    for way, data in ((True, up), (False, down)):
        got = [
            (r["packet_type"], r["flags"], r["remaining_len"])
            for r in rows
            if r["to_server"] is way
        ]
        want = [
            (r["packet_type"], r["flags"], r["remaining_len"])
            for r in expected(level, data, to_server=way)
        ]
        assert got[: len(want)] == want
        assert len(got) - len(want) in {0, 1}


@QUICK
@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 2**32 - 1), st.binary(max_size=80)), max_size=30
    ),
    st.data(),
)
def test_any_bytes_at_any_numbers_are_survived(pieces, data):
    segments = [
        mq.Segment(way, seq, payload, data.draw(st.sampled_from([24, 2, 18, 17, 4])),
                   data.draw(st.sampled_from([None, 0, 1, 5])))
        for way, seq, payload in pieces
    ]  # fmt: skip
    streams = MqttStreams(max_flows=2)
    rows = mq.decode(streams, segments, batch=data.draw(st.sampled_from([None, 1, 4])))
    assert [r["row"] for r in rows] == sorted(r["row"] for r in rows)
    assert streams.counters()["flows"] <= 2
