"""Host windows as a story: slices, grace, late frames, floods, and who gets a row."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from agent.capture.capture_file import open_capture
from agent.decode.decoder import PacketDecoder
from agent.features.ip import HostWindows
from agent.features.ip_schema import SCHEMA
from tests.property.test_features import NAMES, assert_same, rows_of
from tests.support.packet_tables import ACK, SYN, Packet, S, arp, cut, ping, table_of, tcp, udp
from tests.support.reference_features import ReferenceWindows

MS = 1_000_000
PUMP, BROKER = "10.0.0.5", "10.0.0.1"
V4 = 0xFFFF_0000_0000


def value(matrix, row, name):
    return float(matrix.values[row, SCHEMA.index[name]])


def hosts(matrix):
    return [int(lo) & 0xFF for lo in matrix.subjects.lo]


def test_a_slice_has_a_row_per_active_host_in_the_order_of_addresses():
    windows = HostWindows()
    m = windows.add(
        table_of([tcp(0, PUMP, BROKER, 40000, 1883, SYN), tcp(3 * S, PUMP, BROKER, 40000, 1883)])
    )
    assert hosts(m) == [1, 5]
    assert m.start_ns.tolist() == [0, 0]
    assert m.end_ns.tolist() == [S, S]
    assert value(m, 1, "out_tcp_syn_1s") == 1
    assert value(m, 0, "in_tcp_syn_1s") == 1
    m = windows.flush()
    assert m.start_ns.tolist() == [3 * S, 3 * S], "seconds without frames have no rows"
    assert value(m, 1, "out_packets_60s") == 2
    assert value(m, 1, "out_active_60s") == 2


def test_the_grace_is_200_ms():
    windows = HostWindows()
    assert not len(windows.add(table_of([tcp(900 * MS, PUMP, BROKER, 1, 2)])))
    assert not len(windows.add(table_of([tcp(1199 * MS, PUMP, BROKER, 1, 2)])))
    assert not len(windows.add(table_of([tcp(950 * MS, PUMP, BROKER, 1, 2)])))
    m = windows.add(table_of([tcp(1200 * MS, PUMP, BROKER, 1, 2)]))
    assert value(m, 1, "out_packets_1s") == 2
    m = windows.add(table_of([tcp(999 * MS, PUMP, BROKER, 1, 2)]))
    assert not len(m)
    assert windows.counters()["late_frames"] == 1
    assert value(windows.flush(), 1, "out_packets_1s") == 2


def test_time_alone_closes_a_slice():
    windows = HostWindows()
    windows.add(table_of([tcp(900 * MS, PUMP, BROKER, 1, 2)]))
    assert not len(windows.advance(1200 * MS - 1))
    assert len(windows.advance(1200 * MS)) == 2
    assert not len(windows.advance(1200 * MS))


def test_what_comes_after_a_flush_is_late():
    windows = HostWindows()
    windows.add(table_of([tcp(100 * MS, PUMP, BROKER, 1, 2)]))
    assert len(windows.flush()) == 2
    windows.add(table_of([tcp(200 * MS, PUMP, BROKER, 1, 2), tcp(1 * S, PUMP, BROKER, 1, 2)]))
    assert windows.counters()["late_frames"] == 1
    assert len(windows.flush()) == 2


def test_an_empty_batch_says_nothing():
    m = HostWindows().add(table_of([]))
    assert m.values.shape == (0, len(SCHEMA))
    assert m.schema is SCHEMA


def test_groups_have_no_row_but_their_sender_says_so():
    windows = HostWindows()
    windows.add(
        table_of(
            [
                udp(0, PUMP, "224.0.0.251", 5353, 5353),
                udp(0, PUMP, "10.0.0.255", 9, 9, dst_mac=0xFFFF_FFFF_FFFF),
                udp(0, PUMP, "255.255.255.255", 9, 9),
                udp(0, PUMP, BROKER, 9, 9),
            ]
        )
    )
    m = windows.flush()
    assert hosts(m) == [1, 5]
    assert value(m, 1, "out_group_packets_1s") == 3
    assert value(m, 1, "out_peers_1s") == 1


def test_a_machine_without_an_address_is_its_mac():
    windows = HostWindows()
    windows.add(
        table_of([udp(0, "0.0.0.0", "255.255.255.255", 68, 67, src_mac=0xABC, dhcp={"op": 1})])
    )
    m = windows.flush()
    assert [(int(m.subjects.hi[0]), int(m.subjects.lo[0]))] == [(2**64 - 1, 0xABC)]
    assert value(m, 0, "out_udp_1s") == 1


def test_frames_without_a_host_are_counted():
    windows = HostWindows()
    windows.add(table_of([Packet(ts=0), Packet(ts=0, src_mac=7)]))
    assert windows.counters()["hostless_frames"] == 2
    assert not len(windows.flush())


def test_a_scan_of_one_probe_every_three_seconds_shows_over_a_minute():
    windows = HostWindows()
    probes = [tcp(3 * i * S, PUMP, BROKER, 50000, 20 + i, SYN) for i in range(20)]
    ms = [windows.add(table_of([p])) for p in probes] + [windows.flush()]
    last = ms[-1]
    assert value(last, 1, "out_services_1s") == 1
    assert value(last, 1, "out_services_one_peer_60s") == 20
    assert value(last, 0, "in_services_60s") == 20
    assert value(last, 1, "out_unanswered_peers_60s") == 1


def test_a_sweep_that_nobody_answers():
    windows = HostWindows()
    windows.add(
        table_of(
            [ping(0, PUMP, f"10.0.1.{i}") for i in range(100)]
            + [ping(1, "10.0.1.7", PUMP, reply=True)]
        )
    )
    m = windows.flush()
    row = hosts(m).index(5)
    assert value(m, row, "out_peers_1s") == 100
    assert value(m, row, "out_unanswered_peers_60s") == 99
    assert value(m, row, "out_echo_answered_1s") == pytest.approx(0.01)


def test_a_merged_frame_weighs_its_segments():
    windows = HostWindows()
    windows.add(table_of([tcp(0, PUMP, BROKER, 9, 1, ACK, size=3000, segments=3, payload=2900)]))
    m = windows.flush()
    assert value(m, 1, "out_packets_1s") == 3
    assert value(m, 1, "out_size_mean_1s") == 1000
    assert value(m, 1, "out_size_std_1s") == 0


def test_two_way_claims_name_the_liar():
    windows = HostWindows()
    windows.add(
        table_of(
            [arp(0, 2, "10.0.0.3", 0x666, "10.0.0.4"), arp(1, 2, "10.0.0.4", 0x666, "10.0.0.3"),
             arp(2, 2, "10.0.0.3", 0x666, "10.0.0.4")]
        )
    )  # fmt: skip
    m = windows.flush()
    assert m.subjects.rival_mac.tolist() == [0x666, 0x666]
    assert [value(m, i, "out_arp_two_way_1s") for i in (0, 1)] == [1, 1]
    assert [value(m, i, "arp_mac_addresses_60s") for i in (0, 1)] == [2, 2]


def flood(n, seed, *, start_ns):
    """n SYNs in 100 ms from random sources to one victim."""
    rng = np.random.default_rng(seed)
    one = table_of([tcp(start_ns, "1.2.3.4", PUMP, 1024, 1883, SYN)])
    columns = {}
    for name in type(one).__dataclass_fields__:
        column = getattr(one, name)
        columns[name] = np.repeat(column, n) if isinstance(column, np.ndarray) else column
    columns["src_lo"] = V4 | rng.integers(0x0B00_0000, 0xDF00_0000, n).astype(np.uint64)
    columns["ts_ns"] = start_ns + np.arange(n) * (100 * MS // n)
    return type(one)(**columns)


def test_a_flood_of_a_million_sources_costs_no_more_memory_than_one_of_sixty_thousand():
    windows = HostWindows(salt=5)
    n = 16_384
    m = [windows.add(flood(n, i, start_ns=i * 300 * MS)) for i in range(4)]
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    m += [windows.add(flood(n, i, start_ns=i * 300 * MS)) for i in range(4, 62)]
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    m.append(windows.flush())
    counters = windows.counters()
    assert grown < 12_000_000
    assert counters["hosts"] <= 4096
    assert counters["evicted_hosts"] > 0
    assert max(len(x) for x in m) <= 258, (
        "256 new ones, the victim, and the first of all, whose victim was new too"
    )
    victim = np.concatenate([x.values[x.subjects.lo == V4 | 0x0A00_0005] for x in m])
    total = victim[:, SCHEMA.index["in_tcp_syn_1s"]].sum()
    assert total == 62 * n, "every frame counts for the victim"
    assert counters["folded_packets"] == 62 * n - (
        counters["evicted_hosts"] + counters["hosts"] - 1
    )


def test_a_clock_that_is_set_back_starts_anew():
    windows = HostWindows()
    windows.add(table_of([tcp(10_000 * S, PUMP, BROKER, 1, 2)]))
    back = [tcp(100 * S + i * MS, PUMP, BROKER, 1, 2) for i in range(400)]
    m = windows.add(table_of(back[:200]))
    assert windows.counters()["late_frames"] == 200
    m = windows.add(table_of(back[200:]))
    assert m.start_ns.tolist() == [10_000 * S] * 2
    counters = windows.counters()
    assert (counters["clock_steps"], counters["late_frames"]) == (1, 255)
    m = windows.flush()
    assert value(m, 1, "out_packets_1s") == 145
    assert value(m, 1, "out_packets_60s") == 145


def test_a_few_stragglers_do_not_turn_time_back():
    windows = HostWindows()
    frames = [tcp(10_000 * S, PUMP, BROKER, 1, 2)]
    for i in range(3):
        frames += [tcp(100 * S, PUMP, BROKER, 1, 2)] * 200 + [
            tcp(10_000 * S + i, PUMP, BROKER, 1, 2)
        ]
    windows.add(table_of(frames))
    assert windows.counters()["clock_steps"] == 0
    assert windows.counters()["late_frames"] == 600


@pytest.mark.parametrize("step", [1, 7, 300])
def test_a_step_back_does_not_depend_on_the_cut(step):
    frames = [tcp(10_000 * S, PUMP, BROKER, 1, 2)]
    frames += [tcp(100 * S + i * MS, PUMP, BROKER, 1, 2) for i in range(400)]
    whole, parts = HostWindows(), HostWindows()
    table = table_of(frames)
    one = rows_of([whole.add(table), whole.flush()])
    many = rows_of(
        [*(parts.add(cut(table, a, a + step)) for a in range(0, 401, step)), parts.flush()]
    )
    assert_same(many, one)
    slow = ReferenceWindows(NAMES)
    slow.add(table)
    slow.flush()
    assert_same(one, slow.rows)


CAPTURES = (
    "scans/hs-arpScan.pcap",
    "scans/na-arpSpoofing.pcap",
    "scans/ps-tcp_syn.pcap",
    "scans/ps-udp.pcap",
    "mqtt/benign-5mb-train.pcap",
    "mqtt/flood-train.pcap",
    "mqtt/malformed-train.pcap",
    "apps/http_ipv6.pcap",
    "apps/iphone.pcap",
)


@pytest.mark.parametrize("name", CAPTURES)
def test_real_captures_equal_the_reference(name, captures):
    decoder, fast, slow, got = PacketDecoder(), HostWindows(salt=99), ReferenceWindows(NAMES), []
    left = 1500
    with open_capture(captures / name) as capture:
        for batch in capture:
            table = decoder.decode(batch)
            table = cut(table, 0, min(left, len(table)))
            got.append(fast.add(table))
            slow.add(table)
            left -= len(table)
            if not left:
                break
    got.append(fast.flush())
    slow.flush()
    assert slow.rows
    assert_same(rows_of(got), slow.rows)


def test_a_public_capture_of_arp_spoofing_is_two_way(captures):
    windows, decoder = HostWindows(), PacketDecoder()
    with open_capture(captures / "scans" / "na-arpSpoofing.pcap") as capture:
        ms = [windows.add(decoder.decode(batch)) for batch in capture]
    ms.append(windows.flush())
    two_way = SCHEMA.index["out_arp_two_way_1s"]
    flagged = {int(lo) & 0xFF for m in ms for lo in m.subjects.lo[m.values[:, two_way] > 0]}
    assert flagged == {153, 157}
