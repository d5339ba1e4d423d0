"""Flows are told apart by their real keys, both directions are one flow, and the tables keep to their bounds."""

import numpy as np

from agent.decode.mqtt_flows import Flows, FlowTable, SynTable, identify, make_salt, turn
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
