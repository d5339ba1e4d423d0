"""MQTT out of TCP segments: in order, cut, resent, reordered, with holes, met in the middle, evicted."""

import random

import numpy as np
import pytest

from agent.decode.mqtt import MqttStreams, empty_table
from agent.records import MqttTable, MqttType
from tests.support import mqtt_packets as mq

UP = [
    mq.connect("pump-3", keep_alive_s=30),
    mq.publish("ward/1/bed/4/spo2", b"97", qos=1, packet_id=1),
    mq.subscribe("ward/1/+/cmd", qos=1, packet_id=2),
    mq.PINGREQ,
    mq.publish("ward/1/bed/4/waveform", b"w" * 300),
    mq.DISCONNECT,
]
DOWN = [
    mq.connack(),
    mq.acknowledge(4, 1),
    mq.suback(1, packet_id=2),
    mq.PINGRESP,
    mq.publish("ward/1/bed/4/cmd", b"go", qos=2),
]
TYPES_UP = [1, 3, 8, 12, 3, 14]
TYPES_DOWN = [2, 4, 9, 13, 3]


def types(rows, *, to_server=True):
    return [r["packet_type"] for r in rows if r["to_server"] is to_server]


def plain(rows):
    """What does not depend on how the bytes were cut."""
    return [{k: v for k, v in r.items() if k != "row"} for r in rows]


def whole():
    """One packet a segment, the server's after the client's."""
    talk = mq.Talk().open()
    return talk.up(UP[0]).down(DOWN[0]).up(*UP[1:]).down(*DOWN[1:])


def expected():
    return plain(mq.decode(MqttStreams(), whole().segments))


def test_an_ordinary_conversation_is_read_field_by_field():
    rows = mq.decode(MqttStreams(), whole().segments)
    assert types(rows) == TYPES_UP
    assert types(rows, to_server=False) == TYPES_DOWN
    assert [r["row"] for r in rows] == list(range(2, 13))
    assert all(r["synchronised"] and r["violation"] == 0 and r["level"] == 4 for r in rows)
    connect, connack, publish, subscribe = rows[0], rows[1], rows[2], rows[3]
    assert (connect["connect_flags"], connect["keep_alive_s"], connect["remaining_len"]) == (
        2,
        30,
        18,
    )
    assert connack["code"] == 0
    assert (publish["flags"], publish["topic_len"], publish["code"]) == (2, 17, -1)
    assert (subscribe["topic_len"], subscribe["wildcard"]) == (12, True)
    assert next(r for r in rows if r["packet_type"] == MqttType.SUBACK)["code"] == 1
    assert [r["keep_alive_s"] for r in rows[1:]] == [-1] * 10


def test_no_packet_gives_an_empty_table():
    streams = MqttStreams()
    assert len(streams.decode(**mq.columns([])).row) == 0
    assert mq.decode(streams, mq.Talk().open().segments) == []
    table = empty_table()
    assert isinstance(table, MqttTable)
    assert all(len(getattr(table, name)) == 0 for name in MqttTable.__slots__)


@pytest.mark.parametrize("batch", [None, 1])
def test_cut_at_every_byte_it_is_the_same(batch):
    want = expected()
    stream = b"".join(UP[1:])
    for at in range(1, len(stream)):
        talk = mq.Talk().open().up(UP[0]).down(DOWN[0]).up(stream[:at], stream[at:]).down(*DOWN[1:])
        assert plain(mq.decode(MqttStreams(), talk.segments, batch=batch)) == want, at


def test_a_connect_cut_at_every_byte_is_the_same():
    want = expected()
    for at in range(1, len(UP[0])):
        talk = mq.Talk().open().up(UP[0][:at], UP[0][at:]).down(DOWN[0]).up(*UP[1:]).down(*DOWN[1:])
        assert plain(mq.decode(MqttStreams(), talk.segments)) == want, at


@pytest.mark.parametrize("batch", [None, 1, 7])
def test_one_byte_a_segment_is_the_same(batch):
    talk = mq.Talk().open().up(*(bytes([b]) for b in UP[0])).down(*(bytes([b]) for b in DOWN[0]))
    talk.up(*(bytes([b]) for b in b"".join(UP[1:]))).down(*(bytes([b]) for b in b"".join(DOWN[1:])))
    assert plain(mq.decode(MqttStreams(), talk.segments, batch=batch)) == expected()


def test_all_of_it_in_one_segment_is_the_same():
    talk = mq.Talk().open().up(UP[0]).down(DOWN[0]).up(b"".join(UP[1:])).down(b"".join(DOWN[1:]))
    assert plain(mq.decode(MqttStreams(), talk.segments)) == expected()


