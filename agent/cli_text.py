"""A finding event in words for a terminal, and tables. It prints nothing and knows no colour but by name.

In: the event as it goes over the wire (a dict), whatever agent made it: a field that is missing or of
another type is left out, never an error. Control characters of foreign text never reach a terminal.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

COLOURS = {
    "info": "white",
    "low": "cyan",
    "medium": "yellow",
    "high": "bright_red",
    "critical": "bright_magenta",
}
SEVERITIES = tuple(COLOURS)
ACTIVITIES = {1: "new", 2: "update", 3: "closed"}
TITLE_COLUMNS = 58


def severity_of(event: Mapping[str, Any]) -> str:
    """`info` to `critical`; `info` where the event has none that is known."""
    number = event.get("severity_id")
    return SEVERITIES[number - 1] if isinstance(number, int) and 1 <= number <= 5 else "info"


def finding_text(event: Mapping[str, Any]) -> list[str]:
    """The lines of one event: a block for a new finding, one line for an update or a close."""
    own = _table(_table(event.get("unmapped")).get("wardwatch"))
    info = _table(event.get("finding_info"))
    detection = clean(_table(info.get("analytic")).get("uid"))
    severity = severity_of(event)
    activity = ACTIVITIES.get(event.get("activity_id", 0), "event")
    title = clean(event.get("message")) or detection
    head = f"{severity.upper():<8} {title}"
    if activity != "new":
        evidence = _table(_first(event.get("evidences")).get("data"))
        count = evidence.get("count")
        more = f", {count:,} packets or messages so far" if isinstance(count, int) else ""
        return [f"{head}: {activity}{more} ({_when(info.get('last_seen_time'))})"]
    lines = [f"{head:<{TITLE_COLUMNS}} {detection}"]
    rows: list[tuple[str, str]] = [
        ("when", _when(info.get("first_seen_time"))),
        ("where", " / ".join(clean(own.get(key)) for key in ("ward", "gateway"))),
        ("who", _who(event, own)),
    ]
    rows += [("why", clean(_table(fact).get("words"))) for fact in _list(own.get("facts"))[:3]]
    rows += [("first", clean(step)) for step in _list(own.get("do_first"))]
    rows.append(("found by", _found_by(own, info)))
    label = ""
    for name, words in rows:
        if words:
            lines.append(f"  {name if name != label else '':<9} {words}")
            label = name
    return lines


def clean(text: object) -> str:
    """Printable text only; empty for anything that is not text."""
    return "".join(c for c in text if c.isprintable()) if isinstance(text, str) else ""


def _who(event: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    evidence = _first(event.get("evidences"))
    names = {
        _table(row).get("uid"): clean(_table(row).get("name"))
        for row in _list(event.get("resources"))
    }
    source, target = (_table(evidence.get(key)) for key in ("src_endpoint", "dst_endpoint"))
    attacker = _endpoint(source, names)
    if not attacker:
        attacker = "many (spoofed) sources" if own.get("spoofed") else "many sources"
    victim = _endpoint(target, names) or "many hosts"
    ports = [
        port for port in _list(_table(evidence.get("data")).get("ports")) if isinstance(port, int)
    ]
    if ports:
        shown = ", ".join(str(port) for port in ports[:6])
        victim += f", port{'s' if len(ports) > 1 else ''} {shown}{' ...' if len(ports) > 6 else ''}"
    count = _table(evidence.get("data")).get("count")
    counted = f" ({count:,} packets or messages)" if isinstance(count, int) else ""
    return f"{attacker} -> {victim}{counted}"


def _endpoint(endpoint: Mapping[str, Any], names: Mapping[Any, str]) -> str:
    name = names.get(endpoint.get("uid"), "")
    address = clean(endpoint.get("ip") or endpoint.get("mac"))
    if name:
        return f"{name} ({address})" if address else name
    return address or clean(endpoint.get("uid"))


def _found_by(own: Mapping[str, Any], info: Mapping[str, Any]) -> str:
    detectors = ", ".join(clean(name) for name in _list(own.get("detectors")))
    score = own.get("score")
    parts = [f"{detectors}, score {score:.2f}" if isinstance(score, int | float) else detectors]
    techniques = [
        clean(_table(_table(attack).get("technique")).get("uid"))
        for attack in _list(info.get("attacks"))
    ]
    if techniques:
        parts.append("ATT&CK " + ", ".join(techniques))
    return " · ".join(part for part in parts if part)


def _when(ms: object) -> str:
    if not isinstance(ms, int):
        return ""
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return ""


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _first(value: object) -> Mapping[str, Any]:
    return _table(_list(value)[0]) if _list(value) else {}
