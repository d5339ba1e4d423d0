"""docs/features.md from the table of schemas: `python -m tests.support.feature_docs` writes it anew."""

from __future__ import annotations

from pathlib import Path

from agent.features.schemas import SCHEMAS

DOCS = Path(__file__).resolve().parent.parent.parent / "docs" / "features.md"

HEAD = """# Features

Generated from the schemas in `agent/features`; a test keeps it equal. Do not edit: change the schema, then run
`python -m tests.support.feature_docs`.

A row is one host in one second of event time. `_1s` is that second, `_60s` the 60 seconds that end with it;
`out_` is the host as source, `in_` as destination. Counts are of wire packets; gaps are between frames.
`count`: a whole number. `ratio`: one division. `root`: the square root of one division. Each is computed from
int64 sums and rounded once to float32; where there is nothing to divide by it is 0. No address, MAC, port
number, TTL or time of day is a feature.
"""


def text() -> str:
    """The whole page."""
    parts = [HEAD]
    for schema in SCHEMAS.values():
        parts.append(f"\n## {schema.id}\n\n{len(schema)} features, digest `{schema.digest}`.\n\n")
        parts.append("| # | name | unit | dtype | meaning |\n|---|---|---|---|---|\n")
        for i, f in enumerate(schema.features):
            parts.append(f"| {i} | `{f.name}` | {f.unit} | {f.dtype} | {f.meaning} |\n")
    return "".join(parts)


if __name__ == "__main__":
    DOCS.write_text(text())
