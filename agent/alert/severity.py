"""How severe a finding is: a table of kind x confidence x criticality of the victim, as code.

It never looks at a finding's history but at three things that the policy tells it: how sure the
detectors are, whether the evidence is weak, and whether the attack is still going on.

- A kind has a severity at full confidence (`BASE`).
- One step down below the 30th percentile of confidence (`low_confidence`).
- One step down, and at most `WEAK_AT_MOST`, while the evidence is weak: one detector that learned, alone, on
  fewer than three slices (docs/decisions/0008). Rules are exact, so a rule's finding is never weak.
- One step up for a victim that the site marks critical.
- A finding that is all of a machine's doing whose role it is (`tuning`) is `low` at most.
- `critical` only for a critical victim in an ongoing flood or spoofing.

Source: the alert contract, "Severity"; docs/alerts.md publishes this table, generated from here.
"""

from __future__ import annotations

from agent.alert.techniques import DETECTIONS, Group

SEVERITIES = ("info", "low", "medium", "high", "critical")
"""In order; the OCSF severity_id is the place in this tuple plus one."""

CRITICALITIES = ("low", "normal", "critical")

BASE: dict[str, str] = {
    "tcp_syn_flood": "high",
    "tcp_flood": "high",
    "udp_flood": "high",
    "icmp_flood": "high",
    "mqtt_connect_flood": "high",
    "mqtt_publish_flood": "high",
    "mqtt_malformed": "medium",
    "ping_sweep": "low",
    "port_scan": "medium",
    "os_scan": "medium",
    "vulnerability_scan": "medium",
    "arp_spoofing": "high",
    "device_anomaly": "low",
    "ble_advert_flood": "medium",
    "ble_dos": "high",
    "ble_clone": "high",
    "ble_gatt_abuse": "medium",
    "wifi_deauth": "high",
    "wifi_beacon_flood": "medium",
    "wifi_evil_twin": "high",
}
"""At full confidence, for a victim that is not marked critical. A storm takes the highest it withheld."""

FLOOR: dict[Group, str] = {
    Group.FLOOD: "medium",
    Group.RECON: "low",
    Group.MQTT: "medium",
    Group.SPOOFING: "high",
    Group.ACCESS: "low",
    Group.ANOMALY: "info",
}
"""What low confidence cannot go below. Weak evidence can, by its one step."""

WEAK_AT_MOST = "low"
"""What a single row of a model may say by itself; nobody is called at night for less than three."""

LOWERED_AT_MOST = "low"
"""What a machine may cause that is there to do it: a scanner in its window (`tuning`)."""

MAY_BE_CRITICAL = frozenset({Group.FLOOD, Group.SPOOFING})


def severity_id(severity: str) -> int:
    """OCSF's severity_id: 1 informational to 5 critical."""
    return SEVERITIES.index(severity) + 1


def highest(*severities: str) -> str:
    """The highest of them."""
    return max(severities, key=SEVERITIES.index)


def lowered(severity: str) -> str:
    """`severity`, or what a role lowers it to."""
    return min(severity, LOWERED_AT_MOST, key=SEVERITIES.index)


def severity(
    kind: str,
    *,
    low_confidence: bool = False,
    weak: bool = False,
    criticality: str = "normal",
    ongoing: bool = True,
) -> str:
    """One of `SEVERITIES` for a finding of `kind` (a detection id, not `storm`)."""
    group = DETECTIONS[kind].group
    step = SEVERITIES.index(BASE[kind])
    if low_confidence:
        step = max(step - 1, min(step, SEVERITIES.index(FLOOR[group])))
    if weak:
        step = min(step - 1, SEVERITIES.index(WEAK_AT_MOST))
    if criticality == "critical":
        step += 1
    top = len(SEVERITIES) - 1
    if not (criticality == "critical" and ongoing and group in MAY_BE_CRITICAL):
        top -= 1
    return SEVERITIES[max(0, min(step, top))]
