"""Finding events: what is in them, and what never is."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.alert.endpoints import text
from agent.alert.finding import (
    MAX_BYTES,
    Moment,
    encode,
    stamp_transmit_time,
    to_bytes,
)
from agent.alert.techniques import DETECTIONS
from agent.records import MAC_HI, NOBODY, Device, Endpoint, Fact
from tests.support.alerts import ALERT, CONTEXT
from tests.support.schemas import check_event
from tests.support.verdicts import ATTACKER, SECOND, T0, VICTIM


def event_of(alert=ALERT, *, context=CONTEXT, sequence=7, moment=None):
    return check_event(encode(alert, context=context, sequence=sequence, moment=moment or Moment()))


def test_an_event_says_what_where_since_when_why_and_what_to_do():
    event = event_of()
    own = event["unmapped"]["wardwatch"]
    assert event["activity_id"] == 1
    assert event["severity_id"] == 5
    assert event["message"] == "TCP SYN flood: PUMP-07"
    assert event["start_time"] == T0 // 1_000_000
    assert event["resources"][0]["name"] == "PUMP-07"
    assert event["finding_info"]["analytic"]["uid"] == "tcp_syn_flood"
    assert event["finding_info"]["attacks"][0]["sub_technique"]["uid"] == "T1499.001"
    assert event["evidences"][0]["dst_endpoint"]["port"] == 1883
    assert own["facts"][0]["words"] == (
        "connection requests received (TCP SYN): 9,412/s (limit 100/s; normal for this device: 3/s)"
    )
    assert own["device"] == {"class": "infusion_pump", "criticality": "critical"}
    assert own["do_first"][0].startswith("Look at the device")


def test_no_address_leaves_unless_the_site_turned_that_on():
    quiet = to_bytes(event_of()).decode()
    assert text(ATTACKER) not in quiet
    assert text(VICTIM) not in quiet
    loud = event_of(context=replace(CONTEXT, raw_addresses=True))
    assert loud["evidences"][0]["src_endpoint"]["ip"] == text(ATTACKER)
    mac = replace(ALERT, attacker=Endpoint(MAC_HI, 0x020000000042))
    loud = event_of(mac, context=replace(CONTEXT, raw_addresses=True))
    assert loud["evidences"][0]["src_endpoint"]["mac"] == "02:00:00:00:00:42"


def test_a_pseudonym_is_the_same_under_one_key_and_another_under_another():
    first = event_of()["evidences"][0]["src_endpoint"]["uid"]
    assert event_of(sequence=8)["evidences"][0]["src_endpoint"]["uid"] == first
    other = event_of(context=replace(CONTEXT, site_key=b"another"))
    assert other["evidences"][0]["src_endpoint"]["uid"] != first


def test_event_ids_differ_by_event_and_are_the_same_again():
    created, closed = event_of(), event_of(replace(ALERT, activity="close"), sequence=8)
    assert created["finding_info"]["uid"] == closed["finding_info"]["uid"]
    assert created["metadata"]["uid"] != closed["metadata"]["uid"]
    assert created["metadata"]["uid"] == event_of()["metadata"]["uid"]


def test_wall_time_is_attached_where_the_event_is_made():
    offset_ns = 3600 * SECOND
    moment = Moment(wall_offset_ns=offset_ns, logged_ms=42, clock_source="ntp", clock_synced=True)
    event = event_of(moment=moment)
    assert event["time"] == (ALERT.time_ns + offset_ns) // 1_000_000
    assert event["metadata"]["original_time"] == "2023-11-14T23:13:21Z"
    assert event["metadata"]["logged_time"] == 42


def test_the_time_of_sending_is_put_in_later_and_fits():
    payload = stamp_transmit_time(to_bytes(event_of()), 1_700_000_009_000)
    event = check_event(json.loads(payload))
    assert event["metadata"]["transmit_time"] == 1_700_000_009_000


@pytest.mark.parametrize("kind", sorted(DETECTIONS))
@pytest.mark.parametrize("activity", ["create", "update", "close"])
def test_every_detection_makes_valid_events(kind, activity):
    alert = replace(ALERT, kind=kind, activity=activity, extra={"closed_by": "quiet"})
    event_of(alert)


def test_a_finding_without_hosts_or_with_a_predecessor_or_a_storm_is_valid():
    storm = replace(
        ALERT,
        kind="storm",
        attacker=NOBODY,
        victim=NOBODY,
        detectors=(),
        facts=(),
        ports=(),
        storm_counts={"port_scan": 12, "ping_sweep": 3},
        previous_uid="9a6d0f44-61a7-5a3b-8e0a-000000000002",
    )
    own = event_of(storm)["unmapped"]["wardwatch"]
    assert own["storm_counts"] == {"port_scan": 12, "ping_sweep": 3}
    assert own["previous_uid"].endswith("2")


def test_a_figure_that_is_no_number_is_left_out():
    facts = (
        Fact(feature="a", value=float("nan")),
        Fact(feature="b", value=1.0, limit=float("inf")),
    )
    own = event_of(replace(ALERT, facts=facts))["unmapped"]["wardwatch"]
    assert [f["feature"] for f in own["facts"]] == ["b"]
    assert "limit" not in own["facts"][0]


names = st.text(max_size=200)


@settings(max_examples=25, deadline=None)
@given(
    name=names, meaning=names, n_facts=st.integers(0, 9), kind=st.sampled_from(sorted(DETECTIONS))
)
def test_no_event_is_larger_than_4_kb_and_facts_go_first(name, meaning, n_facts, kind):
    facts = tuple(
        Fact(feature=f"f{i}", value=1e300 / 3, limit=0.1, normal=1 / 3) for i in range(n_facts)
    )
    device = Device(asset_tag=name, device_class=name, criticality="critical")
    context = replace(
        CONTEXT,
        site=name,
        ward=name,
        gateway=name,
        raw_addresses=True,
        devices=lambda _: device,
        features={f.feature: meaning for f in facts},
    )
    counts = dict.fromkeys(DETECTIONS, 10**12)
    alert = replace(
        ALERT,
        kind=kind,
        activity="close",
        attacker=Endpoint(0x20010DB8FFFFFFFF, 2**64 - 1),
        ports=tuple(range(65500, 65520)),
        facts=facts,
        previous_uid=ALERT.uid,
        storm_counts=counts if kind == "storm" else None,
        margin=2**62,
        count=2**62,
        source=name,
        extra={"closed_by": "renamed"},
    )
    event = event_of(alert, context=context, sequence=2**53)
    payload = stamp_transmit_time(to_bytes(event), 10**13)
    assert len(payload) <= MAX_BYTES
    check_event(json.loads(payload))


def test_hostile_names_of_the_site_cannot_break_an_event():
    event = event_of(context=replace(CONTEXT, ward='"}\n\x1b[31m\ud800x' * 30))
    assert "\x1b" not in to_bytes(event).decode()