def test_a_packet_belongs_to_the_frame_that_told_its_fields():
    """The topic of the long PUBLISH ends in its first segment; the CONNECT's fields in its second."""
    talk = mq.Talk().open().up(UP[0][:6], UP[0][6:]).up(UP[4][:40], UP[4][40:200], UP[4][200:])
    rows = mq.decode(MqttStreams(), talk.segments)
    assert [(r["packet_type"], r["row"]) for r in rows] == [(1, 3), (3, 4)]


@pytest.mark.parametrize("batch", [None, 1])
def test_what_is_sent_again_counts_once(batch):
    segments = whole().segments
    for i in range(2, len(segments)):
        again = [*segments[: i + 1], segments[i], *segments[i + 1 :], segments[i]]
        assert plain(mq.decode(MqttStreams(), again, batch=batch)) == expected(), i


def test_a_segment_sent_again_with_more_counts_what_is_new():
    talk = mq.Talk().open().up(UP[0], UP[1])
    longer = mq.Segment(True, talk.segments[-1].seq, UP[1] + UP[2] + UP[3])
    rows = mq.decode(MqttStreams(), [*talk.segments, longer])
    assert types(rows) == [1, 3, 8, 12]


def test_reordered_within_a_batch_it_is_put_in_order():
    talk = mq.Talk().open().up(UP[0], *UP[1:])
    segments = talk.segments
    for i in range(3, len(segments) - 1):
        swapped = segments.copy()
        swapped[i], swapped[i + 1] = swapped[i + 1], swapped[i]
        rows = mq.decode(MqttStreams(), swapped)
        assert types(rows) == TYPES_UP
        assert all(r["synchronised"] for r in rows)
        assert [r["row"] for r in rows] == sorted(r["row"] for r in rows)


def test_a_hole_of_headers_puts_a_flow_out_of_step_and_a_chain_back():
    talk = (
        mq.Talk().open().up(UP[0], UP[1], mq.PINGREQ, UP[1], UP[1], UP[1], UP[1], UP[1], mq.PINGREQ)
    )
    segments = talk.segments
    del segments[4]
    rows = mq.decode(MqttStreams(), segments)
    assert types(rows) == [1, 3, 3, 3, 3, 3, 3, 12]
    assert [r["synchronised"] for r in rows] == [True] * 2 + [False] * 4 + [True] * 2


def test_a_hole_in_a_body_does_no_harm():
    big = mq.publish("a/b", b"x" * 4000)
    pieces = [big[i : i + 1000] for i in range(0, len(big), 1000)]
    talk = mq.Talk().open().up(UP[0], *pieces, mq.PINGREQ)
    segments = [*talk.segments[:4], *talk.segments[6:]]
    rows = mq.decode(MqttStreams(), segments)
    assert types(rows) == [1, 3, 12]
    assert all(r["synchronised"] for r in rows)


def test_a_body_that_looks_like_packets_is_not_read():
    inside = mq.connect() + mq.PINGREQ * 100
    big = mq.publish("a", inside * 3)
    talk = mq.Talk().open().up(UP[0], big[:6], inside, inside, inside, mq.DISCONNECT)
    assert types(mq.decode(MqttStreams(), talk.segments)) == [1, 3, 14]


@pytest.mark.parametrize("batch", [None, 1])
def test_met_in_the_middle_it_is_counted_and_not_judged(batch):
    bad = mq.publish("ward/+")
    talk = mq.Talk().up(bad, bad, bad, bad, mq.PINGREQ, bad)
    rows = mq.decode(MqttStreams(), talk.segments, batch=batch)
    assert types(rows) == [3, 3, 3, 3, 12, 3]
    assert [r["synchronised"] for r in rows] == [False] * 4 + [True] * 2
    assert [r["violation"] for r in rows] == [0] * 5 + [10]


def test_random_bytes_on_the_port_are_no_packets():
    noise = np.random.default_rng(5).bytes(1200)
    streams = MqttStreams()
    assert mq.decode(streams, mq.Talk().up(noise, noise).segments) == []
    assert streams.counters()["flows"] == 0
    assert streams.counters()["unread_segments"] == 2


def test_a_capture_that_cuts_frames_goes_on_by_declared_lengths():
    talk = mq.Talk().open().up(UP[0])
    talk.add(True, mq.publish("a/b", b"x" * 900), captured=60)
    talk.add(True, mq.publish("a/b", b"x" * 900) + mq.PINGREQ, captured=60)
    talk.add(True, mq.PINGREQ)
    rows = mq.decode(MqttStreams(), talk.segments)
    assert types(rows) == [1, 3, 3, 12]
    assert [r["synchronised"] for r in rows] == [True, True, True, False]


