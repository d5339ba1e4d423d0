"""What people say about their ward, and what it does to verdicts: by event time, by machine, counted."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from agent.alert.policy import FindingPolicy
from agent.alert.tuning import (
    NMS_STRANGERS,
    NOVELTIES,
    NOVELTY,
    Approval,
    Effect,
    Role,
    Rules,
    Tuning,
    Window,
)
from agent.inventory.local_facts import SliceTalks
from agent.records import MAC_HI, NOBODY, Device, Endpoint, Fact
from agent.score import baseline_score
from tests.support.verdicts import ATTACKER, SECOND, T0, VICTIM, host, model, verdict

THRESHOLD = 3
RECON = ("ping_sweep", "port_scan", "os_scan", "vulnerability_scan")
PUMP = Device(asset_tag="PUMP-07", device_class="infusion_pump", criticality="critical")
OPEN = Window(name="night", zone=ZoneInfo("UTC"), starts_s=T0 // SECOND, ends_s=T0 // SECOND + 600)
MAC = 0x020000000066
SCANNER = Role(name="it", role="scanner", address=ATTACKER, macs=frozenset({MAC}), window="night")


class Seen:
    """A witness that says what a test wants."""

    def __init__(self, *, impostors=(), strangers=0, talks=None):
        self._impostors, self._strangers, self._talks = impostors, strangers, talks

    def impostor(self, address, start_ns, end_ns):
        return any(a == address and start_ns <= t < end_ns for a, t in self._impostors)

    def strangers(self, address, start_ns, end_ns):  # noqa: ARG002 -- as `Witness`
        return self._strangers

    def talks(self, host, end_ns):  # noqa: ARG002 -- as `Witness`
        return self._talks


def nobody_listed(_endpoint):
    return None


def tuning(rules: Rules, witness=None, devices=nobody_listed) -> Tuning:
    return Tuning(rules, device_of=devices, witness=witness)


def effect(row: Tuning, v, wall_ns=None):
    return row.judge(v, wall_ns=v.end_ns if wall_ns is None else wall_ns)[0]


def wall(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp())


# -- windows


@pytest.mark.parametrize(
    ("local", "inside"),
    [
        ("2026-11-20T23:00", False),  # a Friday
        ("2026-11-21T21:59:59", False),
        ("2026-11-21T22:00", True),
        ("2026-11-22T03:59:59", True),  # what began on Saturday
        ("2026-11-22T04:00", False),
        ("2026-11-22T22:00", True),
        ("2026-11-23T03:00", True),
        ("2026-11-23T22:30", False),  # a Monday
        ("2026-07-04T22:30", True),  # daylight saving: the wall clock of the ward counts
        ("2026-07-05T03:30", True),
    ],
)
def test_a_weekly_window_is_of_its_days_and_of_the_wards_own_clock(local, inside):
    window = Window(
        name="n",
        zone=ZoneInfo("Europe/Paris"),
        days=frozenset({5, 6}),
        hours_s=(22 * 3600, 4 * 3600),
    )
    assert window.holds(wall(local, "Europe/Paris")) is inside


def test_the_same_utc_hour_is_in_the_window_in_winter_and_not_in_summer():
    window = Window(name="n", zone=ZoneInfo("Europe/Paris"), hours_s=(22 * 3600, 23 * 3600))
    assert window.holds(wall("2026-01-10T21:30"))
    assert not window.holds(wall("2026-07-10T21:30"))


def test_a_one_off_window_has_two_ends():
    window = Window(name="n", zone=ZoneInfo("UTC"), starts_s=100, ends_s=200)
    assert [window.holds(t) for t in (99, 100, 199, 200)] == [False, True, True, False]


# -- scanners


@pytest.mark.parametrize("kind", RECON)
def test_a_scanner_in_its_window_is_low_at_most_and_outside_it_is_an_attacker(kind):
    rules = Rules(windows=(OPEN,), roles=(SCANNER,))
    row = tuning(rules)
    assert effect(row, verdict(10, kind)) is Effect.LOWER
    assert effect(row, verdict(599, kind)) is Effect.TELL  # its end lies outside
    assert effect(row, verdict(10, kind, attacker=host(9))) is Effect.TELL
    assert effect(row, verdict(10, "tcp_syn_flood")) is Effect.TELL
    use = row.uses()["role", "it"]
    assert (use.verdicts, use.findings) == (1, 1)
    assert row.uses()["window", "night"].verdicts == 1


def test_a_scanners_finding_is_told_as_low_and_says_why_until_it_is_somebody_elses():
    rules = Rules(windows=(OPEN,), roles=(SCANNER,))
    policy = FindingPolicy(gateway="g", source="s", tuning=tuning(rules))
    (created,) = policy.consider([verdict(595, "port_scan")], T0 + 596 * SECOND)
    assert (created.severity, created.extra["lowered_by"]) == ("low", "it")
    later = []
    for second in range(596, 720):
        rows = [verdict(second, "port_scan")]
        later += policy.consider(rows, T0 + (second + 1) * SECOND)
    (risen, *_) = later
    assert (risen.activity, risen.uid, risen.severity) == ("update", created.uid, "medium")
    assert "lowered_by" not in risen.extra
    assert policy.counters()["lowered"] == 4


def test_a_critical_victim_does_not_raise_what_the_scanner_may_do():
    rules = Rules(windows=(OPEN,), roles=(SCANNER,))
    devices = {VICTIM: PUMP}.get
    policy = FindingPolicy(
        gateway="g", source="s", devices=devices, tuning=tuning(rules, devices=devices)
    )
    (created,) = policy.consider([verdict(5, "vulnerability_scan")], T0 + 6 * SECOND)
    assert created.severity == "low"


def test_the_answers_to_a_scan_do_not_raise_it():
    """A model's row about a scanned host, whose answers go to the scanner."""
    rules = Rules(windows=(OPEN,), roles=(SCANNER,))
    policy = FindingPolicy(gateway="g", source="s", tuning=tuning(rules))
    alerts = []
    for second in range(8):
        mirror = model(second, "ping_sweep", attacker=VICTIM, victim=ATTACKER, subject=VICTIM)
        alerts += policy.consider(
            [verdict(second, "port_scan"), mirror], T0 + (second + 1) * SECOND
        )
    alerts += policy.close_all(T0 + 20 * SECOND)
    assert {a.highest_severity for a in alerts} <= {"info", "low"}


