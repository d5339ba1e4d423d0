"""An `Alert` as it goes over the wire: an OCSF 1.8 Detection Finding in a profile of our own.

It never lets out an address (but where the site turns that on), a name or bytes seen on the wire: hosts
are pseudonyms under the site's key, a device that the site file lists carries its asset tag. It reads
no clock: what the time is, is handed in. It never makes an event larger than 4,096 bytes.

In: an `Alert`, the gateway's `Context`, a sequence number and the `Moment`. Out: a dict that validates
against agent/alert/finding-1.schema.json and OCSF's own schema; `to_bytes` makes the payload.
Raises: nothing on what an alert holds. Remembers: nothing.

Source: schema.ocsf.io/1.8.0/classes/detection_finding (class 2004); RFC 3339; the alert contract.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from agent.alert.endpoints import is_mac, pseudonym, text
from agent.alert.severity import severity_id
from agent.alert.suppression import DeviceLookup, no_devices
from agent.alert.techniques import DETECTIONS, TECHNIQUE_NAMES
from agent.alert.words import DEFAULT, fact_words, words
from agent.records import NOBODY, Alert, Endpoint, Fact

SCHEMA_NAME = "wardwatch.finding.v1"
"""The user property that goes with a finding on MQTT; the schema is docs/schemas/finding-1.json."""
OCSF_VERSION = "1.8.0"
MAX_BYTES = 4096
MAX_FACTS = 5
MAX_PORTS = 16
MAX_TEXT = 64
"""UTF-8 bytes of a name that the site gave: of a ward, a source, an asset tag."""
STAMP_BYTES = 40
"""Kept free for `transmit_time`, which is put in when the event is sent."""

ACTIVITY = {"create": (1, "Create"), "update": (2, "Update"), "close": (3, "Close")}
STATUS = {"create": (1, "New"), "update": (2, "In Progress"), "close": (4, "Resolved")}
SEVERITY_NAMES = ("Informational", "Low", "Medium", "High", "Critical")
ANALYTIC = {
    "rules": (1, "Rule"),
    "baseline": (2, "Behavioral"),
    "boosting": (4, "Learning (ML/DL)"),
}
ROLE_TARGET = (1, "Target")
ROLE_ACTOR = (2, "Actor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What is the same for every event of a gateway."""

    site: str
    ward: str
    gateway: str
    version: str
    """Of the agent."""
    site_key: bytes
    """Makes pseudonyms; without one in the site's configuration, a random one of this run."""
    raw_addresses: bool = False
    devices: DeviceLookup = no_devices
    bundle: str | None = None
    """Id of the model bundle; None: no model is loaded."""
    language: str = DEFAULT
    """Of everything that people read; ids and what OCSF fixes stay as they are."""
    features: Mapping[str, str] = field(default_factory=dict)
    """What each feature means, by name, in words (the schema's `meaning`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When an event is encoded, and in what state the gateway is."""

    wall_offset_ns: int = 0
    """Added to event time it gives wall time; 0 for capture files."""
    logged_ms: int | None = None
    """Wall clock, milliseconds since the epoch; None: the event's own time (replay)."""
    clock_synced: bool | None = None
    """None: not known."""
    clock_source: str = "capture"
    """`ntp`, `ptp`, `rtc`, `none`; `capture`: the time stamps of a file."""
    boot_id: str | None = None
    monotonic_ms: int | None = None
    sampled: bool = False
    """Whether frames were shed around the time of this finding."""
    shed_share: float = 0.0
    """Share of frames shed, 0 to 1."""
    n_dropped_frames: int = 0
    """Frames that the kernel dropped in the finding's time, as far as is known."""
    test: bool = False
    """A self-test, or an exercise."""


REPLAY = Moment()


def encode(
    alert: Alert, *, context: Context, sequence: int, moment: Moment = REPLAY
) -> dict[str, Any]:
    """One finding event, JSON-safe, at most `MAX_BYTES` as `to_bytes` writes it.

    `sequence` grows by one an event for the life of the gateway (the spool gives it).
    """
    facts, ports = list(alert.facts[:MAX_FACTS]), list(alert.ports[:MAX_PORTS])
    event = _event(alert, facts, ports, context=context, sequence=sequence, moment=moment)
    while len(to_bytes(event)) > MAX_BYTES - STAMP_BYTES and (facts or ports):
        (facts or ports).pop()
        event = _event(alert, facts, ports, context=context, sequence=sequence, moment=moment)
    return event


