"""The life of findings: each test is a story of verdicts in, events out."""

import pytest

from agent.alert.policy import FindingPolicy
from agent.alert.suppression import Suppression
from agent.errors import ConfigError
from agent.records import MAC_HI, NOBODY, Device, Endpoint, Verdict
from tests.support.verdicts import ATTACKER, SECOND, T0, VICTIM, host, model, verdict

PUMP = Device(asset_tag="PUMP-07", device_class="infusion_pump", criticality="critical")


def new_policy(**changes: object) -> FindingPolicy:
    return FindingPolicy(**{"gateway": "gw-07", "source": "ward", **changes})


def feed(policy: FindingPolicy, *slices: list[Verdict]):
    """Every event that comes of slices, each a list of verdicts."""
    out = []
    for rows in slices:
        out += policy.consider(rows, max(v.end_ns for v in rows))
    return out


def said(alerts):
    return [(a.activity, a.kind, a.severity) for a in alerts]


def at(second: float) -> int:
    return T0 + round(second * SECOND)


# -- create, update, close


def test_a_finding_is_created_at_once_and_closed_after_the_quiet_time():
    policy = new_policy(quiet_s=120)
    alerts = feed(policy, [verdict(0, count=20)], [verdict(1, count=20)])
    assert said(alerts) == [("create", "tcp_syn_flood", "high")]
    assert policy.advance(at(120)) == []
    (closed,) = policy.advance(at(124))
    assert closed.activity == "close"
    assert closed.uid == alerts[0].uid
    assert closed.time_ns == at(2 + 120)
    assert closed.extra["closed_by"] == "quiet"
    assert closed.count == 40
    assert policy.open_findings() == []


def test_activity_after_a_close_is_a_new_finding_that_names_the_old_one():
    policy = new_policy()
    first, closed, second = feed(policy, [verdict(0)], [verdict(300)])
    assert [first.activity, closed.activity, second.activity] == ["create", "close", "create"]
    assert second.uid != first.uid
    assert second.previous_uid == first.uid


def test_a_radio_finding_waits_longer():
    policy = new_policy(quiet_s=120, source_kind="wifi")
    feed(policy, [verdict(0, "wifi_deauth")])
    assert policy.advance(at(200)) == []
    assert said(policy.advance(at(303))) == [("close", "wifi_deauth", "high")]


