"""Findings for people, on a terminal: a few lines an event, and a table of all of them at the end.

It never changes what is sent. On the gateway's own terminal hosts are shown by address, for the
capture is there anyway (docs/decisions/0009); of an event from a broker it shows what is in it, with
control characters taken out, for who publishes it may not be us.

In: an `Alert` (`row_of_alert`) or a received event (`row_of_event`). Out: text for a rich console.
Raises: `ValueError` from `row_of_event` where the payload is no finding event.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.alert.endpoints import text
from agent.alert.finding import ACTIVITY, SCHEMA_NAME
from agent.alert.severity import SEVERITIES
from agent.alert.suppression import DeviceLookup, no_devices
from agent.alert.techniques import DETECTIONS
from agent.alert.words import (
    DEFAULT,
    LANGUAGES,
    NARROW,
    NBSP,
    counted,
    fact_words,
    is_guard,
    label,
    number,
    words,
)
from agent.records import NOBODY, Alert, Endpoint, Fact

STYLES = {
    "info": "dim",
    "low": "cyan",
    "medium": "yellow",
    "high": "bold red",
    "critical": "bold white on red",
}
ACTIVITY_WORDS = {1: "new", 2: "update", 3: "closed"}
"""Labels of the tables of words."""
MAX_WHY = 3
"""Facts an event: the figure, and what else speaks for it; guards stand in the event, not on the terminal."""
MAX_SHOWN = 200
"""Characters of one text of a received event."""
PIPE_COLUMNS = 140


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One event as it is shown."""

    time_ms: int
    activity: str
    severity: str
    uid: str
    kind: str
    title: str
    source: str
    attacker: str
    victim: str
    count: int
    since_ms: int
    why: tuple[str, ...]
    do_first: str
    where: str = ""
    """Site, ward and gateway; empty on the gateway itself."""
    storm_counts: Mapping[str, int] | None = None
    last_ms: int = 0
    """End of the latest hostile second."""
    language: str = DEFAULT
    """Of the words in it, and of those around them."""


def row_of_alert(
    alert: Alert,
    *,
    devices: DeviceLookup = no_devices,
    features: Mapping[str, str] | None = None,
    language: str = DEFAULT,
    wall_offset_ns: int = 0,
) -> Row:
    """As shown on the gateway's own terminal: addresses, and asset tags where there are any."""
    say = words(alert.kind, language)
    facts = [(fact_words(f, language, meanings=features), f.value, f.limit) for f in alert.facts]
    return Row(
        time_ms=(alert.time_ns + wall_offset_ns) // 1_000_000,
        activity=ACTIVITY_WORDS[ACTIVITY[alert.activity][0]],
        severity=alert.severity,
        uid=alert.uid,
        kind=alert.kind,
        title=say.title,
        source=alert.source,
        attacker=_local(alert.attacker, devices),
        victim=_local(alert.victim, devices),
        count=alert.count,
        since_ms=(alert.start_ns + wall_offset_ns) // 1_000_000,
        why=_telling(facts),
        do_first=say.do_first[0],
        storm_counts=alert.storm_counts,
        last_ms=(alert.last_ns + wall_offset_ns) // 1_000_000,
        language=language,
    )


def row_of_event(event: Mapping[str, Any], *, language: str | None = None) -> Row:
    """As shown to those who receive it; `ValueError` where it is no finding event of this version.

    `language`: said anew in that one, by what this version knows of the event; None: as the gateway wrote it.
    """
    try:
        own = event["unmapped"]["wardwatch"]
        if own["schema"] != SCHEMA_NAME:
            raise ValueError(f"not a finding event: schema {_clean(own['schema'])}")
        info, evidence = event["finding_info"], event["evidences"][0]
        names = {r["uid"]: r["name"] for r in event.get("resources", ())}
        written = own.get("language", DEFAULT)
        kind = _clean(info["analytic"]["uid"])
        anew = language if language != written and kind in DETECTIONS else None
        facts = [(_said(f, anew), f["value"], f.get("limit")) for f in own["facts"]]
        return Row(
            time_ms=int(event["time"]),
            activity=ACTIVITY_WORDS[event["activity_id"]],
            severity=SEVERITIES[event["severity_id"] - 1],
            uid=_clean(info["uid"]),
            kind=kind,
            title=words(kind, anew).title if anew else _clean(info["title"]),
            source=_clean(own["source"]["name"]),
            attacker=_received(evidence.get("src_endpoint"), names),
            victim=_received(evidence.get("dst_endpoint"), names),
            count=int(event["count"]),
            since_ms=int(event["start_time"]),
            why=_telling(facts),
            do_first=words(kind, anew).do_first[0] if anew else _clean(own["do_first"][0]),
            where=_clean("/".join((own["site"], own["ward"], own["gateway"]))),
            storm_counts={_clean(kind): int(n) for kind, n in own.get("storm_counts", {}).items()}
            or None,
            last_ms=int(event["end_time"]),
            language=language or (written if written in LANGUAGES else DEFAULT),
        )
    except (KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"not a finding event: {type(error).__name__} {error}") from error


