"""Every violation has packets that break the protocol so, and near ones that do not, in the versions that differ."""

import pytest

from agent.decode.mqtt import MqttStreams
from agent.records import MqttType, MqttViolation
from tests.support import mqtt_packets as mq

V = MqttViolation
WILL = mq.string("status") + mq.string("lost")

# level of the connection, packets after its CONNECT, sent to the server or not, what the last one breaks
BROKEN = [
    (V.REMAINING_LENGTH, 4, b"\x30\xff\xff\xff\xff\x01", True),
    (V.REMAINING_LENGTH, 5, b"\xc0\x80\x80\x80\x80\x00", True),
    (V.RESERVED_TYPE, 4, mq.packet(0x00, b"abc"), True),
    (V.RESERVED_TYPE, 5, mq.packet(0x05), False),
    (V.RESERVED_TYPE, 3, mq.auth(), True),
    (V.RESERVED_TYPE, 4, mq.auth(), True),
    (V.FLAGS, 4, mq.packet(0xC1), True),
    (V.FLAGS, 4, mq.packet(0x80, mq.subscribe("a")[2:]), True),
    (V.FLAGS, 5, mq.packet(0x8A, mq.subscribe("a", level=5)[2:]), True),
    (V.FLAGS, 3, mq.packet(0x80, mq.subscribe("a")[2:]), True),
    (V.FLAGS, 4, mq.packet(0x60, b"\0\1"), True),
    (V.FLAGS, 4, mq.publish(dup=1), True),
    (V.FLAGS, 5, mq.packet(0xD8), False),
    (V.QOS, 4, mq.publish(qos=3), True),
    (V.QOS, 3, mq.publish(qos=3), False),
    (V.QOS, 5, mq.subscribe("a", level=5, qos=3), True),
    (V.SECOND_CONNECT, 4, mq.connect(), True),
    (V.SECOND_CONNECT, 5, mq.connect(level=5), True),
    (V.TOPIC_WILDCARD, 4, mq.publish("ward/+/spo2"), True),
    (V.TOPIC_WILDCARD, 5, mq.publish("#", level=5), True),
    (V.TOPIC_WILDCARD, 4, mq.publish("a" * 60 + "/#"), True),
    (V.TOPIC_LENGTH, 4, mq.packet(0x30, b"\x00\x09abc"), True),
    (V.TOPIC_LENGTH, 4, mq.packet(0x82, b"\0\1\x00\x09abc\0"), True),
    (V.TOPIC_LENGTH, 5, mq.packet(0x82, b"\0\1\0\xff\xffabc\0"), True),
    (V.EMPTY_TOPIC, 4, mq.publish(""), True),
    (V.EMPTY_TOPIC, 3, mq.publish("", qos=1), False),
    (V.EMPTY_TOPIC, 5, mq.publish("", level=5), True),
    (V.EMPTY_TOPIC, 4, mq.subscribe(""), True),
    (V.EMPTY_TOPIC, 4, mq.unsubscribe("a", ""), True),
    (V.EMPTY_SUBSCRIBE, 4, mq.subscribe(), True),
    (V.EMPTY_SUBSCRIBE, 5, mq.subscribe(level=5), True),
    (V.EMPTY_SUBSCRIBE, 4, mq.unsubscribe(), True),
    (V.PACKET_ID_ZERO, 4, mq.publish(qos=1, packet_id=0), True),
    (V.PACKET_ID_ZERO, 4, mq.acknowledge(4, 0), False),
    (V.PACKET_ID_ZERO, 5, mq.subscribe("a", packet_id=0, level=5), True),
    (V.PACKET_ID_ZERO, 4, mq.suback(0, packet_id=0), False),
    (V.BODY_LENGTH, 4, mq.packet(0xC0, b"x"), True),
    (V.BODY_LENGTH, 4, mq.packet(0x30, b"\0"), True),
    (V.BODY_LENGTH, 4, mq.packet(0x32, b"\0\1a\0"), True),
    (V.BODY_LENGTH, 4, mq.acknowledge(4, 7, code=0), False),
    (V.BODY_LENGTH, 4, mq.packet(0x40, b"\0"), False),
    (V.BODY_LENGTH, 5, mq.packet(0x40, b"\0"), False),
    (V.BODY_LENGTH, 4, mq.packet(0x90, b"\0\1"), False),
    (V.BODY_LENGTH, 4, mq.unsuback(0), False),
    (V.BODY_LENGTH, 4, mq.disconnect(), True),
    (V.BODY_LENGTH, 3, mq.disconnect(), True),
    (V.BODY_LENGTH, 4, mq.connack(level=5), False),
    (V.BODY_LENGTH, 4, mq.packet(0x82, b"\0\1\0\1a"), True),
    (V.WRONG_DIRECTION, 4, mq.connack(), True),
    (V.WRONG_DIRECTION, 4, mq.subscribe("a"), False),
    (V.WRONG_DIRECTION, 4, mq.PINGREQ, False),
    (V.WRONG_DIRECTION, 5, mq.PINGRESP, True),
    (V.WRONG_DIRECTION, 4, mq.DISCONNECT, False),
    (V.STRING, 4, mq.publish(b"ward\0one"), True),
    (V.STRING, 4, mq.publish(b"ward\xc3"), True),
    (V.STRING, 4, mq.publish(b"\xed\xa0\x80"), True),
    (V.STRING, 5, mq.subscribe(b"\xff\xfe", level=5), True),
]

