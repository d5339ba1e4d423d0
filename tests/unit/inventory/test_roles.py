"""Who a machine with a role really is: by MAC, over IPv4 and IPv6; bounded, whatever is sent."""

from agent.alert.endpoints import parse
from agent.features.ip import HostWindows
from agent.inventory.local_facts import MAX_KEPT, LocalFacts
from agent.inventory.roles import (
    GATEWAY_CLAIM,
    MAX_HOSTS,
    MAX_OFFENCES,
    MAX_SLICES,
    Bound,
    RoleWatch,
)
from agent.inventory.sightings import Sightings
from agent.records import NOBODY
from tests.support.packet_tables import Packet, S, arp, cut, ping, table_of, tcp

GATEWAY, THIEF, NMS = 0x001122000001, 0x001122000066, 0x001122000060
GW4, GW6 = "10.0.0.1", "fe80::1"


def watch(*bound: Bound, knows=lambda _host: False) -> RoleWatch:
    return RoleWatch(bound, knows=knows)


def gateway(address: str) -> Bound:
    return Bound(role="gateway", address=parse(address), macs=frozenset({GATEWAY}))


def sent(mac: int, second: float, address: str = GW4) -> Packet:
    return tcp(round(second * S), address, "10.0.0.9", 1, 2, src_mac=mac, dst_mac=5)


def test_an_impostor_is_one_who_sends_with_the_address_and_another_mac():
    roles = watch(gateway(GW4))
    roles.add(table_of([sent(GATEWAY, 10), sent(THIEF, 20), sent(GATEWAY, 30)]))
    at = parse(GW4)
    assert not roles.impostor(at, 0, 20 * S)
    assert roles.impostor(at, 20 * S, 21 * S)
    assert roles.impostor(at, 0, 61 * S)
    assert not roles.impostor(at, 21 * S, 100 * S)
    assert not roles.impostor(parse("10.0.0.2"), 0, 100 * S)
    assert roles.offences(1000) == []  # it has claimed nothing


def test_how_batches_are_cut_does_not_change_what_is_known():
    packets = [sent(THIEF if s % 7 == 0 else GATEWAY, s) for s in range(40)]
    packets += [arp(s * S + 5, 2, GW4, THIEF, "10.0.0.9", dst_mac=9) for s in (3, 9)]
    whole = table_of(sorted(packets, key=lambda p: p.ts))
    one, many = watch(gateway(GW4)), watch(gateway(GW4))
    one.add(whole)
    for start in range(0, len(packets), 5):
        many.add(cut(whole, start, min(start + 5, len(packets))))
    for first in range(40):
        window = first * S, (first + 1) * S
        assert one.impostor(parse(GW4), *window) == many.impostor(parse(GW4), *window)
    assert one.offences(100) == many.offences(100)


def test_a_claim_over_neighbour_discovery_counts_as_one_by_arp():
    hi, lo = parse(GW6)
    claim = {"icmp_type": 136, "target_hi": hi, "target_lo": lo, "link_mac": THIEF}
    for nd, n in ((claim, 1), ({**claim, "link_mac": GATEWAY}, 0), ({**claim, "link_mac": 0}, 0)):
        roles = watch(gateway(GW6))
        roles.add(table_of([Packet(ts=S, src="fe80::66", dst="ff02::1", nd=nd, src_mac=THIEF)]))
        found = roles.offences(10)
        assert [o.fact for o, _ in found] == [GATEWAY_CLAIM] * n
        assert roles.impostor(parse(GW6), S, 2 * S) is bool(n)


def test_an_offence_is_told_once_and_in_its_slice():
    roles = watch(gateway(GW4))
    roles.add(table_of([arp(S * s, 2, GW4, THIEF, "10.0.0.9", dst_mac=9) for s in (1, 1, 2)]))
    assert [(o.slice_no, n) for o, n in roles.offences(2)] == [(1, 2)]
    assert [(o.slice_no, n) for o, n in roles.offences(3)] == [(2, 1)]
    assert roles.offences(100) == []


