"""What reasons cost: of a replay, the time that normal values take beside all of scoring, and one event's reasons.

    python tests/bench/reasons.py demo/ward.pcap.gz

One JSON line a figure; nothing is asserted.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from agent.assembly import make_site, make_watch  # noqa: E402 - the checkout comes first
from agent.replay import replay_file  # noqa: E402
from agent.score.explain import Reasons  # noqa: E402
from agent.score.normals import Beside  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.pipeline import Explainer
    from agent.records import FeatureMatrix, Verdict, Why


class Watched:
    """An explainer, how long its calls took, and the verdicts whose reasons somebody could ask for."""

    def __init__(self, explainer: Explainer) -> None:
        self.explainer = explainer
        self.spent_ns = 0
        self.verdicts: list[Verdict] = []

    def explain(self, matrix: FeatureMatrix, verdicts: Sequence[Verdict]) -> list[Verdict]:
        """As `pipeline.Explainer`."""
        began_ns = time.perf_counter_ns()
        out = self.explainer.explain(matrix, verdicts)
        self.spent_ns += time.perf_counter_ns() - began_ns
        self.verdicts += out
        return out


def main(path: Path) -> None:
    """Replay a capture and print what its reasons cost."""
    watch = make_watch(make_site(None), path.name)
    assert watch.pipeline.explainer is not None
    watched = Watched(watch.pipeline.explainer)
    watch.pipeline.explainer = watched
    events: list[object] = []
    replay_file(path, watch, on_alert=events.append, on_progress=lambda _frames, _share: None)
    rows = watch.pipeline.n_rows
    scoring_ns = sum(sum(timed.last_ns) for timed in watch.timed)
    print(
        json.dumps(
            {"what": "normal values", "us_per_row": watched.spent_ns / 1000 / rows, "n": rows}
        )
    )
    print(json.dumps({"what": "all detectors", "us_per_row": scoring_ns / 1000 / rows, "n": rows}))
    for name, kind in (("model", Reasons), ("rule", Beside)):
        whys = [v.why for v in watched.verdicts if isinstance(v.why, kind)]
        spent_us = [_spent_us(why) for why in whys]
        p50, p99 = np.percentile(spent_us, [50, 99]).round(1).tolist() if spent_us else (None, None)
        figures = {"p50_us": p50, "p99_us": p99, "n": len(spent_us), "events": len(events)}
        print(json.dumps({"what": f"reasons of one verdict, {name}", **figures}))


def _spent_us(why: Why) -> float:
    if isinstance(why, Reasons):
        why._facts = None  # those that were told are worked out again
    began_ns = time.perf_counter_ns()
    why.facts()
    return (time.perf_counter_ns() - began_ns) / 1000


if __name__ == "__main__":
    main(Path(sys.argv[1]))