def test_counts_of_ten_a_hundred_a_thousand_are_told_at_most_once_a_minute():
    policy = new_policy()
    alerts = feed(policy, *([verdict(s, count=12)] for s in range(200)))
    updates = [a for a in alerts if a.activity == "update"]
    assert [(a.time_ns - T0) // SECOND for a in updates] == [61, 121]
    assert [a.count for a in updates] == [732, 1452]


def test_a_count_below_the_next_power_of_ten_is_no_update():
    policy = new_policy()
    alerts = feed(policy, [verdict(0, count=40)], *([verdict(s, count=0)] for s in range(1, 90)))
    assert [a.activity for a in alerts] == ["create"]


def test_an_update_that_was_held_back_is_sent_when_it_is_due():
    policy = new_policy()
    feed(policy, [verdict(0, count=1)], [verdict(1, count=50)])
    assert policy.advance(at(60)) == []
    (update,) = policy.advance(at(70))
    assert (update.activity, update.count, update.time_ns) == ("update", 51, at(61))


def test_what_a_minute_counts_is_not_counted_again_every_second():
    policy = new_policy()
    alerts = feed(
        policy, *([verdict(s, "port_scan", count=1000, count_window_s=60)] for s in range(50))
    )
    assert alerts[0].count == 1000
    assert policy.open_findings()[0].count == 1000


# -- severity


def test_one_row_of_the_model_alone_is_weak_and_rises_once_it_persists():
    policy = new_policy()
    alerts = feed(policy, *([model(s)] for s in range(4)))
    assert said(alerts) == [
        ("create", "tcp_syn_flood", "low"),
        ("update", "tcp_syn_flood", "high"),
    ]
    assert alerts[1].time_ns == at(3)


def test_the_model_rises_once_a_rule_of_the_group_agrees():
    policy = new_policy()
    alerts = feed(policy, [model(0, "port_scan")], [verdict(1, "port_scan")])
    assert said(alerts) == [("create", "port_scan", "low"), ("update", "port_scan", "medium")]
    assert alerts[1].detectors == ("rules", "boosting")


def test_single_rows_far_apart_do_not_add_up_to_evidence():
    policy = new_policy(quiet_s=120)
    alerts = feed(policy, *([model(s, count=30)] for s in (0, 100, 200)))
    assert said(alerts) == [("create", "tcp_syn_flood", "low")]


def test_a_rule_is_never_lowered():
    assert said(feed(new_policy(), [verdict(0)])) == [("create", "tcp_syn_flood", "high")]


def test_a_critical_victim_raises_it_while_the_flood_goes_on():
    policy = new_policy(devices={VICTIM: PUMP}.get)
    (created,) = feed(policy, [verdict(0)])
    (closed,) = policy.advance(at(400))
    assert (created.severity, created.highest_severity) == ("critical", "critical")
    assert (closed.severity, closed.highest_severity) == ("high", "critical")


def test_low_confidence_lowers_it_until_a_surer_row_comes():
    policy = new_policy(confidence_p30={"rules": 0.8})
    alerts = feed(policy, [verdict(0, score=0.7)], [verdict(1, score=0.81)])
    assert said(alerts) == [
        ("create", "tcp_syn_flood", "medium"),
        ("update", "tcp_syn_flood", "high"),
    ]


def test_two_rises_in_a_minute_are_one_update_at_a_time():
    policy = new_policy(confidence_p30={"boosting": 0.8, "rules": 0.8})
    alerts = feed(policy, *([model(s, score=0.7)] for s in range(3)), [verdict(3, score=0.9)])
    assert said(alerts) == [
        ("create", "tcp_syn_flood", "low"),
        ("update", "tcp_syn_flood", "medium"),
    ]
    (held,) = policy.advance(at(70))
    assert (held.activity, held.severity, held.time_ns) == ("update", "high", at(63))


# -- one attack is one finding


def test_rule_and_model_on_both_hosts_rows_are_one_finding():
    policy = new_policy()
    rows = [
        verdict(0, count=90),
        model(0, count=80),
        model(0, subject=ATTACKER, count=100),
        verdict(0, subject=ATTACKER, count=100),
    ]
    (created,) = feed(policy, rows)
    assert created.count == 100
    assert created.detectors == ("rules", "boosting")


def test_spoofed_sources_are_one_finding_on_the_victim():
    policy = new_policy()
    rows = [verdict(0, spoofed=True, attacker=host(1000 + i)) for i in range(50)]
    (created,) = feed(policy, rows)
    assert (created.attacker, created.victim, created.spoofed) == (NOBODY, VICTIM, True)


def test_attackers_beyond_the_set_number_are_one_distributed_finding():
    rows = [verdict(0, attacker=host(100 + i), subject=host(100 + i)) for i in range(9)]
    (created,) = feed(new_policy(), rows)
    assert (created.attacker, created.distributed, created.count) == (NOBODY, True, 45)


def test_up_to_three_attackers_are_told_apart_and_the_fourth_joins_the_eldest():
    policy = new_policy()
    alerts = feed(policy, *([verdict(s, attacker=host(100 + s))] for s in range(6)))
    assert [a.attacker for a in alerts if a.activity == "create"] == [
        host(100),
        host(101),
        host(102),
    ]
    assert any(a.distributed for a in policy.open_findings())


def test_a_distributed_verdict_joins_the_finding_of_the_first_attacker():
    policy = new_policy()
    alerts = feed(policy, [verdict(0)], [verdict(1, distributed=True, attacker=NOBODY)])
    alerts += feed(policy, [verdict(2, attacker=host(77))])
    assert [a.activity for a in alerts] == ["create"]
    assert policy.open_findings()[0].distributed


def test_a_sweep_is_the_attackers_alone_whoever_was_asked():
    policy = new_policy()
    alerts = feed(
        policy,
        [verdict(0, "ping_sweep", victim=NOBODY, subject=ATTACKER), model(0, "ping_sweep")],
        [model(1, "ping_sweep", victim=host(9))],
    )
    assert [(a.attacker, a.victim) for a in alerts] == [(ATTACKER, NOBODY)]


def test_a_scan_of_a_whole_ward_is_few_findings():
    policy = new_policy()
    alerts = feed(policy, *([verdict(s, "port_scan", victim=host(200 + s))] for s in range(20)))
    assert len([a for a in alerts if a.activity == "create"]) == 3


def test_a_poisoner_between_two_hosts_is_one_finding():
    mac = Endpoint(MAC_HI, 0x020000000042)
    policy = new_policy()
    alerts = feed(
        policy,
        [
            verdict(0, "arp_spoofing", attacker=mac, victim=host(7)),
            verdict(0, "arp_spoofing", attacker=mac, victim=host(1)),
        ],
        [verdict(2, "arp_spoofing", attacker=mac, victim=host(7))],
        [model(3, "arp_spoofing", attacker=ATTACKER, subject=ATTACKER, victim=host(7))],
    )
    assert [a.activity for a in alerts] == ["create"]


def test_a_sibling_kind_that_the_model_says_less_is_folded_in():
    policy = new_policy()
    rows = [
        [model(s, score=0.9), model(s, "tcp_flood", score=0.8, subject=ATTACKER)] for s in range(9)
    ]
    alerts = feed(policy, *rows)
    assert {a.kind for a in alerts} == {"tcp_syn_flood"}
    assert policy.counters()["folded"] == 9


def test_a_rules_kind_takes_over_what_the_model_called_otherwise():
    policy = new_policy()
    alerts = feed(policy, [model(0, "tcp_flood")], [verdict(1, "tcp_syn_flood")])
    assert said(alerts) == [
        ("create", "tcp_flood", "low"),
        ("close", "tcp_flood", "low"),
        ("create", "tcp_syn_flood", "high"),
    ]
    assert alerts[1].extra["closed_by"] == "renamed"
    assert alerts[2].previous_uid == alerts[0].uid
    assert alerts[2].start_ns == alerts[0].start_ns


def test_the_models_kind_never_takes_over_a_rules():
    policy = new_policy()
    alerts = feed(policy, [verdict(0)], *([model(s, "tcp_flood")] for s in range(1, 20)))
    assert {a.kind for a in alerts} == {"tcp_syn_flood"}


def test_a_first_second_misnamed_by_the_model_is_renamed_once_the_other_kind_persists():
    policy = new_policy()
    alerts = feed(policy, [model(0, "tcp_flood")], *([model(s)] for s in range(1, 9)))
    created = [a.kind for a in alerts if a.activity == "create"]
    assert created == ["tcp_flood", "tcp_syn_flood"]


def test_two_kinds_that_rules_say_both_stand():
    alerts = feed(new_policy(), [verdict(0, "port_scan"), verdict(0, "os_scan")])
    assert sorted(a.kind for a in alerts) == ["os_scan", "port_scan"]


def test_the_victims_answers_are_no_attack():
    policy = new_policy()
    echo = model(1, attacker=VICTIM, victim=ATTACKER, subject=VICTIM)
    assert [a.attacker for a in feed(policy, [verdict(0)], [echo])] == [ATTACKER]


def test_the_segments_of_a_named_mqtt_flood_are_no_second_finding():
    policy = new_policy()
    alerts = feed(policy, [verdict(0, "mqtt_publish_flood")], [model(1, "tcp_flood")])
    assert [a.kind for a in alerts] == ["mqtt_publish_flood"]


def test_a_models_sweep_beside_a_rules_scan_of_the_same_host_is_folded():
    policy = new_policy()
    alerts = feed(policy, [verdict(0, "port_scan"), model(0, "ping_sweep")])
    assert [a.kind for a in alerts] == ["port_scan"]


def test_groups_do_not_mix():
    alerts = feed(new_policy(), [verdict(0), verdict(0, "port_scan"), verdict(0, "arp_spoofing")])
    assert len(alerts) == 3


# -- storms and suppression


def scans(n, *, start=0, step=1.0):
    """n port scans, each of another pair of hosts."""
    return [
        [verdict(start + i * step, "port_scan", attacker=host(1000 + i), victim=host(3000 + i))]
        for i in range(n)
    ]


def test_the_overflow_of_a_detection_is_one_storm_with_exact_counts():
    policy = new_policy(burst="5/min")
    slices = [[rows[0] for rows in scans(40, step=0)], [verdict(0, "tcp_syn_flood")]]
    alerts = feed(policy, slices[0] + slices[1])
    created = [a.kind for a in alerts if a.activity == "create"]
    assert created == ["port_scan"] * 5 + ["tcp_syn_flood", "storm"]
    assert alerts[-1].storm_counts == {"port_scan": 35}
    assert alerts[-1].severity == "medium"
    assert policy.counters()["withheld"] == 35


def test_a_withheld_finding_is_told_once_there_is_a_token():
    policy = new_policy(burst="1/min")
    alerts = feed(policy, *([rows[0], rows[1]] for rows in pairs_over(70)))
    created = [(a.kind, (a.time_ns - T0) // SECOND) for a in alerts if a.activity == "create"]
    assert created == [("port_scan", 1), ("storm", 1), ("port_scan", 61)]


def pairs_over(seconds):
    return [
        (verdict(s, "port_scan", victim=host(1)), verdict(s, "port_scan", victim=host(2)))
        for s in range(seconds)
    ]


def test_a_storm_closes_when_nothing_is_withheld_any_more():
    policy = new_policy(burst="1/min", quiet_s=100)
    feed(policy, *scans(3))
    closed = policy.advance(at(200))
    assert ("close", "storm", "medium") in said(closed)
    assert closed[-1].storm_counts == {"port_scan": 2}


def test_a_full_table_counts_what_it_has_no_room_for():
    policy = new_policy(max_findings=4, burst="100/s")
    alerts = feed(policy, *scans(10))
    assert len([a for a in alerts if a.kind == "port_scan"]) == 4
    assert next(a for a in alerts if a.kind == "storm").activity == "create"
    assert policy.counters()["withheld"] == 6


def test_a_suppressed_finding_is_counted_and_not_told():
    row = Suppression(
        name="inventory",
        detection="port_scan",
        where="10.0.0.0/24",
        expires_s=at(100) // SECOND,
        reason="monthly inventory scan",
        author="b. engineer",
    )
    policy = new_policy(suppressions=[row])
    assert feed(policy, [verdict(0, "port_scan")], [verdict(1, "port_scan")]) == []
    assert policy.counters()["suppressed.inventory"] == 2
    assert said(feed(policy, [verdict(100, "port_scan")])) == [("create", "port_scan", "medium")]


def test_suppressions_go_by_wall_time_where_event_time_is_another():
    row = Suppression(
        name="x", detection="*", where="::/0", starts_s=50, expires_s=60, reason="r", author="a"
    )
    policy = new_policy(suppressions=[row], wall_offset_ns=lambda: 55 * SECOND - T0)
    assert feed(policy, [verdict(0)]) == []


# -- ids, order, ends


def test_a_uid_is_the_same_in_every_run_and_differs_by_gateway_source_and_key():
    def uid(**changes: object):
        return feed(new_policy(**changes), [verdict(0)])[0].uid

    assert uid() == uid()
    assert len({uid(), uid(gateway="gw-08"), uid(source="radio"), uid(site_key=b"k")}) == 4


def test_close_all_ends_what_is_open():
    policy = new_policy()
    feed(policy, [verdict(0)], [verdict(1, "port_scan")])
    closed = policy.close_all(at(5))
    assert [(a.activity, a.time_ns, a.extra["closed_by"]) for a in closed] == [
        ("close", at(5), "end")
    ] * 2
    assert policy.close_all(at(6)) == []


def test_open_findings_come_by_severity():
    policy = new_policy()
    feed(policy, [verdict(0, "port_scan")], [verdict(1)])
    assert [a.severity for a in policy.open_findings()] == ["high", "medium"]


def test_nothing_is_told_of_nothing():
    policy = new_policy()
    assert policy.consider([], at(1)) == []
    assert policy.advance(at(1)) == []
    assert policy.counters()["open"] == 0


@pytest.mark.parametrize("burst", ["5", "x/min"])
def test_a_wrong_rate_is_named(burst):
    with pytest.raises(ConfigError, match=r"^alert\.burst: "):
        new_policy(burst=burst)