def test_a_cut_header_is_taken_as_far_as_it_goes():
    talk = mq.Talk().open().up(UP[0])
    talk.add(True, mq.publish("ward/1/bed/4/spo2", b"x" * 900, qos=1, packet_id=0), captured=12)
    talk.add(True, mq.PINGREQ)
    rows = mq.decode(MqttStreams(), talk.segments)
    assert [(r["packet_type"], r["topic_len"], r["violation"]) for r in rows[1:]] == [
        (3, 17, 0),
        (12, -1, 0),
    ]


def test_a_new_connection_on_the_same_ports_starts_afresh():
    first = mq.Talk().open().up(UP[0], mq.publish("a", b"x" * 500)[:100])
    second = (
        mq.Talk(client_isn=1000, server_isn=9000)
        .open()
        .up(mq.connect(level=5))
        .down(mq.connack(level=5))
    )
    for batch in (None, 1):
        rows = mq.decode(MqttStreams(), first.segments + second.segments, batch=batch)
        assert types(rows) == [1, 3, 1]
        assert rows[-1]["level"] == 5
        assert all(r["synchronised"] and r["violation"] == 0 for r in rows)


def test_fin_and_rst_free_a_flow_but_not_a_forged_one():
    streams = MqttStreams()
    talk = mq.Talk().open().up(UP[0])
    mq.decode(streams, talk.segments)
    forged = mq.Segment(True, (talk.next[True] + 0x6000_0000) & 0xFFFF_FFFF, b"", mq.RST)
    mq.decode(streams, [forged])
    assert streams.counters()["flows"] == 1
    mq.decode(streams, [mq.Segment(True, talk.next[True], b"", mq.RST)])
    assert streams.counters()["flows"] == 0
    again = mq.Talk().open().up(UP[0])
    again.add(True, mq.DISCONNECT, mq.FIN | mq.ACK)
    mq.decode(streams, again.segments)
    assert streams.counters()["flows"] == 1
    again.segments.clear()
    again.add(False, b"", mq.FIN | mq.ACK)
    mq.decode(streams, again.segments)
    assert streams.counters()["flows"] == 0


@pytest.mark.parametrize("batch", [None, 1])
def test_after_a_fin_the_other_direction_goes_on(batch):
    """A half-closed connection keeps its level and its place, wherever the batches are cut."""
    talk = mq.Talk().open().up(mq.connect(level=5))
    talk.add(True, mq.PINGREQ, mq.FIN | mq.ACK)
    talk.segments.append(talk.segments[-1])  # sent again
    talk.down(mq.connack(level=5))
    rows = mq.decode(MqttStreams(), talk.segments, batch=batch)
    assert [r["packet_type"] for r in rows] == [1, 12, 2]
    assert [r["level"] for r in rows] == [5, 5, 5]


def test_flows_are_bounded_and_evictions_counted():
    streams = MqttStreams(max_flows=4)
    talks = [mq.Talk(client=(0x0A000000 + i, 40000)).open().up(UP[0]) for i in range(10)]
    for talk in talks:
        assert types(mq.decode(streams, talk.segments)) == [1]
    counters = streams.counters()
    assert (counters["flows"], counters["evictions"], counters["flows_created"]) == (4, 6, 10)
    for talk in (talks[0], talks[9]):
        talk.segments.clear()
        talk.up(mq.publish("ward/+"))
    assert [r["violation"] for r in mq.decode(streams, talks[9].segments)] == [10]
    assert [r["synchronised"] for r in mq.decode(streams, talks[0].segments)] == [False]


def test_more_flows_in_a_batch_than_the_table_holds_are_still_counted():
    streams = MqttStreams(max_flows=4)
    segments = [
        s for i in range(50) for s in mq.Talk(client=(i, 1000 + i)).open().up(UP[0]).segments
    ]
    assert types(mq.decode(streams, segments)) == [1] * 50
    assert streams.counters()["flows"] == 4


def test_a_flood_of_syns_evicts_no_flow():
    streams = MqttStreams(max_flows=8)
    talk = mq.Talk().open().up(UP[0])
    mq.decode(streams, talk.segments)
    mq.decode(streams, [mq.Segment(True, i, b"", mq.SYN, client=(i, 5000)) for i in range(3000)])
    talk.segments.clear()
    rows = mq.decode(streams, talk.up(mq.publish("a/#")).segments)
    assert [r["violation"] for r in rows] == [10]
    assert streams.counters()["evictions"] == 0


def test_another_port_is_learned_from_a_connect():
    other = (0x0A4D_0001, 18830)
    streams = MqttStreams()
    talk = mq.Talk(server=other).open().up(mq.PINGREQ, UP[0]).down(DOWN[0]).up(mq.PINGREQ)
    rows = mq.decode(streams, talk.segments)
    assert types(rows)[-2:] == [1, 12]
    assert types(rows, to_server=False) == [2]
    talk.segments.clear()
    rows = mq.decode(streams, talk.up(UP[1]).down(DOWN[1]).segments)
    assert [(r["packet_type"], r["to_server"]) for r in rows] == [(3, True), (4, False)]


