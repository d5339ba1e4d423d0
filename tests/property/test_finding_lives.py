"""Whatever the verdicts: each finding's life is create, update*, close?; nothing is lost or told twice."""

from collections import Counter, defaultdict
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.alert.policy import UPDATE_NS, FindingPolicy
from agent.alert.severity import SEVERITIES
from agent.records import NOBODY
from tests.support.verdicts import SECOND, T0, host, verdict

KINDS = (
    "tcp_syn_flood",
    "tcp_flood",
    "port_scan",
    "ping_sweep",
    "arp_spoofing",
    "mqtt_connect_flood",
)


@st.composite
def verdicts(draw):
    attacker = draw(st.sampled_from([NOBODY, *map(host, range(1, 8))]))
    victim = draw(st.sampled_from([NOBODY, *map(host, range(1, 8))]))
    subject = draw(st.sampled_from([h for h in (attacker, victim) if h != NOBODY] or [host(9)]))
    return verdict(
        draw(st.integers(0, 400)),
        draw(st.sampled_from(KINDS)),
        attacker=attacker,
        victim=victim,
        subject=subject,
        detector=draw(st.sampled_from(["rules", "boosting"])),
        spoofed=draw(st.booleans()),
        distributed=draw(st.booleans()),
        count=draw(st.integers(1, 2000)),
        count_window_s=draw(st.sampled_from([1, 60])),
        score=draw(st.sampled_from([0.5, 0.9])),
    )


streams = st.lists(verdicts(), max_size=40).map(lambda rows: sorted(rows, key=lambda v: v.end_ns))


def new_policy(**changes: object) -> FindingPolicy:
    settings = {
        "gateway": "g",
        "source": "s",
        "burst": "3/min",
        "confidence_p30": {"boosting": 0.8},
    }
    return FindingPolicy(**{**settings, **changes})


def run(rows, *, cuts=(), **changes: object):
    """All events of a stream of verdicts that comes in batches, cut at those seconds."""
    policy = new_policy(**changes)
    out = []
    edges = [0, *sorted(cuts), 500]
    for begin, end in pairwise(edges):
        begin_ns, end_ns = T0 + begin * SECOND, T0 + end * SECOND
        batch = [v for v in rows if begin_ns < v.end_ns <= end_ns]
        out += policy.consider(batch, end_ns)
        out += policy.advance(end_ns + SECOND // 5)  # the grace for late frames is over
    return out, policy


@settings(max_examples=60, deadline=None)
@given(streams)
def test_every_life_is_create_updates_close(rows):
    events, policy = run(rows)
    lives = defaultdict(list)
    for alert in events + policy.close_all(T0 + 900 * SECOND):
        lives[alert.uid].append(alert)
    for life in lives.values():
        words = [a.activity for a in life]
        assert words[0] == "create"
        assert words[-1] == "close"
        assert set(words[1:-1]) <= {"update"}
        assert len({(a.kind, a.attacker, a.victim, a.source, a.start_ns) for a in life}) == 1
        assert [a.time_ns for a in life] == sorted(a.time_ns for a in life)
        assert [a.count for a in life] == sorted(a.count for a in life)
        highest = [SEVERITIES.index(a.highest_severity) for a in life]
        assert highest == sorted(highest)
        assert all(SEVERITIES.index(a.severity) <= h for a, h in zip(life, highest, strict=True))
        updates = [a.time_ns for a in life if a.activity == "update"]
        assert all(b - a >= UPDATE_NS for a, b in pairwise(updates))


@settings(max_examples=50, deadline=None)
@given(streams)
def test_events_come_in_the_order_of_event_time(rows):
    events, _ = run(rows)
    times = [a.time_ns for a in events]
    assert times == sorted(times)


@settings(max_examples=50, deadline=None)
@given(streams, st.sets(st.integers(1, 499), max_size=12))
def test_how_batches_are_cut_changes_nothing(rows, cuts):
    whole, _ = run(rows)
    cut, _ = run(rows, cuts=cuts)
    assert cut == whole


@settings(max_examples=60, deadline=None)
@given(streams)
def test_the_same_verdict_twice_is_the_same_finding(rows):
    once, _ = run(rows)
    twice, _ = run([v for row in rows for v in (row, row)])
    assert [(a.uid, a.activity, a.severity, a.count) for a in twice] == [
        (a.uid, a.activity, a.severity, a.count) for a in once
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=60), st.integers(1, 6))
def test_a_storm_counts_exactly_what_was_withheld(seconds, depth):
    """Each of n scans, of a pair of hosts of its own, seen once: told or withheld, none both."""
    rows = [
        verdict(
            s, "port_scan", attacker=host(1000 + i), victim=host(3000 + i), subject=host(1000 + i)
        )
        for i, s in enumerate(sorted(seconds))
    ]
    events, policy = run(rows, burst=f"{depth}/min")
    created = Counter(a.kind for a in events if a.activity == "create")
    storms = {a.uid: sum(a.storm_counts.values()) for a in events if a.storm_counts}
    for a in policy.open_findings():
        if a.storm_counts:
            storms[a.uid] = sum(a.storm_counts.values())
    assert created["port_scan"] + sum(storms.values()) == len(rows)
    assert policy.counters().get("withheld", 0) == sum(storms.values())


@settings(max_examples=60, deadline=None)
@given(streams, st.integers(1, 5))
def test_the_table_stays_within_its_bound(rows, max_findings):
    _, policy = run(rows, max_findings=max_findings)
    assert len(policy.open_findings()) <= max_findings + 1  # the storm
