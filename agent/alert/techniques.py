"""The detections: what each id is called, which group it is of, which ATT&CK techniques, how it lives.

One table. The policy, the wire format, the docs (docs/alerts.md) and the tests read it; nothing else
says what a detection is. It holds no threshold: those are the detectors'.

Source: the detections of the alert contract; ATT&CK Enterprise and ICS. A test checks every id against
the published list: it exists, is not revoked and stands in the matrix it is named for.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Group(StrEnum):
    """Kinds that are one another's siblings: two of a group between the same two hosts are one attack."""

    FLOOD = "flood"
    RECON = "recon"
    MQTT = "mqtt"
    SPOOFING = "spoofing"
    ACCESS = "access"
    ANOMALY = "anomaly"
    STORM = "storm"


class Scope(StrEnum):
    """Whom a finding is about, and so what its dedupe key holds."""

    PAIR = "pair"
    """Attacker and victim."""
    ATTACKER = "attacker"
    """The attacker alone: a sweep has as many victims as the ward has hosts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """One row of the table."""

    id: str
    group: Group
    what: str
    enterprise: tuple[str, ...]
    ics: tuple[str, ...]
    source_kind: str = "ip"
    scope: Scope = Scope.PAIR
    close_quiet_s: int | None = None
    """How long without a hostile slice ends it; None: the site's `alert.quiet_s` (120 s)."""


RADIO_QUIET_S = 300
"""A radio hears a channel only while it dwells there, so silence means less than on a wire."""

_ROWS = (
    Detection(
        id="tcp_syn_flood",
        group=Group.FLOOD,
        what="TCP SYN flood",
        enterprise=("T1499.001",),
        ics=("T0814",),
    ),
    Detection(
        id="tcp_flood",
        group=Group.FLOOD,
        what="TCP flood other than of SYNs",
        enterprise=("T1498.001",),
        ics=("T0814",),
    ),
    Detection(
        id="udp_flood",
        group=Group.FLOOD,
        what="UDP flood",
        enterprise=("T1498.001",),
        ics=("T0814",),
    ),
    Detection(
        id="icmp_flood",
        group=Group.FLOOD,
        what="ICMP flood",
        enterprise=("T1498.001",),
        ics=("T0814",),
    ),
    Detection(
        id="mqtt_connect_flood",
        group=Group.MQTT,
        what="MQTT CONNECT flood, brute force on credentials, slow CONNECT",
        enterprise=("T1499.002",),
        ics=("T0814",),
    ),
    Detection(
        id="mqtt_publish_flood",
        group=Group.MQTT,
        what="MQTT PUBLISH flood",
        enterprise=("T1499.003",),
        ics=("T0814",),
    ),
    Detection(
        id="mqtt_malformed",
        group=Group.MQTT,
        what="MQTT protocol violations",
        enterprise=("T1499.004",),
        ics=("T0814",),
    ),
    Detection(
        id="ping_sweep",
        group=Group.RECON,
        what="ICMP, ARP or TCP ping sweep",
        enterprise=("T1018",),
        ics=("T0846",),
        scope=Scope.ATTACKER,
    ),
    Detection(
        id="port_scan",
        group=Group.RECON,
        what="TCP or UDP port scan",
        enterprise=("T1046",),
        ics=("T0846",),
    ),
    Detection(
        id="os_scan",
        group=Group.RECON,
        what="OS fingerprinting",
        enterprise=("T1046", "T1595.002"),
        ics=("T0888",),
    ),
    Detection(
        id="vulnerability_scan",
        group=Group.RECON,
        what="vulnerability scan",
        enterprise=("T1046", "T1595.002"),
        ics=("T0888",),
    ),
    Detection(
        id="arp_spoofing",
        group=Group.SPOOFING,
        what="ARP or neighbour cache poisoning",
        enterprise=("T1557.002",),
        ics=("T0830",),
    ),
    Detection(
        id="device_anomaly",
        group=Group.ANOMALY,
        what="unusual for this device (baseline)",
        enterprise=(),
        ics=(),
    ),
    Detection(
        id="ble_advert_flood",
        group=Group.FLOOD,
        what="BLE advertisement flood",
        enterprise=("T1498",),
        ics=("T0814", "T0815"),
        source_kind="ble",
        close_quiet_s=RADIO_QUIET_S,
    ),
    Detection(
        id="ble_dos",
        group=Group.FLOOD,
        what="BLE connection or link-layer denial",
        enterprise=("T1498",),
        ics=("T0814", "T0815"),
        source_kind="ble",
        close_quiet_s=RADIO_QUIET_S,
    ),
    Detection(
        id="ble_clone",
        group=Group.SPOOFING,
        what="BLE clone, spoofed device",
        enterprise=("T1557",),
        ics=("T0860", "T0856"),
        source_kind="ble",
        close_quiet_s=RADIO_QUIET_S,
    ),
    Detection(
        id="ble_gatt_abuse",
        group=Group.ACCESS,
        what="BLE enumeration, unexpected writes",
        enterprise=(),
        ics=("T0860",),
        source_kind="ble",
        close_quiet_s=RADIO_QUIET_S,
    ),
    Detection(
        id="wifi_deauth",
        group=Group.FLOOD,
        what="802.11 deauthentication or disassociation flood",
        enterprise=("T1498",),
        ics=("T0814", "T0815"),
        source_kind="wifi",
        close_quiet_s=RADIO_QUIET_S,
    ),
    Detection(
        id="wifi_beacon_flood",
        group=Group.FLOOD,
        what="802.11 beacon flood",
        enterprise=("T1498",),
        ics=("T0814",),
        source_kind="wifi",
        close_quiet_s=RADIO_QUIET_S,
    ),
    Detection(
        id="wifi_evil_twin",
        group=Group.SPOOFING,
        what="look-alike access point",
        enterprise=("T1557.004",),
        ics=("T0830", "T0860"),
        source_kind="wifi",
        close_quiet_s=RADIO_QUIET_S,
    ),
    Detection(
        id="storm",
        group=Group.STORM,
        what="more findings than a person can read; what was withheld is counted",
        enterprise=(),
        ics=(),
        source_kind="any",
    ),
)

DETECTIONS: dict[str, Detection] = {d.id: d for d in _ROWS}

STORM = "storm"

TECHNIQUE_NAMES: dict[str, str] = {
    "T0814": "Denial of Service",
    "T0815": "Denial of View",
    "T0830": "Adversary-in-the-Middle",
    "T0846": "Remote System Discovery",
    "T0856": "Spoof Reporting Message",
    "T0860": "Wireless Compromise",
    "T0888": "Remote System Information Discovery",
    "T1018": "Remote System Discovery",
    "T1046": "Network Service Discovery",
    "T1498": "Network Denial of Service",
    "T1498.001": "Direct Network Flood",
    "T1499": "Endpoint Denial of Service",
    "T1499.001": "OS Exhaustion Flood",
    "T1499.002": "Service Exhaustion Flood",
    "T1499.003": "Application Exhaustion Flood",
    "T1499.004": "Application or System Exploitation",
    "T1557": "Adversary-in-the-Middle",
    "T1557.002": "ARP Cache Poisoning",
    "T1557.004": "Evil Twin",
    "T1595": "Active Scanning",
    "T1595.002": "Vulnerability Scanning",
}
"""Names as ATT&CK writes them, a sub-technique's parent included; (c) The MITRE Corporation, see docs/alerts.md."""