def test_other_ports_without_a_connect_are_not_mqtt():
    talk = mq.Talk(server=(0x0A4D_0001, 8080)).open().up(mq.PINGREQ, UP[1]).down(DOWN[0])
    assert mq.decode(MqttStreams(), talk.segments) == []


def test_the_configured_side_is_the_server():
    rows = mq.decode(MqttStreams(ports=frozenset({1883, 8883})), whole().segments)
    assert types(rows, to_server=False) == TYPES_DOWN
    talk = mq.Talk(client=(7, 8883), server=(9, 9999)).open().down(UP[0])
    rows = mq.decode(MqttStreams(ports=frozenset({8883})), talk.segments)
    assert types(rows) == [1]


def test_the_level_of_a_connect_holds_for_both_directions():
    talk = mq.Talk().open().up(mq.connect(level=5)).down(mq.connack(level=5))
    talk.up(mq.publish(level=5), mq.acknowledge(4, 3, code=0x10), mq.disconnect(0x04))
    talk.down(mq.suback(0x80, level=5), mq.unsuback(0x11, level=5), mq.acknowledge(4, 3))
    for batch in (None, 1):
        rows = mq.decode(MqttStreams(), talk.segments, batch=batch)
        assert {r["level"] for r in rows} == {5}
        assert [r["code"] for r in rows if r["to_server"]] == [-1, -1, 0x10, 0x04]
        assert [r["code"] for r in rows if not r["to_server"]] == [0, 0x80, 0x11, -1]


def test_a_bridge_is_read_at_the_level_that_it_means():
    rows = mq.decode(
        MqttStreams(), mq.Talk().open().up(mq.connect(level=0x84), mq.PINGREQ).segments
    )
    assert [r["level"] for r in rows] == [0x84, 4]


def test_equal_packets_in_a_frame_are_one_row():
    table = MqttStreams().decode(
        **mq.columns(mq.Talk().open().up(UP[0], mq.PINGREQ * 700).segments)
    )
    assert table.packet_type.tolist() == [1, 12]
    assert table.count.tolist() == [1, 700]
    assert not table.extrapolated.any()


def test_counters_tell_what_happened():
    streams = MqttStreams()
    mq.decode(streams, whole().segments)
    counters = streams.counters()
    assert counters["packets"] == 11
    assert counters["flows"] == 1
    assert counters["losses"] == counters["extrapolated"] == counters["over_budget_segments"] == 0


def irregular(chance, n):
    return b"".join(chance.choices([mq.PINGREQ, mq.acknowledge(4, 9), mq.PINGRESP], k=n))


def test_a_flood_of_irregular_packets_is_estimated_and_the_flow_found_again():
    chance = random.Random(2)
    floods = [
        mq.Talk(client=(100 + i, 5000))
        .open()
        .up(mq.connect(), *(irregular(chance, 450) for _ in range(8)))
        for i in range(100)
    ]
    streams = MqttStreams()
    table = streams.decode(**mq.columns([s for talk in floods for s in talk.segments]))
    after = streams.counters()
    assert table.extrapolated.any()
    assert after["extrapolated"] == int(table.count[table.extrapolated].sum())
    assert abs(int(table.count.sum()) - 100 * (1 + 8 * 450)) < 100 * 8 * 450 / 5
    assert after["losses"] > 0
    assert len(table.row) < 100 * 8 * 60
    talk = floods[0].up(mq.publish("a/b", b"1") * 6, mq.publish("a/b", b"1"))
    again = mq.decode(streams, talk.segments[-2:])
    assert [r["synchronised"] for r in again][-1]
    assert len(again) == 7
    assert not any(r["extrapolated"] for r in again)


def test_what_nothing_is_left_to_follow_is_estimated():
    """Packets cut across segments, hole after hole: following each exactly would cost too much."""
    chance = random.Random(4)
    segments = []
    for i in range(100):
        talk = mq.Talk(client=(100 + i, 5000)).open().up(mq.connect())
        for _ in range(60):
            talk.up(mq.publish("a/b", b"xyz") * 5 + mq.publish("a", b"z" * 30)[:9])
            talk.next[True] += chance.randrange(3, 9)
        segments += talk.segments
    streams = MqttStreams()
    table = streams.decode(**mq.columns(segments))
    counters = streams.counters()
    assert counters["over_budget_segments"] > 0
    assert not table.synchronised[table.extrapolated].any()
    assert int(table.count.sum()) > 100 * 60 * 2
