"""The severity table, by what it promises."""

import itertools

import pytest

from agent.alert.severity import BASE, CRITICALITIES, SEVERITIES, highest, severity, severity_id
from agent.alert.techniques import DETECTIONS, Group

ALL = list(
    itertools.product(sorted(BASE), (False, True), (False, True), CRITICALITIES, (False, True))
)


def of(row):
    kind, low, weak, criticality, ongoing = row
    return severity(kind, low_confidence=low, weak=weak, criticality=criticality, ongoing=ongoing)


@pytest.mark.parametrize(
    ("kind", "low", "full"),
    [
        ("port_scan", "low", "medium"),
        ("ping_sweep", "low", "low"),
        ("tcp_syn_flood", "medium", "high"),
        ("mqtt_connect_flood", "medium", "high"),
        ("mqtt_malformed", "medium", "medium"),
        ("arp_spoofing", "high", "high"),
        ("ble_clone", "high", "high"),
        ("wifi_evil_twin", "high", "high"),
    ],
)
def test_a_kind_lies_between_its_severity_at_low_and_at_full_confidence(kind, low, full):
    assert severity(kind, low_confidence=True) == low
    assert severity(kind) == full


def test_a_critical_victim_is_one_step_up():
    assert severity("port_scan", criticality="critical") == "high"
    assert severity("tcp_syn_flood", criticality="critical") == "critical"
    assert severity("tcp_syn_flood", criticality="critical", low_confidence=True) == "high"


def test_critical_is_only_for_a_critical_victim_in_an_ongoing_flood_or_spoofing():
    for row in ALL:
        if of(row) == "critical":
            kind, _, _, criticality, ongoing = row
            assert criticality == "critical"
            assert ongoing
            assert DETECTIONS[kind].group in {Group.FLOOD, Group.SPOOFING}


def test_weak_evidence_is_one_step_down_and_never_below_info():
    assert severity("udp_flood", weak=True) == "low"
    assert severity("device_anomaly", weak=True) == "info"
    assert severity("device_anomaly", weak=True, low_confidence=True) == "info"


def test_more_of_anything_never_lowers_a_severity():
    for kind, low, weak, criticality, ongoing in ALL:
        here = severity_id(of((kind, low, weak, criticality, ongoing)))
        assert severity_id(of((kind, False, weak, criticality, ongoing))) >= here
        assert severity_id(of((kind, low, False, criticality, ongoing))) >= here
        assert severity_id(of((kind, low, weak, "critical", ongoing))) >= here
        assert severity_id(of((kind, low, weak, criticality, True))) >= here


def test_ids_are_ocsfs():
    assert [severity_id(s) for s in SEVERITIES] == [1, 2, 3, 4, 5]
    assert highest("low", "critical", "high") == "critical"
