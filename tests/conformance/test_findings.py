"""The published contract: schemas, docs and events say the same, for every detection and activity."""

import json
from dataclasses import replace

import pytest

from agent.alert import open_list, tables
from agent.alert.finding import SCHEMA_NAME, Moment, encode
from agent.alert.policy import FindingPolicy
from agent.alert.techniques import DETECTIONS, STORM
from agent.alert.topics import alert as alert_topic
from tests.support.alerts import CONTEXT
from tests.support.schemas import OPEN, OWN, ROOT, check_event, validator
from tests.support.verdicts import SECOND, T0, host, verdict

PACKAGE = ROOT / "agent" / "alert"
KINDS = [kind for kind in DETECTIONS if kind != STORM]


@pytest.mark.parametrize("name", ["finding-1", "open-1"])
def test_the_schema_in_the_package_is_the_published_one(name):
    shipped = (PACKAGE / f"{name}.schema.json").read_bytes()
    assert shipped == (ROOT / "docs" / "schemas" / f"{name}.json").read_bytes()


def objects(schema):
    """Every part of a schema that describes an object."""
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        for value in schema.values():
            yield from objects(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from objects(value)


@pytest.mark.parametrize("path", [OWN, OPEN], ids=lambda p: p.stem)
def test_no_object_of_a_schema_takes_unknown_keys(path):
    for part in objects(json.loads(path.read_text())):
        assert part["additionalProperties"] is False or "propertyNames" in part


def test_schemas_name_every_detection_and_themselves():
    own = json.loads(OWN.read_text())
    assert own["$defs"]["detection"]["enum"] == list(DETECTIONS)
    wardwatch = own["properties"]["unmapped"]["properties"]["wardwatch"]
    assert wardwatch["properties"]["schema"]["const"] == SCHEMA_NAME
    assert json.loads(OPEN.read_text())["properties"]["schema"]["const"] == open_list.SCHEMA_NAME


def test_the_docs_tables_are_those_in_code():
    page = (ROOT / "docs" / "alerts.md").read_text()
    assert page.count("<!-- table:") == len(tables.TABLES)
    assert tables.rewritten(page) == page, "run: python -m agent.alert.tables docs/alerts.md"


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_life_of_every_detection_is_valid_by_both_schemas(kind):
    source_kind = DETECTIONS[kind].source_kind
    policy = FindingPolicy(
        gateway="gw-07", source="ward", source_kind=source_kind, devices=CONTEXT.devices
    )
    alerts = []
    for second in range(70):
        alerts += policy.consider([verdict(second, kind)], T0 + (second + 1) * SECOND)
    alerts += policy.advance(T0 + 600 * SECOND)
    assert [a.activity for a in alerts] == ["create", "update", "close"]
    sequence = 0
    for alert in alerts:
        for moment in (Moment(), Moment(clock_source="ntp", clock_synced=True, monotonic_ms=5)):
            sequence += 1
            event = check_event(encode(alert, context=CONTEXT, sequence=sequence, moment=moment))
            assert event["metadata"]["sequence"] == sequence
            assert event["finding_info"]["analytic"]["uid"] == kind
        assert alert_topic(
            "s",
            "w",
            "g",
            highest_severity=alert.highest_severity,
            source_kind=alert.source_kind,
            kind=alert.kind,
        ).endswith(f"/{kind}")


def test_a_storms_whole_life_is_valid_by_both_schemas():
    policy = FindingPolicy(gateway="gw-07", source="ward", burst="1/min")
    rows = [
        verdict(0, "port_scan", attacker=host(400 + i), subject=host(400 + i)) for i in range(3)
    ]
    rows += [verdict(0, "os_scan", attacker=host(400 + i)) for i in range(3)]
    alerts = policy.consider(rows, T0 + SECOND) + policy.advance(T0 + 600 * SECOND)
    storms = [a for a in alerts if a.kind == STORM]
    assert [a.activity for a in storms] == ["create", "close"]
    for sequence, alert in enumerate(alerts):
        check_event(encode(alert, context=CONTEXT, sequence=sequence))


def test_the_open_list_of_a_running_policy_is_valid():
    policy = FindingPolicy(gateway="gw-07", source="ward")
    policy.consider([verdict(0), verdict(0, "port_scan")], T0 + SECOND)
    record = json.loads(open_list.encode_open(policy.open_findings(), ts_ms=T0 // 10**6))
    validator(OPEN).validate(record)
    assert [f["detection"] for f in record["findings"]] == ["tcp_syn_flood", "port_scan"]


def test_a_schema_refuses_what_is_not_in_it():
    policy = FindingPolicy(gateway="gw-07", source="ward")
    (alert,) = policy.consider([verdict(0)], T0 + SECOND)
    event = encode(replace(alert, extra={"payload": "x"}), context=CONTEXT, sequence=1)
    check_event(event)
    for broken in ({**event, "raw_data": "x"}, {**event, "severity_id": 6}):
        assert not validator(OWN).is_valid(broken)
