"""Every row of the table of detections: ATT&CK ids are real, severities and words exist, nothing dangles."""

import csv
from pathlib import Path

import pytest

from agent.alert.severity import BASE, FLOOR, SEVERITIES
from agent.alert.techniques import DETECTIONS, STORM, TECHNIQUE_NAMES
from agent.alert.words import LANGUAGES, words

DATA = Path(__file__).resolve().parents[1] / "data"
WITH_STORM = sorted(DETECTIONS)
KINDS = [kind for kind in WITH_STORM if kind != STORM]


@pytest.fixture(scope="module")
def attack():
    with (DATA / "attack_techniques.csv").open(newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize("kind", WITH_STORM)
def test_technique_ids_exist_are_not_revoked_and_stand_in_their_matrix(kind, attack):
    detection = DETECTIONS[kind]
    for matrix in ("enterprise", "ics"):
        for technique in getattr(detection, matrix):
            assert attack[technique]["revoked"] == "0"
            assert attack[technique]["matrix"] == matrix


def test_technique_names_are_attacks_own(attack):
    used = {t for d in DETECTIONS.values() for t in (*d.enterprise, *d.ics)}
    parents = {t.partition(".")[0] for t in used}
    assert set(TECHNIQUE_NAMES) == used | parents
    for technique, name in TECHNIQUE_NAMES.items():
        assert attack[technique]["name"] == name


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_severity_and_a_technique_or_is_an_anomaly(kind):
    detection = DETECTIONS[kind]
    assert BASE[kind] in SEVERITIES
    assert detection.group in FLOOR
    assert detection.ics or kind == "device_anomaly"


@pytest.mark.parametrize("language", sorted(LANGUAGES))
@pytest.mark.parametrize("kind", WITH_STORM)
def test_every_language_says_every_detection(language, kind):
    say = words(kind, language)
    assert 0 < len(say.title) <= 80
    assert 0 < len(say.what) <= 200
    assert 1 <= len(say.do_first) <= 3
    assert all(0 < len(text) <= 160 for text in say.do_first)


def test_tables_hold_nothing_else():
    assert set(BASE) == set(KINDS)


def test_the_alert_contracts_detections_are_all_here():
    assert set(KINDS) == {
        *("tcp_syn_flood", "tcp_flood", "udp_flood", "icmp_flood"),
        *("mqtt_connect_flood", "mqtt_publish_flood", "mqtt_malformed"),
        *("ping_sweep", "port_scan", "os_scan", "vulnerability_scan"),
        *("arp_spoofing", "device_anomaly"),
        *("ble_advert_flood", "ble_dos", "ble_clone", "ble_gatt_abuse"),
        *("wifi_deauth", "wifi_beacon_flood", "wifi_evil_twin"),
    }