ALLOWED = [
    (3, mq.packet(0x8A, mq.subscribe("a")[2:]), True),  # 3.1: DUP of a SUBSCRIBE sent again
    (3, mq.packet(0xC1), True),  # 3.1: flags of PINGREQ are not used
    (3, mq.publish(dup=1), True),
    (4, mq.publish(dup=1, qos=1), True),
    (5, mq.auth(), True),
    (5, mq.auth(), False),
    (5, mq.disconnect(4), True),
    (5, mq.disconnect(0x8D), False),
    (4, mq.DISCONNECT, True),
    (
        5,
        mq.publish("", level=5, properties=b"\x23\0\1"),
        True,
    ),  # a topic alias stands for the topic
    (5, mq.publish("", level=5, qos=1, properties=b"\x23\0\1"), True),
    (5, mq.acknowledge(4, 7, code=0x10), False),
    (5, mq.unsuback(0, level=5), False),
    (5, mq.connack(level=5), False),
    (4, mq.connack(5), False),
    (4, mq.subscribe("#", "+/a"), True),
    (4, mq.unsubscribe("a/#"), True),
    (5, mq.subscribe("a", level=5, options=0x2D), True),
    (4, mq.publish("größe/温度/😀"), True),
    (4, mq.publish("a" * 300), True),
    (4, mq.publish("a", b"+#\0\xff" * 40), True),  # a payload may hold anything
    (4, mq.publish("a", b""), False),
    (4, mq.PINGREQ, True),
    (4, mq.PINGRESP, False),
]

# CONNECTs themselves, as the first packet of a connection
BROKEN_FIRST = [
    (V.PROTOCOL_NAME, mq.connect(name=b"MQTX")),
    (V.PROTOCOL_NAME, mq.connect(name=b"mqtt")),
    (V.PROTOCOL_NAME, mq.connect(name=b"")),
    (V.PROTOCOL_NAME, mq.connect(name=b"a name that is long")),
    (V.PROTOCOL_LEVEL, mq.connect(level=6)),
    (V.PROTOCOL_LEVEL, mq.connect(level=0)),
    (V.PROTOCOL_LEVEL, mq.connect(level=4, name=b"MQIsdp")),
    (V.PROTOCOL_LEVEL, mq.connect(level=3, name=b"MQTT")),
    (V.PROTOCOL_LEVEL, mq.connect(level=0x84)),
    (V.CONNECT_FLAGS, mq.connect(flags=3)),
    (V.CONNECT_FLAGS, mq.connect(flags=0x42, rest=mq.string("pw"))),
    (V.CONNECT_FLAGS, mq.connect(flags=0x42, level=3, rest=mq.string("pw"))),
    (V.CONNECT_FLAGS, mq.connect(flags=0x0A)),
    (V.CONNECT_FLAGS, mq.connect(flags=0x22, level=5)),
    (V.CONNECT_FLAGS, mq.connect(flags=0x1E, rest=WILL)),
    (V.FLAGS, mq.connect(first=0x12)),
    (V.TOPIC_LENGTH, mq.packet(0x10, b"\x00\x20MQTT\x04\x02\0\x3c\0\0")),
    (V.TOPIC_LENGTH, mq.packet(0x10, b"\x00\x04MQTT\x04\x02\0\x3c\0\x09ab")),
    (V.BODY_LENGTH, mq.packet(0x10, b"\x00\x04MQTT\x04\x02\0\x3c")),
    (V.BODY_LENGTH, mq.packet(0x10, b"\x00")),
    (V.FIRST_NOT_CONNECT, mq.PINGREQ),
    (V.FIRST_NOT_CONNECT, mq.publish()),
    (V.FIRST_NOT_CONNECT, mq.subscribe("a")),
    (V.FIRST_NOT_CONNECT, mq.auth()),
]