def _said(fact: Mapping[str, Any], language: str | None) -> str:
    """A received fact as it was written, or anew in another language."""
    if language is None:
        return _clean(fact["words"])
    limit, normal = fact.get("limit"), fact.get("normal")
    again = Fact(
        feature=_clean(fact["feature"]),
        value=float(fact["value"]),
        limit=None if limit is None else float(limit),
        normal=None if normal is None else float(normal),
        normal_of=fact.get("normal_of", "device"),
        about=fact.get("about", ""),
    )
    return fact_words(again, language)


def lines(row: Row) -> Text:
    """An event in up to six lines; a close in one."""
    say = row.language
    out = Text(f"{_clock(row.time_ms)} ")
    out.append(_padded(row.severity, SEVERITIES, say).upper(), style=STYLES[row.severity])
    out.append(f" {_padded(row.activity, ACTIVITY_WORDS.values(), say)} ")
    out.append(row.title, style="bold")
    out.append(f" ({row.kind})")
    if row.attacker or row.victim:
        out.append(f"  {_hosts(row)}")
    out.append(f"  {counted(row.kind, row.count, say)}")
    out.append(f"  {row.where or row.source}", style="dim")
    if row.activity == "closed":
        out.append(f"  {label('since', say, time=_clock(row.since_ms))}", style="dim")
        return out
    for kind, n in (row.storm_counts or {}).items():
        out.append(f"\n    {label('withheld', say, n=number(n, say), kind=kind)}")
    for fact in row.why:
        out.append(f"\n    {label('why', say, fact=fact)}")
    out.append(f"\n    {label('do_first', say, step=row.do_first)}", style="italic")
    return out


def _padded(name: str, among: Iterable[str], language: str) -> str:
    """A label, as wide as the widest that may stand in its place."""
    return label(name, language).ljust(max(len(label(other, language)) for other in among))


def _hosts(row: Row) -> str:
    many = label("many", row.language)
    return f"{row.attacker or many} -> {row.victim or many}"


def table(
    rows: Iterable[Row], *, name: str | None = None, language: str = DEFAULT, last: bool = False
) -> Table:
    """One line a finding, as its latest event says; the most severe first.

    `name`: of what was read. `last`: with the latest sign of each, and where it was seen.
    """
    latest: dict[str, Row] = {}
    for row in rows:
        latest[row.uid] = row
    title = (
        label("findings", language) if name is None else label("findings_in", language, name=name)
    )
    out = Table(title=title, title_justify="left")
    columns = [
        "since",
        *(["last"] if last else []),
        "severity",
        "detection",
        "hosts",
        "count",
        "state",
    ]
    for column in [*columns, *(["where"] if last else [])]:
        out.add_column(
            label(f"column_{column}", language),
            justify="right" if column == "count" else "left",
            overflow="fold",
        )
    ordered = sorted(latest.values(), key=lambda r: (-SEVERITIES.index(r.severity), r.since_ms))
    for row in ordered:
        out.add_row(
            _clock(row.since_ms),
            *([_clock(row.last_ms)] if last else []),
            Text(label(row.severity, language), style=STYLES[row.severity]),
            Text(row.kind),
            Text(_hosts(row)),
            number(row.count, language),
            label("closed" if row.activity == "closed" else "open", language),
            *([Text(row.where)] if last else []),
        )
    return out


class Terminal(Console):
    """Standard output. Who reads it may go away (`| head`): that is for the command to say."""

    def on_broken_pipe(self) -> None:
        """Not rich's own way, which ends the process with 1."""
        raise BrokenPipeError


def terminal() -> Console:
    """Standard output; as wide as the terminal, or wide enough for a table where it is none."""
    console = Terminal()
    return console if console.is_terminal else Terminal(width=PIPE_COLUMNS)


def show(console: Console, rows: Sequence[Row]) -> None:
    """Print each event, without cutting lines short or guessing at markup in them."""
    for row in rows:
        console.print(lines(row), soft_wrap=True, highlight=False)


def _telling(facts: Iterable[tuple[str, float, float | None]]) -> tuple[str, ...]:
    """Of (words, value, limit): the first, and of the others those that are no guards; at most `MAX_WHY`."""
    told = [
        say for i, (say, value, limit) in enumerate(facts) if i == 0 or not is_guard(value, limit)
    ]
    return tuple(told[:MAX_WHY])


def _clock(time_ms: int) -> str:
    """`2026-11-22 19:25:03Z`; the figure itself where it lies outside the calendar."""
    try:
        return datetime.fromtimestamp(time_ms / 1000, tz=UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{time_ms} ms"


def _local(endpoint: Endpoint, devices: DeviceLookup) -> str:
    device = devices(endpoint) if endpoint != NOBODY else None
    return f"{device.asset_tag} ({text(endpoint)})" if device is not None else text(endpoint)


def _received(endpoint: Mapping[str, Any] | None, names: Mapping[str, str]) -> str:
    if endpoint is None:
        return ""
    uid = endpoint["uid"]
    shown = endpoint.get("ip") or endpoint.get("mac") or uid
    return _clean(f"{names[uid]} ({shown})" if uid in names else shown)


def _clean(value: object) -> str:
    """Text of somebody else's, without control characters (terminal escapes among them)."""
    return "".join(c for c in str(value) if c.isprintable() or c in SPACES)[:MAX_SHOWN]


SPACES = (NBSP, NARROW)
"""Harmless, and French is not French without them."""
