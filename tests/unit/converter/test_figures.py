"""Figures against values from tables and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from converter.figures import bootstrap_macro_f1, confusion, f1_by_class, macro_f1, poisson, wilson


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
    ],
)
def test_wilson_is_newcombes_table(hits: int, n: int, low: float, high: float) -> None:
    assert wilson(hits, n) == pytest.approx((low, high), abs=1e-4)


def test_wilson_of_nothing_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("count", "low", "high"),
    [(0, 0.0, 3.689), (1, 0.025, 5.572), (10, 4.795, 18.39), (100, 81.36, 121.63)],
)
def test_poisson_is_garwoods_table(count: int, low: float, high: float) -> None:
    assert poisson(count) == pytest.approx((low, high), rel=1e-3, abs=1e-3)


def test_f1_counts_benign_rows_called_a_kind_against_it() -> None:
    wanted = np.array([0, 0, 0, 1, 1, 2, 2])
    found = np.array([0, 0, 1, 1, 1, 2, 0])
    table = confusion(wanted, found, 4)
    assert table[0].tolist() == [2, 1, 0, 0]
    assert f1_by_class(table)[1:].tolist() == pytest.approx([0.8, 2 / 3, 0.0])
    assert macro_f1(table) == pytest.approx((0.8 + 2 / 3) / 2)  # class 3 does not occur


def test_the_bootstrap_draws_whole_runs_and_repeats() -> None:
    good, bad = np.diag([5, 5]), np.array([[5, 0], [5, 0]])
    low, high = bootstrap_macro_f1([good, bad, good], seed=1)
    assert 0.0 <= low < macro_f1(good + bad + good) < high <= 1.0
    assert bootstrap_macro_f1([good, bad, good], seed=1) == (low, high)
