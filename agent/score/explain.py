"""Which few features moved a row's score: each is put back to the benign median, and the row scored again.

Cheap and bounded: one call of the gate with at most one row a feature that it asks about. It tells what made the row
stand out; it does not claim a cause, and it never changes a verdict.

In: the gate, one row, the benign median row. Out: column numbers, the most telling first. Ties go to the
lower column, so the same row gives the same facts everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from agent.records import F32, I64
    from agent.score.bundle import Scorer


def telling_features(
    gate: Scorer, row: F32, benign_median: F32, columns: I64, *, n_most: int
) -> list[int]:
    """At most `n_most` of `columns` whose replacement lowers the gate's sum of `row` (n_features,), in order."""
    changed = columns[row[columns] != benign_median[columns]]
    if not len(changed):
        return []
    rows = np.repeat(row[None, :], len(changed) + 1, axis=0)
    rows[np.arange(len(changed)), changed] = benign_median[changed]
    sums = gate.sums(rows)[:, 0]  # the last row is the unchanged one
    drop = sums[-1] - sums[:-1]
    order = np.argsort(-drop, kind="stable")[:n_most]
    return [int(changed[k]) for k in order if drop[k] > 0]