ALLOWED_FIRST = [
    mq.connect(),
    mq.connect(level=3),
    mq.connect(level=5),
    mq.connect("", flags=2),
    mq.connect(keep_alive_s=65535),
    mq.connect(flags=0x42, level=5, rest=mq.string("pw")),  # 5.0: a password alone
    mq.connect(flags=0xC2, rest=mq.string("user") + mq.string("pw")),
    mq.connect(flags=0x36, rest=WILL),
    mq.connect(flags=3, level=3),  # 3.1: bit 0 is not used
    mq.connect(level=5, properties=b"\x11\0\0\0\x0a"),
]


def ids(rows):
    return [f"{i}-{row[0]!r:.40}" for i, row in enumerate(rows)]


def talk_with(level, packet, *, to_server):
    talk = mq.Talk().open().up(mq.connect(level=level)).down(mq.connack(level=level))
    talk.add(to_server, packet)
    return talk.segments


@pytest.mark.parametrize(("violation", "level", "packet", "to_server"), BROKEN, ids=ids(BROKEN))
def test_a_broken_packet_is_named(violation, level, packet, to_server):
    rows = mq.decode(MqttStreams(), talk_with(level, packet, to_server=to_server))
    assert [r["violation"] for r in rows] == [0, 0, violation]


@pytest.mark.parametrize(("level", "packet", "to_server"), ALLOWED, ids=ids(ALLOWED))
def test_a_right_packet_is_not(level, packet, to_server):
    rows = mq.decode(MqttStreams(), talk_with(level, packet, to_server=to_server))
    assert [r["violation"] for r in rows] == [0, 0, 0]


@pytest.mark.parametrize(("violation", "packet"), BROKEN_FIRST, ids=ids(BROKEN_FIRST))
def test_a_broken_first_packet_is_named(violation, packet):
    rows = mq.decode(MqttStreams(), mq.Talk().open().up(packet).segments)
    assert [r["violation"] for r in rows] == [violation]


@pytest.mark.parametrize("packet", ALLOWED_FIRST)
def test_a_right_first_packet_is_not(packet):
    rows = mq.decode(MqttStreams(), mq.Talk().open().up(packet).segments)
    assert [(r["packet_type"], r["violation"]) for r in rows] == [(MqttType.CONNECT, 0)]


def test_every_violation_has_an_example():
    named = {row[0] for row in BROKEN} | {row[0] for row in BROKEN_FIRST}
    assert named == set(MqttViolation) - {MqttViolation.NONE}


@pytest.mark.parametrize(
    ("level", "packet", "to_server"),
    [row[1:] for row in BROKEN if row[2][0] not in {0x10, 0x20}],  # these put a flow in step
)
def test_nothing_is_judged_out_of_step(level, packet, to_server):
    """After a hole where headers were, the same packets break nothing."""
    talk = mq.Talk().open().up(mq.connect(level=level)).down(mq.connack(level=level))
    talk.up(mq.PINGREQ).down(mq.PINGRESP)
    talk.add(to_server, packet)
    segments = talk.segments[:4] + talk.segments[6:]
    rows = mq.decode(MqttStreams(), segments)
    assert {r["violation"] for r in rows} == {0}
    assert not any(r["synchronised"] for r in rows[2:])
