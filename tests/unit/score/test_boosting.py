"""The model as a detector: thresholds on integers, roles by table, facts that the row really has, bounded output."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.errors import BundleError, BundleReason
from agent.features.ip_schema import SCHEMA
from agent.features.schema import Schema
from agent.records import MAC_HI, NOBODY, V4_MAPPED_LO, Endpoint
from agent.score import boosting
from agent.score.boosting import MAX_EXPLAINED, MAX_VERDICTS, TELLS, BoostingDetector
from agent.score.bundle import Bundle, load_bundle
from agent.score.explain import MAX_FACTS
from agent.score.rules import SPOOFED_SOURCES
from tests.support.bundles import CLASSES, loud, matrix_of, quantised_model, signed_bundle, traffic


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder, key = signed_bundle(tmp_path_factory.mktemp("bundle"))
    return load_bundle(folder, trust=[key], schema=SCHEMA)


SYN_AT_VICTIM = {"in_tcp_syn_1s": 400, "in_packets_1s": 400}
SYN_BY_ATTACKER = {"out_tcp_syn_1s": 400, "out_packets_1s": 400}
PEER = Endpoint(0, V4_MAPPED_LO | 0x0A0000F0)


def host(number: int) -> Endpoint:
    return Endpoint(0, V4_MAPPED_LO | (0x0A000000 + number))


def test_verdicts_are_the_integer_decisions_of_the_quantised_model(bundle: Bundle) -> None:
    rows, _ = traffic(400, 21)
    wanted = quantised_model().predict(rows)
    any_time = {k: tell._replace(at_least_now=0) for k, tell in TELLS.items()}
    verdicts = BoostingDetector(bundle, tells=any_time).judge(matrix_of(rows))
    found = {v.subject.lo - host(1).lo: v for v in verdicts}
    assert sorted(found) == np.flatnonzero(wanted).tolist()
    sums = bundle.gate.sums(rows)[:, 0]
    for row, verdict in found.items():
        assert verdict.kind == CLASSES[wanted[row]]
        assert verdict.margin == sums[row] >= verdict.threshold
        assert 0 < verdict.score <= 1
        assert verdict.score == round(verdict.score, 4)


def test_benign_rows_give_no_verdict_and_an_empty_matrix_gives_none(bundle: Bundle) -> None:
    detector = BoostingDetector(bundle)
    assert detector.judge(matrix_of(np.stack([loud(), loud(in_packets_1s=3)]))) == []
    assert detector.judge(matrix_of(np.empty((0, len(SCHEMA)), np.float32))) == []
    assert detector.counters()["rows"] == 2
    assert detector.counters()["flagged"] == 0


def test_a_flooded_host_is_the_victim_of_the_peer_that_sent_it_most(bundle: Bundle) -> None:
    (verdict,) = BoostingDetector(bundle).judge(matrix_of([loud(**SYN_AT_VICTIM)]))
    assert (verdict.kind, verdict.attacker, verdict.victim) == ("tcp_syn_flood", PEER, host(1))
    assert (verdict.count, verdict.ports, verdict.spoofed) == (400, (1883,), False)
    assert (verdict.start_ns, verdict.end_ns) == (0, 1_000_000_000)


def test_a_flooding_host_is_the_attacker_of_the_peer_it_sent_most(bundle: Bundle) -> None:
    (verdict,) = BoostingDetector(bundle).judge(matrix_of([loud(**SYN_BY_ATTACKER)]))
    assert (verdict.attacker, verdict.victim, verdict.ports) == (host(1), PEER, (443,))


def test_many_new_sources_at_once_are_spoofed_and_nobody_is_accused(bundle: Bundle) -> None:
    matrix = matrix_of([loud(**SYN_AT_VICTIM)], in_new_sources=[SPOOFED_SOURCES + 1])
    (verdict,) = BoostingDetector(bundle).judge(matrix)
    assert verdict.spoofed
    assert verdict.distributed
    assert verdict.attacker == NOBODY
    assert verdict.victim == host(1)


def test_two_attackers_of_one_victim_are_distributed(bundle: Bundle) -> None:
    rows = [loud(**SYN_BY_ATTACKER)] * 2
    assert [v.distributed for v in BoostingDetector(bundle).judge(matrix_of(rows))] == [True, True]
    apart = matrix_of(rows, slices=[0, 1])
    assert [v.distributed for v in BoostingDetector(bundle).judge(apart)] == [False, False]


def test_a_broker_that_forwards_a_publish_flood_is_its_victim(bundle: Bundle) -> None:
    flooded = {"in_mqtt_publishes_1s": 300, "out_mqtt_publishes_1s": 600}
    detector = BoostingDetector(bundle)
    (broker,) = detector.judge(matrix_of([loud(**flooded, in_services_60s=1)]))
    assert (broker.kind, broker.victim) == ("mqtt_publish_flood", host(1))
    (client,) = detector.judge(matrix_of([loud(out_mqtt_publishes_1s=600)]))
    assert client.attacker == host(1)


@pytest.mark.parametrize(
    ("kind", "rival", "attacker"),
    [("arp_spoofing", 0x020000000001, Endpoint(MAC_HI, 0x020000000001)), ("udp_flood", 7, PEER)],
)
def test_a_rival_mac_is_the_attacker_of_an_arp_victim_only(
    bundle: Bundle, kind: str, rival: int, attacker: Endpoint
) -> None:
    matrix = matrix_of(
        [loud(in_arp_unasked_60s=5, in_udp_1s=9)], rival_mac=np.array([rival], np.uint64)
    )
    roles = BoostingDetector(bundle)._roles(matrix, 0, kind)
    assert roles.attacker == attacker


def test_a_sweep_names_no_single_victim(bundle: Bundle) -> None:
    roles = BoostingDetector(bundle)._roles(
        matrix_of([loud(out_arp_targets_60s=90)]), 0, "ping_sweep"
    )
    assert (roles.attacker, roles.victim, roles.count) == (host(1), NOBODY, 90)


def test_a_flood_of_fin_is_told_by_its_packets(bundle: Bundle) -> None:
    detector = BoostingDetector(bundle)
    victim = matrix_of([loud(in_packets_1s=500, in_tcp_data_1s=2, out_tcp_data_1s=3)])
    roles = detector._roles(victim, 0, "tcp_flood")
    assert (roles.victim, roles.attacker, roles.count) == (host(1), PEER, 500)
    assert detector._goes_on(victim, 0, "tcp_flood")
    assert not detector._goes_on(matrix_of([loud(in_packets_1s=4)]), 0, "tcp_flood")


def test_facts_are_the_rows_own_figures_and_the_reasons_go_further(bundle: Bundle) -> None:
    (verdict,) = BoostingDetector(bundle).judge(matrix_of([loud(**SYN_AT_VICTIM)]))
    assert [(f.feature, f.value) for f in verdict.facts] == [("in_tcp_syn_1s", 400)]
    assert verdict.why is not None
    reasons = verdict.why.facts()
    assert reasons[0].feature == "in_tcp_syn_1s"
    assert 1 <= len(reasons) <= MAX_FACTS
    row = loud(**SYN_AT_VICTIM)
    for fact in reasons:
        column = SCHEMA.index[fact.feature]
        assert fact.value == row[column]
        assert (fact.normal, fact.normal_of) == (bundle.benign_median[column], "training")


def test_every_verdict_has_facts_also_those_without_reasons(bundle: Bundle) -> None:
    verdicts = BoostingDetector(bundle).judge(
        matrix_of([loud(**SYN_AT_VICTIM)] * (MAX_EXPLAINED + 5))
    )
    assert len(verdicts) == MAX_EXPLAINED + 5
    assert all(v.facts and v.facts[0].value == 400 for v in verdicts)
    assert [v.why is None for v in verdicts].count(True) == 5


def test_verdicts_a_slice_are_bounded_and_the_rest_is_counted(bundle: Bundle) -> None:
    n = MAX_VERDICTS + 40
    rows = [loud(**SYN_AT_VICTIM)] * (n + 3)
    detector = BoostingDetector(bundle)
    verdicts = detector.judge(matrix_of(rows, slices=[0] * n + [1] * 3))
    assert [v.end_ns for v in verdicts].count(1_000_000_000) == MAX_VERDICTS
    assert [v.end_ns for v in verdicts].count(2_000_000_000) == 3
    assert detector.counters()["over_limit"] == 40


def test_numpy_and_onnxruntime_give_equal_verdicts(tmp_path: Path) -> None:
    folder, key = signed_bundle(tmp_path)
    matrix = matrix_of(traffic(300, 22)[0])
    first, second = (
        BoostingDetector(load_bundle(folder, trust=[key], runtime=runtime)).judge(matrix)
        for runtime in ("onnx", "numpy")
    )
    assert first == second
    assert first


def test_a_matrix_of_another_schema_is_refused(bundle: Bundle) -> None:
    other = Schema("ip-1", SCHEMA.features[:-1])
    with pytest.raises(BundleError, match="was trained on schema") as caught:
        BoostingDetector(bundle).judge(matrix_of([loud()[:-1]], schema=other))
    assert caught.value.reason is BundleReason.SCHEMA


def test_the_table_of_roles_names_only_features_of_the_schema() -> None:
    names = {name for tell in TELLS.values() for name in (*tell.victim, *tell.attacker)}
    assert names | {boosting.IN_SERVICES} <= set(SCHEMA.index)


def test_what_only_the_long_horizon_remembers_is_lingering_and_counted(bundle: Bundle) -> None:
    rows, _ = traffic(400, 21)
    flagged = int(np.count_nonzero(quantised_model().predict(rows)))
    never = {
        k: tell._replace(at_least_now=10**9, at_least_victim_now=10**9) for k, tell in TELLS.items()
    }
    detector = BoostingDetector(bundle, tells=never)
    assert detector.judge(matrix_of(rows)) == []
    assert detector.counters()["lingering"] == flagged > 0


def test_every_kind_says_what_shows_that_it_goes_on() -> None:
    for kind, tell in TELLS.items():
        assert tell.victim_now or tell.attacker_now, kind
        assert set(tell.victim_now + tell.attacker_now) <= set(SCHEMA.index), kind
        assert all(name.endswith("_1s") for name in tell.victim_now + tell.attacker_now)


def test_what_the_gate_does_not_flag_is_benign_of_any_matrix(bundle: Bundle) -> None:
    rows, _ = traffic(100, 23)
    detector = BoostingDetector(bundle)
    flagged = bundle.gate.sums(rows)[:, 0] >= bundle.manifest.gate.threshold
    matrix = matrix_of(rows)
    detector.judge(matrix)
    assert detector.benign(matrix).tolist() == (~flagged).tolist()
    assert detector.benign(matrix_of(rows[:7])).tolist() == (~flagged[:7]).tolist()


def scanned(*rows: dict[str, float], **subjects: object) -> object:
    """A slice: host 1 is scanned, 30 ports of it by one peer, and talks to 10.0.0.2 most; then the others' rows."""
    victim = {"in_services_60s": 30, "in_services_one_peer_60s": 30, "in_new_services_1s": 9}
    peers = [host(2).lo] + [host(1).lo] * len(rows)
    return matrix_of([loud(**victim), *(loud(**row) for row in rows)], in_peer_lo=peers, **subjects)