def test_who_takes_the_scanners_address_has_nothing_of_it():
    rules = Rules(windows=(OPEN,), roles=(SCANNER,))
    at = T0 + 100 * SECOND
    row = tuning(rules, Seen(impostors=[(ATTACKER, at)]))
    assert effect(row, verdict(30, "port_scan")) is Effect.LOWER
    assert effect(row, verdict(100, "port_scan")) is Effect.TELL
    assert effect(row, verdict(150, "port_scan")) is Effect.TELL  # the row reaches over a minute
    assert effect(row, verdict(170, "port_scan")) is Effect.LOWER


def test_a_machine_known_by_its_mac_alone_is_known_by_its_mac():
    rules = Rules(windows=(OPEN,), roles=(SCANNER,))
    row = tuning(rules)
    assert effect(row, verdict(1, "ping_sweep", attacker=Endpoint(MAC_HI, MAC))) is Effect.LOWER
    assert effect(row, verdict(1, "ping_sweep", attacker=Endpoint(MAC_HI, 5))) is Effect.TELL


def test_a_role_that_has_expired_does_nothing():
    role = Role(name="it", role="scanner", address=ATTACKER, expires_s=T0 // SECOND + 50)
    row = tuning(Rules(roles=(role,)))
    assert effect(row, verdict(40, "port_scan")) is Effect.LOWER
    assert effect(row, verdict(60, "port_scan")) is Effect.TELL
    assert row.uses()["role", "it"].verdicts == 1


# -- the other roles


def test_an_nms_may_ask_for_hosts_that_are_known():
    role = Role(name="nms", role="nms", address=ATTACKER)
    sweep = verdict(0, "ping_sweep", victim=NOBODY)
    known = tuning(Rules(roles=(role,)), Seen(strangers=NMS_STRANGERS - 1))
    assert effect(known, sweep) is Effect.SILENCE
    assert known.uses()["role", "nms"].findings == 1
    assert effect(tuning(Rules(roles=(role,)), Seen(strangers=NMS_STRANGERS)), sweep) is Effect.TELL
    assert effect(known, verdict(0, "port_scan")) is Effect.TELL


def test_only_the_gateways_own_machines_may_claim_for_others():
    role = Role(name="gw", role="gateway", address=host(1), macs=frozenset({MAC}))
    row = tuning(Rules(roles=(role,)))
    mine = verdict(0, "arp_spoofing", attacker=Endpoint(MAC_HI, MAC))
    other = verdict(0, "arp_spoofing", attacker=Endpoint(MAC_HI, MAC + 1), victim=host(1))
    assert effect(row, mine) is Effect.LOWER
    assert effect(row, other) is Effect.TELL


def test_a_dhcp_server_may_try_addresses_before_it_leases_them():
    role = Role(name="dhcp", role="dhcp_server", address=ATTACKER)
    row = tuning(Rules(roles=(role,)))
    assert effect(row, verdict(0, "ping_sweep", victim=NOBODY)) is Effect.LOWER
    assert effect(row, verdict(0, "arp_spoofing")) is Effect.TELL


# -- approvals


def anomaly(*facts: Fact, second: float = 0):
    margin = max((STEPS.get(fact, 0) for fact in facts), default=0)
    margin += NOVELTY * sum(fact.limit is None for fact in facts)
    return verdict(
        second,
        "device_anomaly",
        detector="baseline",
        margin=margin,
        threshold=THRESHOLD,
        ports=tuple(PORTS[fact] for fact in facts if fact in PORTS),
        attacker=NOBODY,
        victim=VICTIM,
        subject=VICTIM,
        facts=facts,
    )


NEW_PEER = Fact(feature="new_peer_out", value=1.0, normal=0.0)
NEW_PORT = Fact(feature="new_port_out", value=1.0, normal=0.0)
RATE = Fact(feature="out_packets_1s", value=900.0, limit=50.0, normal=3.0)
NEW_IN = Fact(feature="new_port_in", value=1.0, normal=0.0)
NEW_PROTOCOL = Fact(feature="out_dns_queries_1s", value=1.0, normal=0.0)
A_LITTLE_MORE = Fact(feature="out_peers_60s", value=2.0, limit=2.0, normal=0.0)
TALKS = SliceTalks(
    {"out": host(9), "in": host(8)},
    [("out", host(9), 50_000, 443), ("in", host(8), 8080, 50_001), ("out", host(5), 50_002, 1883)],
)
PORTS = {NEW_PORT: 443, NEW_IN: 8080}
STEPS = {RATE: THRESHOLD, A_LITTLE_MORE: 1}
"""How far out of its range a rate is, as the baseline counts it."""


@pytest.mark.parametrize(
    ("changes", "facts", "silenced"),
    [
        ({"peer": "10.0.0.9"}, [NEW_PEER], True),
        ({"peer": "10.0.0.9"}, [NEW_PEER, NEW_PORT], True),
        ({"peer": "10.0.0.9", "ports": frozenset({443})}, [NEW_PORT], True),
        ({"ports": frozenset({443})}, [NEW_PORT], True),
        ({"ports": frozenset({80})}, [NEW_PORT], False),
        ({"peer": "10.0.0.8"}, [NEW_PEER], False),
        ({"peer": "10.0.0.9"}, [NEW_PEER, RATE], False),
        ({"peer": "10.0.0.9"}, [NEW_PEER, NEW_IN], False),  # it is approved, the other is not
        ({"peer": "10.0.0.9"}, [NEW_PEER, NEW_PROTOCOL], True),
        ({"peer": "10.0.0.9"}, [NEW_PEER, A_LITTLE_MORE], True),
        ({"peer": "10.0.0.9", "device": "PUMP-08"}, [NEW_PEER], False),
        ({"peer": "10.0.0.0/24", "device": "10.0.0.0/28"}, [NEW_PEER], True),
        ({"peer": "10.0.0.9", "expires_s": T0 // SECOND}, [NEW_PEER], False),
    ],
)
def test_an_approval_is_for_what_it_names_and_not_for_a_rate(changes, facts, silenced):
    row = Approval(**{"name": "update", "device": "PUMP-07", **changes})
    judged = tuning(Rules(approvals=(row,)), Seen(talks=TALKS), {VICTIM: PUMP}.get)
    assert (effect(judged, anomaly(*facts)) is Effect.SILENCE) is silenced
    assert judged.uses()["approve", "update"].verdicts == int(silenced)


def test_a_novelty_weighs_what_the_baseline_gives_it():
    assert NOVELTY == baseline_score.NOVELTY
    assert set(NOVELTIES) == set(baseline_score.NEW)


def test_an_approval_is_for_anomalies_only():
    row = Approval(name="u", device="10.0.0.7", peer="10.0.0.66")
    judged = tuning(Rules(approvals=(row,)), Seen(talks=TALKS))
    assert effect(judged, verdict(0, "port_scan")) is Effect.TELL


# -- counting, changing


def test_findings_are_counted_as_they_would_have_been_told():
    row = tuning(Rules(windows=(OPEN,), roles=(SCANNER,)))
    for second in (0, 1, 2, 300, 301):
        row.judge(verdict(second, "port_scan"), wall_ns=T0 + 10 * SECOND)
    use = row.uses()["role", "it"]
    assert (use.verdicts, use.findings, use.last_ns) == (5, 2, T0 + 10 * SECOND)


def test_what_was_counted_stays_counted_when_others_change():
    row = tuning(Rules(windows=(OPEN,), roles=(SCANNER,)))
    row.judge(verdict(0, "port_scan"), wall_ns=T0)
    nms = Role(name="nms", role="nms", address=host(3))
    row.replace(Rules(windows=(OPEN,), roles=(SCANNER, nms)))
    assert row.uses()["role", "it"].verdicts == 1
    row.replace(Rules())
    assert row.uses() == {}
    assert effect(row, verdict(1, "port_scan")) is Effect.TELL


def test_wall_time_rules_where_event_time_is_another():
    row = tuning(Rules(windows=(OPEN,), roles=(SCANNER,)))
    assert effect(row, verdict(0, "port_scan"), wall_ns=T0 + 700 * SECOND) is Effect.TELL
    assert effect(row, verdict(700, "port_scan"), wall_ns=T0) is Effect.LOWER
