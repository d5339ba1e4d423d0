"""The baseline learns what is normal for a device and says what is not, by this device's own measure."""

from dataclasses import replace

import numpy as np
import pytest

from agent.alert.words import LANGUAGES, figure
from agent.features.ip_schema import SCHEMA
from agent.records import MAC_HI, NOBODY, Endpoint
from agent.score.baseline import BaselineDetector, Settings
from agent.score.baseline_budget import HIGHEST, LOWEST, START, Budget
from agent.score.baseline_features import N_BINS, PROTOCOLS, RATES, Selection, edge
from agent.score.baseline_profiles import N_IDS
from agent.score.baseline_score import NEW
from agent.score.baseline_status import devices, summary
from tests.support.baselines import (
    MONITOR,
    NEWCOMER,
    PUMP,
    QUICK,
    SPAN_S,
    host,
    learned,
    matrix,
    quiet,
    row,
)

STORM = {"out_packets_1s": 4000, "out_udp_1s": 4000}


def names(verdict):
    return [fact.feature for fact in verdict.facts]


def said(detector, second, *rows):
    return detector.judge(matrix((second, rows)))


def test_a_rate_out_of_its_range_is_told_with_what_is_normal():
    detector = learned()
    (verdict,) = said(detector, 200, row(PUMP, out_packets_1s=4000), row(MONITOR))
    assert (verdict.detector, verdict.kind) == ("baseline", "device_anomaly")
    assert (verdict.victim, verdict.attacker, verdict.subject) == (PUMP, NOBODY, PUMP)
    assert verdict.margin >= verdict.threshold
    assert verdict.count == 4000
    fact = verdict.facts[0]
    assert (fact.feature, fact.value) == ("out_packets_1s", 4000)
    assert 8 < fact.limit <= 16
    assert 3 < fact.normal < 9


@pytest.mark.parametrize(
    ("change", "fact", "ports"),
    [
        ({"peer": host(66)}, "new_peer_out", ()),
        ({"port": 8080}, "new_port_out", (8080,)),
        ({"out_dns_queries_1s": 1.0}, "out_dns_queries_1s", ()),
    ],
)
def test_a_new_peer_a_new_port_and_a_new_protocol_are_facts_of_their_own(change, fact, ports):
    detector = learned()
    (verdict,) = said(detector, 200, row(PUMP, **change))
    assert names(verdict)[0] == fact
    assert verdict.facts[0].normal == 0.0
    assert verdict.facts[0].limit is None
    assert verdict.ports == ports


def test_what_it_always_did_is_nothing_new():
    detector = learned()
    assert said(detector, 200, row(PUMP, out_packets_1s=8), row(MONITOR, in_packets_1s=7)) == []


