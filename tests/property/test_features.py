"""Schema ip-1 on random traffic: the slow reference says the same, bit for bit, however frames are cut."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.features.ip import HostWindows
from agent.features.ip_schema import SCHEMA
from tests.support.packet_tables import Packet, S, cut, table_of
from tests.support.reference_features import ReferenceWindows

HOSTS = [f"10.0.0.{i}" for i in range(1, 8)] + ["fd00::1", "fd00::2", "0.0.0.0", "::"]
GROUPS = ["224.0.0.1", "255.255.255.255", "ff02::1"]
NAMES = [f.name for f in SCHEMA.features]
CONTEXT = (
    "mac",
    "in_peer_packets",
    "out_peer_packets",
    "in_port",
    "out_port",
    "in_new_sources",
    "rival_mac",
)

ports = st.sampled_from([0, 22, 80, 1883, 40000, 40001])
macs = st.sampled_from([0, 0xA1, 0xA2, 0xA3])
mqtt = st.fixed_dictionaries(
    {
        "packet_type": st.integers(0, 15),
        "flags": st.integers(0, 15),
        "remaining_len": st.integers(-1, 300),
        "count": st.integers(1, 5),
        "keep_alive_s": st.integers(-1, 600),
        "code": st.integers(-1, 5),
        "wildcard": st.booleans(),
        "violation": st.integers(0, 3),
    }
)
steps = st.one_of(
    st.integers(0, 3 * 10**8),
    st.integers(-4 * 10**8, 0),
    st.sampled_from([S, 3 * S, 30 * S, 61 * S, 200 * S]),
)


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    six = draw(st.integers(0, 5)) == 0
    hosts = [h for h in HOSTS if (":" in h) == six]
    groups = [g for g in GROUPS if (":" in g) == six]
    packet = Packet(
        ts=0,
        src=draw(st.sampled_from(hosts)),
        dst=draw(st.sampled_from(hosts + groups)),
        size=draw(st.integers(40, 1600)),
        src_mac=draw(macs),
        dst_mac=draw(st.sampled_from([0, 0xB1, 0x0100_5E00_0001])),
        segments=draw(st.sampled_from([1, 1, 1, 3, 500])),
        payload=draw(st.sampled_from([0, 20])),
        reason=draw(st.sampled_from([0] * 9 + [3, 7, 8, 11])),
        fragment=draw(st.sampled_from([0] * 8 + [1, 2])),
        captured=draw(st.sampled_from([None, None, 30])),
    )
    kind = draw(st.sampled_from(["tcp", "tcp", "udp", "icmp", "arp", "arp", "nd", "other", "lldp"]))
    if kind == "tcp":
        packet.proto, packet.flags = 6, draw(st.integers(0, 63))
        packet.sport, packet.dport = draw(ports), draw(ports)
        packet.tls = draw(st.integers(0, 6))
        packet.mqtt = draw(st.lists(mqtt, max_size=3))
    elif kind == "udp":
        packet.proto, packet.sport, packet.dport = 17, draw(ports), draw(ports)
        if draw(st.booleans()):
            packet.dns = {"response": draw(st.booleans())}
        elif draw(st.booleans()):
            packet.dhcp = {"op": 1}
    elif kind == "icmp":
        packet.proto = 58 if six else 1
        packet.icmp_type = draw(st.sampled_from([0, 1, 3, 8, 11, 128, 129]))
    elif kind == "nd":
        packet.src, packet.dst = "fd00::1", draw(st.sampled_from(["fd00::2", "ff02::1"]))
        packet.proto, packet.icmp_type = 58, draw(st.sampled_from([135, 136]))
        packet.nd = {
            "icmp_type": packet.icmp_type,
            "target_hi": 0xFD00 << 48,
            "target_lo": draw(st.integers(1, 2)),
            "link_mac": draw(macs),
        }
    elif kind == "arp":
        packet.src = packet.dst = ""
        ips = st.sampled_from([0, 0x0A000001, 0x0A000002, 0x0A000003])
        packet.arp = {
            "op": draw(st.sampled_from([1, 2, 2, 3])),
            "sender_mac": draw(macs),
            "sender_ip": draw(ips),
            "target_ip": draw(ips),
        }
    elif kind == "other":
        packet.proto = 47
    else:
        packet.src = packet.dst = ""
    return packet


@st.composite
def traffic(draw: st.DrawFn) -> list[Packet]:
    out = draw(st.lists(packets(), min_size=1, max_size=60))
    now = draw(st.sampled_from([0, 7 * S, 1_700_000_000 * S]))
    for packet in out:
        now = max(now + draw(steps), 0)
        packet.ts = now
    return out


def rows_of(matrices):
    """Everything a list of matrices says, as comparable rows."""
    out = []
    for m in matrices:
        s = m.subjects
        for i in range(len(m)):
            row = {
                "number": int(m.start_ns[i]) // S,
                "address": int(s.hi[i]) << 64 | int(s.lo[i]),
                "values": m.values[i],
                "in_peer": int(s.in_peer_hi[i]) << 64 | int(s.in_peer_lo[i]),
                "out_peer": int(s.out_peer_hi[i]) << 64 | int(s.out_peer_lo[i]),
                **{c: int(getattr(s, c)[i]) for c in CONTEXT},
            }
            out.append(row)
    return out


def assert_same(got, wanted):
    assert [(r["number"], r["address"]) for r in got] == [
        (r["number"], r["address"]) for r in wanted
    ]
    for g, w in zip(got, wanted, strict=True):
        where = f"slice {g['number']}, host {g['address']:x}"
        off = [
            (n, float(a), float(b))
            for n, a, b in zip(NAMES, g["values"], w["values"], strict=True)
            if a.tobytes() != b.tobytes()
        ]
        assert not off, f"{where}: {off}"
        assert {k: v for k, v in g.items() if k != "values"} == {
            k: v for k, v in w.items() if k != "values"
        }, where


@settings(max_examples=150, deadline=None)
@given(traffic(), st.sampled_from([(4096, 256), (8, 2), (4, 1), (6, 3)]), st.integers(0, 2**64))
def test_equals_the_reference(frames, limits, salt):
    table = table_of(frames)
    max_hosts, max_new = limits
    fast = HostWindows(salt=salt, max_hosts=max_hosts, max_new_sources=max_new)
    slow = ReferenceWindows(NAMES, max_hosts=max_hosts, max_new_sources=max_new)
    got = rows_of([fast.add(table), fast.flush()])
    slow.add(table)
    slow.flush()
    assert_same(got, slow.rows)
    counters = fast.counters()
    for name in ("late_frames", "folded_packets", "evicted_hosts", "hostless_frames"):
        assert counters[name] == slow.counts[name], name


@settings(max_examples=60, deadline=None)
@given(
    traffic(),
    st.lists(st.integers(0, 60), max_size=6),
    st.sampled_from([(4096, 256), (8, 2), (4, 1)]),
)
def test_cutting_changes_nothing(frames, cuts, limits):
    table = table_of(frames)
    edges = sorted({0, len(frames), *(c for c in cuts if c < len(frames))})
    whole = HostWindows(max_hosts=limits[0], max_new_sources=limits[1])
    parts = HostWindows(max_hosts=limits[0], max_new_sources=limits[1])
    one = rows_of([whole.add(table), whole.flush()])
    many = rows_of(
        [
            *(parts.add(cut(table, a, b)) for a, b in pairwise(edges)),
            parts.flush(),
        ]
    )
    assert_same(many, one)
    assert parts.counters() == whole.counters()


@settings(max_examples=30, deadline=None)
@given(traffic(), st.data())
def test_ignored_frames_leave_only_their_time(frames, data):
    table = table_of(frames)
    ignore = np.array(
        data.draw(st.lists(st.booleans(), min_size=len(frames), max_size=len(frames)))
    )
    fast, slow = HostWindows(), ReferenceWindows(NAMES)
    got = rows_of([fast.add(table, ignore=ignore), fast.flush()])
    slow.add(table, ignore)
    slow.flush()
    assert_same(got, slow.rows)


@settings(max_examples=60, deadline=None)
@given(traffic())
def test_every_feature_is_finite_and_counts_are_whole(frames):
    windows = HostWindows()
    for m in (windows.add(table_of(frames)), windows.flush()):
        assert np.isfinite(m.values).all()
        assert m.values.dtype == np.float32
        assert m.values.shape == (len(m), len(SCHEMA))
        whole = [i for i, f in enumerate(SCHEMA.features) if f.dtype == "count"]
        assert (m.values[:, whole] == np.floor(m.values[:, whole])).all()
        assert (m.values >= 0).all()