def to_bytes(event: Mapping[str, Any]) -> bytes:
    """The MQTT payload: compact JSON, UTF-8."""
    return json.dumps(event, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def stamp_transmit_time(payload: bytes, time_ms: int) -> bytes:
    """The payload with `metadata.transmit_time`, set when it is handed to the broker."""
    event = json.loads(payload)
    event["metadata"]["transmit_time"] = time_ms
    return to_bytes(event)


def event_uid(finding_uid: str, activity: str, sequence: int) -> str:
    """`metadata.uid`: unique for each event, the same again when the same event is made again."""
    return str(uuid5(UUID(finding_uid), f"{activity}|{sequence}"))


def _event(
    alert: Alert,
    facts: list[Fact],
    ports: list[int],
    *,
    context: Context,
    sequence: int,
    moment: Moment,
) -> dict[str, Any]:
    activity_id, activity = ACTIVITY[alert.activity]
    status_id, status = STATUS[alert.activity]
    severity = severity_id(alert.severity)
    say = words(alert.kind, context.language)
    time_ms = _wall_ms(alert.time_ns, moment)
    event: dict[str, Any] = {
        "activity_id": activity_id,
        "activity_name": activity,
        "category_uid": 2,
        "category_name": "Findings",
        "class_uid": 2004,
        "class_name": "Detection Finding",
        "type_uid": 200400 + activity_id,
        "type_name": f"Detection Finding: {activity}",
        "severity_id": severity,
        "severity": SEVERITY_NAMES[severity - 1],
        "status_id": status_id,
        "status": status,
        "is_alert": True,
        "time": time_ms,
        "start_time": _wall_ms(alert.start_ns, moment),
        "end_time": _wall_ms(alert.last_ns, moment),
        "count": alert.count,
        "message": _message(alert, context),
        "metadata": _metadata(alert, context, sequence, moment),
        "finding_info": _finding_info(alert, context, moment),
        "evidences": [_evidence(alert, ports, context)],
        "resources": _resources(alert, context),
        "remediation": {"desc": say.do_first[0]},
        "unmapped": {"wardwatch": _own(alert, facts, context=context, moment=moment)},
    }
    return {key: value for key, value in event.items() if value != []}


def _metadata(alert: Alert, context: Context, sequence: int, moment: Moment) -> dict[str, Any]:
    time_ms = _wall_ms(alert.time_ns, moment)
    seconds, rest_ns = divmod(alert.time_ns + moment.wall_offset_ns, 10**9)
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds, microseconds=rest_ns // 1000)
    return {
        "version": OCSF_VERSION,
        "product": {"name": "Wardwatch", "vendor_name": "Wardwatch", "version": context.version},
        "uid": event_uid(alert.uid, alert.activity, sequence),
        "sequence": sequence,
        "event_code": alert.kind,
        "original_time": at.isoformat().replace("+00:00", "Z"),
        "logged_time": moment.logged_ms if moment.logged_ms is not None else time_ms,
    }


def _finding_info(alert: Alert, context: Context, moment: Moment) -> dict[str, Any]:
    detection = DETECTIONS[alert.kind]
    say = words(alert.kind, context.language)
    type_id, type_name = (
        ANALYTIC.get(alert.detectors[0], (0, "Unknown")) if alert.detectors else (1, "Rule")
    )
    info: dict[str, Any] = {
        "uid": alert.uid,
        "title": say.title,
        "desc": say.what,
        "analytic": {
            "uid": alert.kind,
            "name": words(alert.kind).title,
            "type_id": type_id,
            "type": type_name,
        },
        "types": [str(detection.group)],
        "data_sources": [alert.source_kind],
        "attacks": [_attack(technique) for technique in (*detection.enterprise, *detection.ics)],
        "first_seen_time": _wall_ms(alert.start_ns, moment),
        "last_seen_time": _wall_ms(alert.last_ns, moment),
        "created_time": _wall_ms(alert.start_ns, moment),
        "modified_time": _wall_ms(alert.time_ns, moment),
    }
    if alert.previous_uid is not None:
        info["related_events"] = [{"uid": alert.previous_uid}]
        info["related_events_count"] = 1
    if not info["attacks"]:
        del info["attacks"]
    return info


def _attack(technique: str) -> dict[str, Any]:
    parent, _, sub = technique.partition(".")
    attack: dict[str, Any] = {"technique": {"uid": parent, "name": TECHNIQUE_NAMES[parent]}}
    if sub:
        attack["sub_technique"] = {"uid": technique, "name": TECHNIQUE_NAMES[technique]}
    return attack


def _evidence(alert: Alert, ports: list[int], context: Context) -> dict[str, Any]:
    evidence: dict[str, Any] = {}
    if alert.attacker != NOBODY:
        evidence["src_endpoint"] = _endpoint(alert.attacker, context)
    if alert.victim != NOBODY:
        evidence["dst_endpoint"] = _endpoint(alert.victim, context)
        if len(ports) == 1:
            evidence["dst_endpoint"]["port"] = ports[0]
    evidence["data"] = {"count": alert.count, "ports": ports}
    return evidence


def _endpoint(endpoint: Endpoint, context: Context) -> dict[str, Any]:
    out: dict[str, Any] = {"uid": pseudonym(endpoint, site_key=context.site_key)}
    if context.raw_addresses:
        out["mac" if is_mac(endpoint) else "ip"] = text(endpoint)
    return out


def _resources(alert: Alert, context: Context) -> list[dict[str, Any]]:
    out = []
    for endpoint, (role_id, role) in ((alert.victim, ROLE_TARGET), (alert.attacker, ROLE_ACTOR)):
        device = context.devices(endpoint) if endpoint != NOBODY else None
        if device is not None:
            out.append(
                {
                    "uid": pseudonym(endpoint, site_key=context.site_key),
                    "name": _clip(device.asset_tag),
                    "type": _clip(device.device_class),
                    "criticality": _clip(device.criticality),
                    "role_id": role_id,
                    "role": role,
                }
            )
    return out


def _own(alert: Alert, facts: list[Fact], *, context: Context, moment: Moment) -> dict[str, Any]:
    victim = context.devices(alert.victim) if alert.victim != NOBODY else None
    own: dict[str, Any] = {
        "schema": SCHEMA_NAME,
        "language": context.language,
        "site": _clip(context.site),
        "ward": _clip(context.ward),
        "gateway": _clip(context.gateway),
        "source": {"name": _clip(alert.source), "kind": alert.source_kind},
        "detectors": list(alert.detectors),
        "bundle": context.bundle,
        "highest_severity": alert.highest_severity,
        "window_s": 1,
        "score": round(alert.score, 4),
        "margin": alert.margin,
        "threshold": alert.threshold,
        "spoofed": alert.spoofed,
        "distributed": alert.distributed,
        "facts": [_fact(fact, context) for fact in facts if math.isfinite(fact.value)],
        "do_first": list(words(alert.kind, context.language).do_first),
        "traffic": {
            "sampled": moment.sampled,
            "shed_share": round(moment.shed_share, 4),
            "dropped_frames": moment.n_dropped_frames,
        },
        "clock": {
            "synced": moment.clock_synced,
            "source": moment.clock_source,
            "boot_id": moment.boot_id,
            "monotonic_ms": moment.monotonic_ms,
        },
        "test": moment.test,
    }
    if victim is not None:
        own["device"] = {
            "class": _clip(victim.device_class),
            "criticality": _clip(victim.criticality),
        }
    if alert.previous_uid is not None:
        own["previous_uid"] = alert.previous_uid
    if alert.storm_counts:
        own["storm_counts"] = dict(alert.storm_counts)
    if "closed_by" in alert.extra:
        own["closed_by"] = alert.extra["closed_by"]
    if "lowered_by" in alert.extra:
        own["lowered_by"] = alert.extra["lowered_by"]
    return own


def _fact(fact: Fact, context: Context) -> dict[str, Any]:
    limit, normal = _finite(fact.limit), _finite(fact.normal)
    said = replace(fact, limit=limit, normal=normal)
    out: dict[str, Any] = {
        "feature": fact.feature,
        "value": fact.value,
        "words": fact_words(said, context.language, meanings=context.features),
    }
    if limit is not None:
        out["limit"] = limit
    if normal is not None:
        out["normal"] = normal
        out["normal_of"] = fact.normal_of
    if fact.about:
        out["about"] = fact.about
    return out


def _message(alert: Alert, context: Context) -> str:
    """One line: what, and to which of the site's devices; others have no name to give."""
    device = context.devices(alert.victim) if alert.victim != NOBODY else None
    title = words(alert.kind, context.language).title
    return f"{title}: {_clip(device.asset_tag)}" if device is not None else title


def _wall_ms(event_ns: int, moment: Moment) -> int:
    return (event_ns + moment.wall_offset_ns) // 1_000_000


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _clip(name: str) -> str:
    """A name that the site gave, of bounded size and without control characters."""
    printable = "".join(c for c in name if c.isprintable())
    return printable.encode(errors="ignore")[:MAX_TEXT].decode(errors="ignore")