def test_nothing_is_said_before_the_learning_time_is_over():
    detector = BaselineDetector(SCHEMA, QUICK)
    assert detector.judge(quiet(0, int(SPAN_S) // 2)) == []
    assert said(detector, 60, row(PUMP, **STORM)) == []
    assert summary(detector)["state"] == "learning"
    detector.judge(quiet(61, 300))
    assert summary(detector)["state"] == "active"


def test_a_newcomer_is_measured_by_the_ward_until_it_is_learned():
    detector = learned(stop=260)
    assert said(detector, 260, row(NEWCOMER, port=443)) == []  # whom it talks to says nothing yet
    (verdict,) = said(detector, 261, row(NEWCOMER, **STORM))
    assert verdict.victim == NEWCOMER
    assert {"out_packets_1s", "out_udp_1s"} <= set(names(verdict))


def test_a_newcomer_of_a_known_class_is_measured_by_its_class():
    classes = {PUMP: "pump", NEWCOMER: "pump", MONITOR: "monitor"}
    detector = learned(stop=260, class_of=classes.get)
    # What a monitor may do is too much for a pump.
    loud = [(s, [row(MONITOR, out_packets_1s=500)]) for s in range(260, 300)]
    detector.learn(matrix(*loud))
    (verdict,) = said(detector, 301, row(NEWCOMER, out_packets_1s=400))
    assert verdict.victim == NEWCOMER
    (verdict,) = said(detector, 302, row(NEWCOMER, port=8080))
    assert names(verdict) == ["new_port_out"]


def test_one_odd_second_is_told_and_not_learned():
    detector = learned()
    for second in range(200, 260):
        assert said(detector, second, row(PUMP, peer=host(66)), row(MONITOR))
    detector.judge(quiet(260, 400))
    assert said(detector, 400, row(PUMP, peer=host(66)))
    assert detector.counters()["flagged_rows_not_learned"] == 60


def test_it_does_not_learn_from_a_host_with_an_open_finding():
    """What is below the threshold would be learned a minute later, if nobody had said anything."""
    open_hosts = {}
    free, held = (learned(open_hosts=lambda h=h: h) for h in ({}, open_hosts))
    open_hosts[PUMP] = True
    for detector in (free, held):
        for second in range(200, 330):
            said(detector, second, row(PUMP, out_packets_1s=20), row(MONITOR, in_packets_1s=20))
    known = {
        d: [limits(d, device)["out_packets_1s"] for device in (PUMP, MONITOR)] for d in (free, held)
    }
    assert known[free][0] > known[held][0]
    assert held.counters()["finding_rows_not_learned"] > 0


def limits(detector, device):
    number = detector.profiles.number_of(device)
    return {name: int(detector.profiles.limit[number, i]) for i, (name, _) in enumerate(RATES)}


def ramp(detector, *, percent, seconds):
    """When the pump's rate is told, as it grows by so many percent a (compressed) hour; and the rate then."""
    hour_s = SPAN_S / 24
    for second in range(seconds):
        rate = 8.0 * (1 + percent / 100) ** (second / hour_s)
        found = said(detector, 200 + second, row(PUMP, out_packets_1s=rate), row(MONITOR))
        if found:
            return rate, found[0]
    return None


@pytest.mark.parametrize("percent", [3, 10])
def test_a_slow_ramp_is_found_while_it_is_still_small(percent):
    rate, verdict = ramp(learned(), percent=percent, seconds=600)
    assert rate < 100  # within seven times the top of the range, 16, whatever time it takes
    assert names(verdict)[0] == "out_packets_1s"
    assert verdict.facts[0].limit < 45  # still measured by what was learned first


def test_a_ramp_would_be_learned_without_the_anchor():
    """The control of the test above: the limit itself follows the ramp."""
    detector = learned()
    before = limits(detector, PUMP)["out_packets_1s"]
    number = detector.profiles.number_of(PUMP)
    detector.profiles.anchor[number] = N_BINS
    assert ramp(detector, percent=3, seconds=500) is None
    assert limits(detector, PUMP)["out_packets_1s"] > before + 4


def test_people_may_say_that_it_is_right_so():
    detector = learned()
    open_hosts = {PUMP: False}
    detector.open_hosts = lambda: open_hosts
    assert said(detector, 200, row(PUMP, out_packets_1s=4000))
    assert detector.accept(PUMP)
    for second in range(201, 420):
        assert said(detector, second, row(PUMP, out_packets_1s=4000), row(MONITOR)) == []
    assert summary(detector)["n_learned_devices"] == 2
    assert said(detector, 420, row(PUMP, out_packets_1s=200_000))
    assert not detector.accept(host(123))


def test_a_device_is_known_by_its_mac_address_too():
    detector = learned()
    detector.profiles.mac[detector.profiles.number_of(PUMP)] = 0x0200_0000_0007
    assert detector.forget(Endpoint(MAC_HI, 0x0200_0000_0007))
    assert [device for device, _, _ in devices(detector)] == [MONITOR]


def test_frozen_it_judges_and_learns_nothing():
    detector = learned()
    detector.frozen = True
    before = detector.profiles.histogram.copy()
    assert said(detector, 200, row(PUMP, out_packets_1s=4000))
    detector.judge(quiet(201, 300))
    np.testing.assert_array_equal(before, detector.profiles.histogram)


def test_memory_is_bounded_under_made_up_addresses_and_those_learned_stay():
    detector = learned()
    n_bytes = sum(table.nbytes for table in detector.profiles.tables().values())
    for second in range(200, 212):
        spoofed = [row(host(0x010000 + second * 256 + k)) for k in range(200)]
        detector.judge(matrix((second, [row(PUMP), row(MONITOR), *spoofed])))
    assert sum(table.nbytes for table in detector.profiles.tables().values()) == n_bytes
    assert len(detector.profiles) <= QUICK.max_devices
    assert {PUMP, MONITOR} <= {device for device, _, _ in devices(detector)}
    assert detector.counters()["evicted_devices"] + detector.counters()["refused_devices"] > 2000
    (verdict,) = said(detector, 212, row(PUMP, out_packets_1s=4000))
    assert verdict.victim == PUMP


def test_a_server_with_more_peers_than_fit_is_never_told_of_a_new_one():
    detector = BaselineDetector(SCHEMA, QUICK)
    for second in range(200):
        said(detector, second, row(PUMP, peer=host(1000 + second % (N_IDS + 8))))
    assert said(detector, 201, row(PUMP, peer=host(5))) == []
    ((_, _, shown),) = devices(detector)
    assert shown["n_peers"] is None


def test_what_is_not_seen_any_more_is_forgotten():
    detector = learned(replace(QUICK, half_life_s=100.0))
    only_monitor = [(200 + s, [row(MONITOR)]) for s in range(500)]
    detector.judge(matrix(*only_monitor))
    assert [device for device, _, _ in devices(detector)] == [MONITOR]
    assert detector.counters()["forgotten_devices"] == 1


def test_a_clock_that_jumps_ripens_nothing():
    settings = Settings(max_devices=8)
    detector = BaselineDetector(SCHEMA, settings)
    for second in range(700):
        said(detector, second, row(PUMP))
    said(detector, 10**8, row(PUMP))
    said(detector, 5, row(PUMP))
    assert summary(detector)["observed_s"] < 2 * 3600
    assert summary(detector)["state"] == "learning"


def test_verdicts_do_not_depend_on_how_slices_are_handed_over():
    story = [
        (s, [row(PUMP, out_packets_1s=4000 if s % 50 == 49 and s > 200 else 6), row(MONITOR)])
        for s in range(300)
    ]
    one, many = (BaselineDetector(SCHEMA, QUICK) for _ in range(2))
    whole = one.judge(matrix(*story))
    pieces = [v for second in story for v in many.judge(matrix(second))]
    assert whole == pieces
    assert whole


# -- the budget


def budget(per_day):
    day_ns = 86_400 * 10**9
    return Budget(
        4, per_day=per_day, merge_ns=120 * 10**9, enough_ns=day_ns / 2, half_life_ns=14 * day_ns
    )


def week(accepted, *, score, per_day):
    """The threshold after a week in which a device reached `score` so often a day."""
    counted = budget(accepted)
    minute_ns = 60 * 10**9
    for minute in range(7 * 1440):
        if minute % (1440 // per_day) == 5:
            counted.count(np.array([1]), np.array([score]), minute * minute_ns)
        counted.pass_time(minute_ns)
    return counted


def test_the_threshold_is_the_lowest_that_the_budget_allows():
    assert week(1.0, score=5, per_day=8).threshold == 6
    assert week(10.0, score=5, per_day=8).threshold == LOWEST
    noisy = week(0.5, score=30, per_day=8)
    assert noisy.threshold == HIGHEST  # a flood stays in sight, whatever is usual


def test_what_lies_close_together_is_one_finding():
    counted = budget(1.0)
    for second in range(0, 600, 10):
        counted.count(np.array([2]), np.array([7]), second * 10**9)
    assert counted.episodes[7] == 1
    assert counted.episodes[8] == 0


def test_until_enough_is_known_the_threshold_is_high():
    counted = budget(1.0)
    counted.pass_time(3600 * 10**9)
    assert not counted.calibrated
    assert counted.threshold == START


def test_quiet_traffic_of_a_ward_sets_it():
    """The pump has its burst each 'hour', one that differs: too often for the budget at a low threshold."""
    rng = np.random.default_rng(7)
    detector = BaselineDetector(SCHEMA, replace(QUICK, findings_per_day=100, hold_s=5, merge_s=2))
    for second in range(700):
        burst = float(rng.pareto(0.8) * 20) if second % 4 == 0 else 0.0
        said(detector, second, row(PUMP, out_packets_1s=6 + burst), row(MONITOR))
    calm = learned(replace(QUICK, findings_per_day=100, hold_s=5, merge_s=2), stop=700)
    assert detector.budget.threshold > calm.budget.threshold == LOWEST
    assert summary(calm)["expected_per_day"] <= 100


# -- steps


def test_steps_grow_with_the_value_and_their_edges_are_their_own():
    selection = Selection(SCHEMA)
    name, soft = RATES[0]
    values = np.zeros((N_BINS, len(SCHEMA)), np.float32)
    values[:, SCHEMA.index[name]] = [edge(step, soft) for step in range(N_BINS)]
    assert selection.bins(values)[:, 0].tolist() == list(range(N_BINS))
    huge = np.full((1, len(SCHEMA)), np.finfo(np.float32).max / 2, np.float32)
    assert (selection.bins(huge) == N_BINS - 1).all()


def test_every_fact_has_words_in_every_language():
    for language in LANGUAGES:
        for name in (*NEW, *PROTOCOLS, *(rate for rate, _ in RATES)):
            assert name not in figure(name, 1.0, language)