def test_a_scan_is_blamed_on_who_can_have_done_it_not_on_who_sent_most(bundle: Bundle) -> None:
    client, scanner = {"out_services_one_peer_60s": 2}, {"out_services_one_peer_60s": 30}
    detector = BoostingDetector(bundle)
    matrix = scanned(client, scanner)
    assert detector._roles(matrix, 0, "port_scan").attacker == host(3)
    assert detector._goes_on(matrix, 0, "port_scan")
    other = {"out_services_one_peer_60s": 90}  # scans more, but somebody else
    probed = [0, 0, host(1).lo, host(9).lo]
    assert (
        detector._roles(scanned(client, scanner, other, probed_lo=probed), 0, "port_scan").attacker
    ) == host(3)


def test_a_scan_whose_scanner_is_silent_does_not_go_on(bundle: Bundle) -> None:
    detector = BoostingDetector(bundle)
    clients = [{"out_services_one_peer_60s": 2, "out_tcp_syn_1s": 9}] * 3
    assert not detector._goes_on(scanned(*clients), 0, "port_scan")
    later = scanned({"out_services_one_peer_60s": 30}, slices=[0, 1])
    assert not detector._goes_on(later, 0, "port_scan")


def test_a_scan_of_one_port_is_the_loudest_peers(bundle: Bundle) -> None:
    row = loud(in_services_60s=30, in_services_one_peer_60s=1, in_new_services_1s=9)
    matrix = matrix_of([row])
    assert BoostingDetector(bundle)._roles(matrix, 0, "port_scan").attacker == PEER
    assert BoostingDetector(bundle)._goes_on(matrix, 0, "port_scan")


def test_two_scanners_of_one_host_are_two_attacks_and_three_are_one(bundle: Bundle) -> None:
    row = loud(out_services_60s=300, out_new_services_1s=9)
    for n, distributed in ((2, False), (3, True)):
        verdicts = BoostingDetector(bundle).judge(matrix_of([row] * n))
        assert [v.kind for v in verdicts] == ["port_scan"] * n
        assert {v.distributed for v in verdicts} == {distributed}
