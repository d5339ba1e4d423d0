"""Flows are told apart by their real keys, both directions are one flow, and the tables keep to their bounds."""

import numpy as np

from agent.decode.mqtt import MqttStreams
from agent.decode.mqtt_flows import (
    Flows,
    FlowTable,
    Openings,
    SynTable,
    identify,
    make_salt,
    turn,
)
from agent.decode.mqtt_groups import Segments, group
from tests.support import mqtt_packets as mq


def flows_of(segments, salt=1):
    c = mq.columns(segments)
    names = ("src_hi", "src_lo", "dst_hi", "dst_lo", "src_port", "dst_port")
    return identify(*(c[name] for name in names), make_salt(salt)), c


def segments_of(c):
    length = c["payload_len"].astype(np.int64)
    seq = c["tcp_seq"].astype(np.int64)
    return Segments(np.arange(len(length)), seq, c["payload_off"], length, length)


def test_both_directions_have_one_hash_and_one_key():
    talk = mq.Talk().up(mq.PINGREQ).down(mq.PINGRESP)
    flows, _ = flows_of(talk.segments)
    assert flows.hash[0] == flows.hash[1]
    assert flows.reverse[0] != flows.reverse[1]
    both = turn(flows.key, flows.reverse)
    assert both[0].tolist() == both[1].tolist()


def test_the_salt_changes_every_hash():
    talk = mq.Talk().up(mq.PINGREQ)
    assert flows_of(talk.segments, 1)[0].hash[0] != flows_of(talk.segments, 2)[0].hash[0]


def test_near_addresses_and_ports_do_not_collide():
    segments = [mq.Segment(True, 0, client=(a, p)) for a in range(64) for p in range(4000, 4064)]
    flows, _ = flows_of(segments)
    assert len(set(flows.hash.tolist())) == len(segments)


def test_flows_whose_hashes_are_equal_are_never_merged():
    one = mq.Talk(client=(1, 1001)).up(mq.connect(), mq.PINGREQ)
    two = mq.Talk(client=(2, 1002)).up(mq.connect(), mq.PINGREQ)
    flows, c = flows_of(one.segments + two.segments)
    same = Flows(flows.key, np.full_like(flows.hash, 0xABCD_0000_0000_0000), flows.reverse)
    table = FlowTable(8)
    configured = np.zeros(1 << 16, bool)
    configured[1883] = True
    groups = group(segments_of(c), same, table, configured, c["buffer"])
    assert groups.row.tolist() in ([0, 1], [2, 3])
    assert table.collisions == 2


def test_a_flow_with_a_known_ones_hash_is_not_taken_for_it():
    table = FlowTable(8)
    flows, _ = flows_of([mq.Segment(True, 0, client=(1, 1)), mq.Segment(True, 0, client=(2, 2))])
    hashes = np.array([5], np.uint64)
    table.insert(hashes, flows.key[:1], 1)
    assert table.find(hashes, flows.key[:1])[0] >= 0
    assert table.find(hashes, flows.key[1:]).tolist() == [-1]


def test_the_least_recently_used_flow_goes_first():
    table = FlowTable(3)
    flows, _ = flows_of([mq.Segment(True, 0, client=(i, i)) for i in range(5)])
    for i in range(3):
        table.insert(flows.hash[i : i + 1], flows.key[i : i + 1], i)
    table.used[table.find(flows.hash[:1], flows.key[:1])] = 9
    table.insert(flows.hash[3:5], flows.key[3:5], 10)
    assert (table.find(flows.hash, flows.key) >= 0).tolist() == [True, False, False, True, True]
    assert (table.evictions, len(table)) == (2, 3)


def test_a_syn_is_remembered_for_its_direction_only():
    syns = SynTable()
    talk = mq.Talk().open()
    flows, _ = flows_of(talk.segments)
    first = np.array([0])
    syns.put(flows.take(first), np.array([77]), np.array([5]))
    start, stamp = syns.find(flows)
    assert start[0] == 77
    assert stamp.tolist() == [5, -1]


def openings_of(segments, first):
    _, c = flows_of(segments)
    addresses = tuple(c[name] for name in ("src_hi", "src_lo", "dst_hi", "dst_lo"))
    ports = c["src_port"], c["dst_port"]
    rows = np.arange(len(segments))
    return Openings(addresses, ports, c["tcp_seq"], rows, make_salt(1), first)


def test_syns_that_wait_are_found_as_those_put_at_once():
    segments = [mq.Segment(True, 0xFFFF_FFFF - i, client=(i, 5000), flags=2) for i in range(300)]
    flows, c = flows_of(segments)
    at_once, later = SynTable(), SynTable()
    start = (c["tcp_seq"].astype(np.int64) + 1) & 0xFFFF_FFFF
    at_once.put(flows, start, np.arange(300) + (1 << 32))
    later.put_later(openings_of(segments, 1 << 32))
    for one, other in zip(at_once.find(flows), later.find(flows), strict=True):
        assert one.tolist() == other.tolist()
    assert (later.find(flows)[1] >= 0).any()


def test_of_syns_that_wait_the_oldest_are_forgotten():
    table = SynTable()
    old = [mq.Segment(True, 7, client=(9, 9), flags=2)]
    table.put_later(openings_of(old, 1 << 32))
    flood = openings_of([mq.Segment(True, 7, client=(i, 1), flags=2) for i in range(4096)], 2 << 32)
    for _ in range(17):
        table.put_later(flood)
    assert table.find(flows_of(old)[0])[1].tolist() == [-1]


def test_a_connection_whose_syn_came_in_a_flood_is_read_from_its_first_byte():
    streams = MqttStreams()
    flood = [mq.Segment(True, i, client=(i, 40000), flags=2) for i in range(1, 400)]
    talk = mq.Talk(client=(9, 50000)).open()
    talk.up(mq.acknowledge(4, 9), mq.PINGREQ)
    assert len(mq.decode(streams, [*flood, talk.segments[0]])) == 0
    rows = mq.decode(streams, talk.segments[2:])
    assert [r["synchronised"] for r in rows] == [True, True]
