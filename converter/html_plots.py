"""The plots of an evaluation as SVG text: the same figures give the same bytes, and nothing is fetched.

It reads figures that `evaluate` wrote and computes none. Each plot is drawn off screen, apart from pyplot's state.

In: the `figures` of model.json. Out: `Plot`s, in the page's order. Raises: nothing of its own. Remembers nothing.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from converter.datasets.matrix import KINDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIDES = (("float", "-", "#8a8a8a", 4.0), ("quantised", "--", "#0b6e99", 1.6))
"""Name, line, colour, width: the wide grey line shows beside the thin one where the two differ."""


@dataclass(frozen=True, slots=True)
class Plot:
    """One figure of the page."""

    name: str
    caption: str
    svg: str


def plots(figures: dict[str, Any]) -> list[Plot]:
    """Every plot for which there are figures."""
    return [
        Plot(name, caption, _svg(name, size, draw, figures)) for name, caption, size, draw in _PLOTS
    ]


def _svg(
    name: str,
    size: tuple[float, float],
    draw: Callable[[Figure, dict[str, Any]], None],
    figures: dict[str, Any],
) -> str:
    out = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure, figures)
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :]  # without the XML head and its address of a DTD


def _episodes(figure: Figure, figures: dict[str, Any]) -> None:
    kinds = figures["with_rules"]["by_kind"]
    axes = figure.add_subplot()
    for place, item in enumerate(kinds.values()):
        low, high = item["interval"]
        share = item["found"] / item["episodes"]
        axes.plot((low, high), (place, place), color="#0b6e99", lw=2)
        axes.plot(share, place, "o", color="#0b6e99")
        axes.text(1.02, place, f"{item['found']} of {item['episodes']}", va="center")
    axes.axvline(0.95, color="#b3261e", lw=1, ls=":")
    axes.set_yticks(range(len(kinds)), list(kinds))
    axes.invert_yaxis()
    axes.set_xlim(0, 1.0)
    axes.set_xlabel("share of episodes found, 95 % Wilson interval")


def _times(figure: Figure, figures: dict[str, Any]) -> None:
    paces = figures["with_rules"]["by_pace"]
    axes = figure.add_subplot()
    for place, row in enumerate(paces):
        p50, p95 = row["seconds_p50"], row["seconds_p95_of_found"]
        if p50 is not None and p95 is not None:
            axes.barh(place, p95, color="#bcd9e6", height=0.6)
            axes.plot(p50, place, "|", color="#0b6e99", ms=14, mew=2)
        if row["bar_s"] is not None:
            axes.plot(row["bar_s"], place, "|", color="#b3261e", ms=18, mew=2)
    axes.set_yticks(
        range(len(paces)), [f"{row['pace']} ({row['found']} of {row['episodes']})" for row in paces]
    )
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("seconds to the first finding: bar p95 of those found, blue p50, red the limit")


def _recall(figure: Figure, figures: dict[str, Any]) -> None:
    curves = figures["curves"]
    names = ["hostile", *curves["quantised"]["by_kind"]]
    n_columns = 4
    for place, name in enumerate(names):
        axes = figure.add_subplot(-(-len(names) // n_columns), n_columns, place + 1)
        for side, line, colour, width in SIDES:
            found = curves[side]
            curve = found["hostile"] if name == "hostile" else found["by_kind"][name]
            axes.plot(curve["recall"], curve["precision"], line, color=colour, lw=width, label=side)
        average = (
            curves["quantised"]["hostile"]
            if name == "hostile"
            else curves["quantised"]["by_kind"][name]
        )["average_precision"]
        axes.set_title(f"{name}: {average}", fontsize=9)
        _unit_square(axes)
        if place == 0:
            axes.legend(fontsize=7, loc="lower left")


def _calibration(figure: Figure, figures: dict[str, Any]) -> None:
    axes = figure.add_subplot()
    axes.plot((0, 1), (0, 1), color="#cccccc", lw=1)
    for side, line, colour, width in SIDES:
        found = figures["curves"][side]["calibration"]
        label = f"{side}, Brier {found['brier']}"
        axes.plot(
            found["mean_score"], found["hostile_share"], line, marker="o", ms=4, color=colour,
            lw=width, label=label,
        )  # fmt: skip
    found = figures["curves"]["quantised"]["calibration"]
    for x, y, n in zip(found["mean_score"], found["hostile_share"], found["rows"], strict=True):
        axes.annotate(str(n), (x, y), textcoords="offset points", xytext=(4, -9), fontsize=7)
    _unit_square(axes)
    axes.set_xlabel("score shown (number: rows in the bin)")
    axes.set_ylabel("share that is hostile")
    axes.legend(fontsize=8)


def _confusion(figure: Figure, figures: dict[str, Any]) -> None:
    for place, (side, *_) in enumerate(SIDES):
        table = np.array(figures[side]["confusion"], np.float64)
        axes = figure.add_subplot(1, 2, place + 1)
        share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for i, j in zip(*np.nonzero(table), strict=True):
            colour = "white" if share[i, j] > 0.5 else "black"
            axes.text(j, i, f"{int(table[i, j])}", ha="center", va="center", color=colour, size=6)
        axes.set_xticks(range(len(KINDS)), KINDS, rotation=90)
        axes.set_yticks(range(len(KINDS)), KINDS if place == 0 else [""] * len(KINDS))
        axes.set_title(f"{side}: rows are the truth")


def _wards(figure: Figure, figures: dict[str, Any]) -> None:
    wards = figures["quantised"]["macro_f1_by_ward"]
    axes = figure.add_subplot()
    places = np.arange(len(wards))
    for shift, name, colour in ((-0.2, "groups", "#bcd9e6"), (0.2, "kinds", "#0b6e99")):
        values = [item[name] for item in wards.values()]
        axes.bar(places + shift, values, width=0.4, color=colour, label=name)
    axes.set_xticks(places, list(wards), rotation=90)
    axes.set_ylim(0, 1)
    axes.set_ylabel("macro-F1")
    axes.legend(fontsize=8, loc="lower right")


def _unit_square(axes: Axes) -> None:
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)


_PLOTS: tuple[
    tuple[str, str, tuple[float, float], Callable[[Figure, dict[str, Any]], None]], ...
] = (
    ("episodes", "Episodes found with rules and model, by kind.", (8.5, 4.2), _episodes),
    ("times", "Time from the first hostile frame to the first finding.", (8.5, 3.2), _times),
    ("recall", "Precision (up) against recall, rows; average precision.", (10, 8), _recall),
    ("calibration", "Calibration of the gate's score.", (5.5, 4.5), _calibration),
    ("confusion", "Rows by truth and by the model's decision.", (11, 6), _confusion),
    ("wards", "Macro-F1 of each held-out ward.", (9, 3.8), _wards),
)
