"""Rows of a feature matrix picked out, with their subjects; no value is changed."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from agent.records import FeatureMatrix, Subjects


def take(matrix: FeatureMatrix, rows: NDArray[Any]) -> FeatureMatrix:
    """Some rows of a matrix, by number (repeated where `rows` repeats) or by mask."""
    columns = {name: getattr(matrix.subjects, name)[rows] for name in Subjects.__dataclass_fields__}
    return FeatureMatrix(
        schema=matrix.schema,
        values=matrix.values[rows],
        subjects=Subjects(**columns),
        start_ns=matrix.start_ns[rows],
        end_ns=matrix.end_ns[rows],
    )
