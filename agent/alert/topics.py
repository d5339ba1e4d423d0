"""The MQTT topics that the agent publishes, as text.

It never puts a device name, an address or anything seen on the wire into a topic: site, ward and
gateway come from the site's own configuration, the rest from tables in code.

Source: the alert contract, "Topics"; MQTT 5.0, 4.7 (wildcards, levels, U+0000).
"""

from __future__ import annotations

import re

from agent.alert.severity import SEVERITIES
from agent.alert.techniques import DETECTIONS

PREFIX = "wardwatch/v1"
LEVEL_MAX = 64
"""Characters of a site's, ward's or gateway's name that stand in a topic."""
SOURCE_KINDS = ("ip", "ble", "wifi")


def level(name: str) -> str:
    """A name as one level of a topic: letters, digits, `-` and `_`; anything else becomes `-`."""
    cleaned = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:LEVEL_MAX]
    return cleaned or "unnamed"


def base(site: str, ward: str, gateway: str) -> str:
    """`wardwatch/v1/{site}/{ward}/{gateway}`."""
    return "/".join((PREFIX, level(site), level(ward), level(gateway)))


def status(site: str, ward: str, gateway: str) -> str:
    """Birth, Last Will and clean stop; retained."""
    return base(site, ward, gateway) + "/status"


def open_findings(site: str, ward: str, gateway: str) -> str:
    """The findings open now; retained."""
    return base(site, ward, gateway) + "/open"


def health(site: str, ward: str, gateway: str) -> str:
    """Every 60 s."""
    return base(site, ward, gateway) + "/health"


def selftest(site: str, ward: str, gateway: str) -> str:
    """The result of a bedside self-test."""
    return base(site, ward, gateway) + "/selftest"


def audit(site: str, ward: str, gateway: str) -> str:
    """Hash-chained records of what was done to the agent."""
    return base(site, ward, gateway) + "/audit"


def alert(
    site: str, ward: str, gateway: str, *, highest_severity: str, source_kind: str, kind: str
) -> str:
    """One finding event; the severity is the highest the finding has had. `ValueError` on unknown words."""
    if (
        highest_severity not in SEVERITIES
        or source_kind not in SOURCE_KINDS
        or kind not in DETECTIONS
    ):
        raise ValueError(f"not words of a topic: {highest_severity}, {source_kind}, {kind}")
    return "/".join((base(site, ward, gateway), "alert", highest_severity, source_kind, kind))


def all_alerts(site: str = "+", ward: str = "+", gateway: str = "+") -> str:
    """The filter that a security team subscribes with; `+` stands for any."""
    levels = [name if name == "+" else level(name) for name in (site, ward, gateway)]
    return "/".join((PREFIX, *levels, "alert/#"))