def test_strangers_are_those_asked_for_whom_nobody_knows():
    known = {parse("10.0.1.1")}
    nms = Bound(role="nms", address=parse("10.0.0.60"), macs=frozenset())
    roles = watch(nms, knows=known.__contains__)

    def ask(ip: str, second: int) -> Packet:
        return ping(second * S, "10.0.0.60", ip, src_mac=NMS, dst_mac=GATEWAY)

    roles.add(table_of([ask(f"10.0.1.{i}", 5) for i in range(1, 11)]))
    roles.add(table_of([ping(6 * S, "10.0.1.2", "10.0.0.60", reply=True, src_mac=1, dst_mac=NMS)]))
    roles.add(table_of([arp(7 * S, 1, "10.0.0.60", NMS, "10.0.0.99", dst_mac=(1 << 48) - 1)]))
    address = parse("10.0.0.60")
    assert roles.strangers(address, 0, 60 * S) == 9  # 3 to 10, and 99
    assert roles.strangers(address, 7 * S, 60 * S) == 1
    assert roles.strangers(parse("10.0.0.61"), 0, 60 * S) == 0


def test_whatever_is_sent_what_is_remembered_is_bounded():
    nms = Bound(role="nms", address=parse("10.0.0.60"), macs=frozenset())
    roles = watch(gateway(GW4), nms)
    for second in range(300):
        packets = [arp(second * S, 2, GW4, THIEF + i, "10.0.0.9", dst_mac=9) for i in range(40)]
        packets += [
            ping(second * S, "10.0.0.60", f"10.{second & 127}.{i}.1", src_mac=NMS, dst_mac=1)
            for i in range(40)
        ]
        roles.add(table_of(packets))
    assert len(roles.offences(10**9)) == MAX_OFFENCES
    assert roles.n_lost_offences == 300 * 40 - MAX_OFFENCES
    (slices,) = roles._impostors.values()
    assert len(slices) == MAX_SLICES
    (asked,) = roles._asked.values()
    assert len(asked.strangers) == MAX_HOSTS


def test_a_change_keeps_what_was_seen_of_those_who_stay():
    roles = watch(gateway(GW4))
    roles.add(table_of([sent(THIEF, 20)]))
    other = Bound(role="scanner", address=parse("10.0.0.50"), macs=frozenset({7}))
    roles.set([gateway(GW4), other])
    assert roles.impostor(parse(GW4), 20 * S, 21 * S)
    roles.set([])
    assert not roles.impostor(parse(GW4), 20 * S, 21 * S)
    roles.add(table_of([sent(THIEF, 30)]))


def test_with_whom_a_host_spoke_is_known_only_where_all_of_it_was_kept():
    facts = LocalFacts(Sightings(), watch(), is_listed=lambda _host: False)
    facts.keeps_talks = True
    windows = HostWindows()

    def second(number: int, n: int) -> None:
        ts = number * S + S // 2
        talk = [tcp(ts, "10.0.0.7", "10.0.0.9", 5000, 443, src_mac=7, dst_mac=9)]
        talk += [tcp(ts + 1, "10.0.0.9", "10.0.0.7", 443, 5000, src_mac=9, dst_mac=7)]
        noise = [tcp(ts + 2 + i, "10.0.0.5", "10.0.0.6", 1, 2) for i in range(n)]
        table = table_of([*talk, *noise])
        facts.add(table)
        matrix = windows.add(table)
        if len(matrix):
            facts.judge(matrix)

    for number in range(4):
        second(number, 10)
    talks = facts.talks(parse("10.0.0.7"), 3 * S)
    assert talks.top == {"out": parse("10.0.0.9"), "in": parse("10.0.0.9")}
    assert talks.rows == [
        ("in", parse("10.0.0.9"), 5000, 443),
        ("out", parse("10.0.0.9"), 5000, 443),
    ]
    assert facts.talks(parse("10.0.0.8"), 3 * S) is None
    second(4, MAX_KEPT)
    second(5, 10)
    facts.judge(windows.flush())
    assert facts.talks(parse("10.0.0.7"), 5 * S) is None
    assert facts.talks(parse("10.0.0.7"), 6 * S) is not None


def test_nothing_is_said_where_nothing_is_asked_for():
    facts = LocalFacts(Sightings(), watch(), is_listed=lambda _host: False)
    for second in range(0, 60, 5):
        pair = [
            tcp(second * S, "10.0.0.7", "10.0.0.9", 1, 2, src_mac=7, dst_mac=9),
            tcp(second * S + 1, "10.0.0.9", "10.0.0.7", 2, 1, src_mac=9, dst_mac=7),
        ]
        facts.add(table_of(pair))
    assert facts.sightings.counters()["devices"] == 2
    assert facts.talks(NOBODY, 0) is None
