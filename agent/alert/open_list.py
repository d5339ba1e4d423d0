"""The retained list of what is open now, so that a subscriber who comes late is not blind.

It never holds an address or a name, and is never larger than 4,096 bytes: the most severe come first,
what has no room is counted. In: `FindingPolicy.open_findings()` of every source.

Source: the alert contract, topic `open`; docs/schemas/open-1.json.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agent.alert.finding import MAX_BYTES, to_bytes
from agent.alert.severity import severity_id
from agent.records import Alert

SCHEMA_NAME = "wardwatch.open.v1"
ROOM_BYTES = MAX_BYTES - 160
"""What the rows may take; the rest is the record's own frame."""


def encode_open(findings: Iterable[Alert], *, ts_ms: int, wall_offset_ns: int = 0) -> bytes:
    """The payload of topic `open` at wall time `ts_ms`; an empty list where nothing is open."""
    ordered = sorted(findings, key=lambda a: (-severity_id(a.severity), a.start_ns, a.uid))
    rows: list[dict[str, Any]] = []
    size = 0
    for alert in ordered:
        row = {
            "uid": alert.uid,
            "detection": alert.kind,
            "severity": alert.severity,
            "since_ms": (alert.start_ns + wall_offset_ns) // 1_000_000,
        }
        size += len(to_bytes(row)) + 1
        if size > ROOM_BYTES:
            break
        rows.append(row)
    n_rest = len(ordered) - len(rows)
    return to_bytes({"schema": SCHEMA_NAME, "ts_ms": ts_ms, "findings": rows, "n_rest": n_rest})
