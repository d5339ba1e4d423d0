"""The tables of docs/alerts.md, written from the tables in code; a test holds the two equal.

`python -m agent.alert.tables docs/alerts.md` rewrites what stands between the markers of that page.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from agent.alert.open_finding import PERSIST_NS, PERSIST_SLICES
from agent.alert.severity import BASE, severity
from agent.alert.techniques import DETECTIONS, STORM, TECHNIQUE_NAMES
from agent.alert.words import words

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


def _words() -> str:
    rows = [
        (f"`{kind}`", words(kind).title, words(kind).what, " ".join(words(kind).do_first))
        for kind in DETECTIONS
    ]
    return _markdown(("detection", "title", "what it says", "what to do first"), rows)


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
    "words": _words,
    "techniques": _techniques,
}


def rewritten(page: str) -> str:
    """The page with each `<!-- table: NAME -->` block written anew."""
    return _BLOCK.sub(lambda m: m[1] + TABLES[m[2]]() + m[3], page)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(rewritten(path.read_text()))
