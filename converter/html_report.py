"""The evaluation as one HTML page that needs nothing else: plots as SVG, tables from the generated pages.

Figures come from what `evaluate` wrote (model.json, and the pages in Markdown beside it); nothing is computed here,
no number written by hand. The page loads nothing: no script, no font, no picture from elsewhere.

In: a folder of results. Out: HTML text. Raises: `DatasetError` where `evaluate --results` has not run.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

import msgspec
from markdown_it import MarkdownIt

from converter.datasets.labels import DatasetError
from converter.html_plots import plots

if TYPE_CHECKING:
    from pathlib import Path

PAGES = (
    "model.md",
    "leave-out-kind.md",
    "leave-out-ward.md",
    "leave-out-variant.md",
    "leave-out-tool.md",
)
"""In this order, those that are there."""

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1b }
table { border-collapse: collapse; margin: 1rem 0; font-size: 13px; display: block; overflow-x: auto }
td, th { border: 1px solid #d0d0d0; padding: 2px 8px; text-align: left }
th { background: #f2f5f7 }
figure { margin: 1.5rem 0 } figcaption { font-weight: 600 } svg { max-width: 100%; height: auto }
strong { color: #b3261e }
"""


def html_page(results: Path, card: str) -> str:
    """The page of a folder of results; `card`: the bundle's card in Markdown, at the end."""
    place = results / "model.json"
    try:
        given = msgspec.json.decode(place.read_bytes())
        figures, about = given["figures"], given["about"]
    except (OSError, msgspec.DecodeError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{place}: no evaluation: run `wardwatch-convert evaluate --results` first ({error})"
        ) from None
    if "curves" not in figures:
        raise DatasetError(f"{place}: of an older version: run `wardwatch-convert evaluate` again")
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    texts = [results / name for name in PAGES]
    sections = [markdown.render(path.read_text("utf-8")) for path in texts if path.is_file()]
    sections.append(markdown.render(card))
    drawn = [
        f'<figure id="{plot.name}" role="img" aria-label="{html.escape(plot.caption)}">'
        f"<figcaption>{html.escape(plot.caption)}</figcaption>\n{plot.svg}</figure>"
        for plot in plots(figures)
    ]
    title = f"Wardwatch: the model on held-out runs, commit {html.escape(str(about['commit']))}"
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
            f"<style>{STYLE}</style></head><body>",
            f"<h1>{title}</h1>",
            *drawn,
            *sections,
            "</body></html>",
            "",
        ]
    )
