"""The tables of docs/alerts.md, written from the tables in code; a test holds the two equal.

`python -m agent.alert.tables docs/alerts.md` rewrites what stands between the markers of that page.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from agent.alert.open_finding import PERSIST_NS, PERSIST_SLICES
from agent.alert.render import lines, row_of_alert
from agent.alert.severity import BASE, severity
from agent.alert.techniques import DETECTIONS, STORM, TECHNIQUE_NAMES
from agent.alert.words import DEFAULT, LANGUAGES, figure, language, words
from agent.records import V4_MAPPED_LO, Alert, Device, Endpoint, Fact

_BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def _markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(header)
    body = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(body) + "\n"


def _detections() -> str:
    rows = [
        (
            f"`{d.id}`",
            d.what,
            str(d.group),
            ", ".join(d.enterprise) or "-",
            ", ".join(d.ics) or "-",
            d.source_kind,
            f"{d.close_quiet_s} s" if d.close_quiet_s else "`alert.quiet_s`",
        )
        for d in DETECTIONS.values()
    ]
    header = ("detection", "what", "group", "Enterprise", "ICS", "source", "closes after quiet of")
    return _markdown(header, rows)


def _severity() -> str:
    rows = [
        (
            f"`{kind}`",
            severity(kind),
            severity(kind, low_confidence=True),
            severity(kind, weak=True),
            severity(kind, criticality="critical"),
            severity(kind, criticality="critical", weak=True),
            severity(kind, criticality="critical", ongoing=False),
        )
        for kind in BASE
    ]
    header = (
        "detection",
        "full confidence",
        "low confidence",
        "weak evidence",
        "critical victim",
        "critical victim, weak",
        "critical victim, at its close",
    )
    return _markdown(header, rows)


def _words(code: str) -> str:
    rows = []
    for kind in DETECTIONS:
        say = words(kind, code)
        rows.append((f"`{kind}`", say.title, say.what, " ".join(say.do_first)))
    return _markdown(HEADS[code], rows)


HEADS = {
    "en": ("detection", "title", "what it says", "what to do first"),
    "fr": ("détection", "titre", "ce qu\u2019elle dit", "à faire d\u2019abord"),
}


def _reasons() -> str:
    """Each figure that can be a reason, in every language, with how one is written."""
    tables = [language(code) for code in LANGUAGES]
    rows = [
        (f"`{feature}`", *(say.features[feature] for say in tables))
        for feature in tables[0].features
    ]
    return _markdown(("figure", *LANGUAGES), rows)


def _figures() -> str:
    """How the same number is written, by what it counts."""
    samples = (
        ("in_packets_1s", 1200.0),
        ("in_packets_60s", 1200.0),
        ("in_services_1s", 72.0),
        ("in_services_60s", 72.0),
        ("in_payload_share_1s", 0.35),
        ("in_syn_answered_60s", 0.35),
        ("in_bytes_1s", 1.25e6),
        ("in_size_mean_1s", 57.6),
        ("in_gap_mean_us_1s", 3512.0),
        ("in_data_per_syn_60s", 0.25),
    )
    rows = [
        (f"`{name}`", *(figure(name, value, code) for code in LANGUAGES)) for name, value in samples
    ]
    return _markdown(("figure", *LANGUAGES), rows)


_PUMP = Endpoint(0, V4_MAPPED_LO | 0xC0000207)
EXAMPLE = Alert(
    activity="create",
    uid="9a6d0f44-61a7-5a3b-8e0a-000000000001",
    kind="tcp_syn_flood",
    severity="critical",
    highest_severity="critical",
    detectors=("rules", "boosting"),
    attacker=Endpoint(0, V4_MAPPED_LO | 0xC0000209),
    victim=_PUMP,
    spoofed=False,
    distributed=False,
    start_ns=1_795_378_464 * 10**9,
    last_ns=1_795_378_466 * 10**9,
    time_ns=1_795_378_466 * 10**9,
    count=2179,
    source="ward",
    source_kind="ip",
    score=0.94,
    margin=1618,
    threshold=200,
    ports=(1883,),
    facts=(
        Fact(feature="in_tcp_syn_1s", value=1618.0, limit=200.0, normal=0.0, about="victim"),
        Fact(feature="in_syn_answered_1s", value=0.35, normal=1.0, about="victim"),
        Fact(feature="in_packets_1s", value=3159.0, normal=25.0, about="victim"),
    ),
)
"""A finding about a pump, at addresses that are reserved for documentation (RFC 5737)."""


def _example(code: str) -> str:
    pump = Device(asset_tag="PUMP-07", device_class="infusion_pump", criticality="critical")
    row = row_of_alert(EXAMPLE, devices={_PUMP: pump}.get, language=code)
    return "\n" + "".join(f"    {line}\n" for line in lines(row).plain.splitlines()) + "\n"


def _techniques() -> str:
    rows = [
        (
            technique,
            name,
            ", ".join(f"`{d.id}`" for d in DETECTIONS.values() if _uses(d.id, technique)),
        )
        for technique, name in TECHNIQUE_NAMES.items()
    ]
    return _markdown(("technique", "name", "detections"), [row for row in rows if row[2]])


def _uses(kind: str, technique: str) -> bool:
    return technique in DETECTIONS[kind].enterprise + DETECTIONS[kind].ics


def _weak() -> str:
    return (
        f"Evidence is weak while one learned detector alone says so, until it has said so in "
        f"{PERSIST_SLICES} slices within {PERSIST_NS // 10**9} s. "
        f"A `{STORM}` has the highest severity of what it withheld.\n"
    )


TABLES = {
    "detections": _detections,
    "severity": _severity,
    "weak": _weak,
    "words": lambda: _words(DEFAULT),
    "words_fr": lambda: _words("fr"),
    "example": lambda: _example(DEFAULT),
    "example_fr": lambda: _example("fr"),
    "reasons": _reasons,
    "figures": _figures,
    "techniques": _techniques,
}


def rewritten(page: str) -> str:
    """The page with each `<!-- table: NAME -->` block written anew."""
    return _BLOCK.sub(lambda m: m[1] + TABLES[m[2]]() + m[3], page)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(rewritten(path.read_text()))
