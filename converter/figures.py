"""The figures of an evaluation and their intervals. Pure arithmetic on counts and labels.

Source: Wilson (1927), score interval for a share; Garwood (1936), exact interval of a Poisson count by the
chi-square quantiles, here by bisection on the sum itself; F1 as in van Rijsbergen (1979).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Z_95 = 1.959963984540054


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95 % interval of a share; (0, 1) without any case."""
    if n == 0:
        return 0.0, 1.0
    share, z2 = hits / n, Z_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return (0.0 if hits == 0 else low), (1.0 if hits == n else high)


def poisson(count: int) -> tuple[float, float]:
    """95 % interval of a Poisson mean of which `count` was seen."""
    low = 0.0 if count == 0 else _mean_where(count - 1, 0.975)
    return low, _mean_where(count, 0.025)


def _mean_where(count: int, share: float) -> float:
    """The mean at which at most `count` is seen with probability `share`; it falls as the mean grows."""
    low, high = 0.0, 10.0 + 3.0 * count
    for _ in range(80):
        middle = (low + high) / 2
        terms = [k * math.log(middle) - middle - math.lgamma(k + 1) for k in range(count + 1)]
        if sum(map(math.exp, terms)) > share:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def confusion(
    wanted: NDArray[np.int64], found: NDArray[np.int64], n_classes: int
) -> NDArray[np.int64]:
    """(n_classes, n_classes): rows of class i that were called j."""
    counts = np.bincount(wanted * n_classes + found, minlength=n_classes * n_classes)
    return counts.reshape(n_classes, n_classes)


def f1_by_class(table: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n_classes,) F1 from a confusion; 0 where a class was neither met nor found."""
    right = np.diag(table).astype(np.float64)
    both = table.sum(axis=0) + table.sum(axis=1)
    return np.asarray(2 * right / np.maximum(both, 1), np.float64)


def macro_f1(table: NDArray[np.int64], *, first: int = 1) -> float:
    """Mean F1 of the classes that occur, from `first` on; benign rows called a kind count against that kind."""
    met = np.flatnonzero(table.sum(axis=1)[first:] > 0) + first
    return float(f1_by_class(table)[met].mean()) if len(met) else 0.0


def bootstrap_macro_f1(
    tables: Sequence[NDArray[np.int64]], *, seed: int, n_draws: int = 1000, first: int = 1
) -> tuple[float, float]:
    """95 % interval of the macro F1 by drawing whole runs anew; `tables` holds a confusion for each run."""
    stacked = np.stack(tables)
    random = np.random.default_rng(seed)
    draws = random.integers(0, len(tables), (n_draws, len(tables)))
    values = [macro_f1(stacked[draw].sum(axis=0), first=first) for draw in draws]
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def quantile_with_misses(values: Sequence[float | None], share: float) -> float | None:
    """The quantile of times of which None is a miss, later than any; None where it falls on a miss, or on nothing.

    The smallest value that at least `share` of all reach: no mean of a time and a miss is ever formed.
    """
    ordered = sorted(value for value in values if value is not None)
    place = math.ceil(share * len(values) - 1e-9) - 1
    return round(ordered[max(0, place)], 2) if 0 <= place < len(ordered) else None
