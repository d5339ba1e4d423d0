"""A bounded, even sample of quiet rows for retraining: features only, no address, no time.

Each row gets a number by the order in which it was seen, and a priority by hashing that number; the rows of lowest
priority are kept. So every row has the same chance, and the same traffic gives the same sample.

In: rows of feature values. Out: `rows`. Raises nothing. Remembers at most `max_rows` rows.

Source: bottom-k sampling (Cohen and Kaplan, 2007); the hash is the finalizer of splitmix64 (Steele et al., 2014).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from agent.records import F32, I64, U64

MAX_A_SLICE = 64
"""Candidates of one slice that are held until it is known that they are quiet."""
AHEAD = 8192
_NONE = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


class Sample:
    """At most `max_rows` rows of `n_features`."""

    def __init__(self, max_rows: int, n_features: int) -> None:
        self.values: F32 = np.zeros((max_rows, n_features), np.float32)
        self.priority: U64 = np.full(max_rows, _NONE, np.uint64)
        self.n_seen = 0
        """Rows that had a chance."""
        self._ahead: U64 = np.zeros(0, np.uint64)
        self._begins = 0
        self._highest: np.uint64 | None = None
        """The worst priority that is kept; None: to be looked up."""

    @property
    def rows(self) -> F32:
        """(n, n_features) what is kept, in the order of priority."""
        return self.values[self.filled()]

    def filled(self) -> I64:
        """Places of what is kept, in the order of priority."""
        order = np.argsort(self.priority, kind="stable")
        return order[: int(np.count_nonzero(self.priority != _NONE))]

    def candidates(self, n: int) -> tuple[I64, U64]:
        """Which of the next `n` rows may be kept, and their priorities."""
        priority = self._priorities(n)
        self.n_seen += n
        if not len(self.priority):
            return np.zeros(0, np.int64), priority[:0]
        if self._highest is None:
            self._highest = self.priority.max()
        rows = np.flatnonzero(priority < self._highest)
        if len(rows) > MAX_A_SLICE:
            rows = rows[np.argsort(priority[rows], kind="stable")[:MAX_A_SLICE]]
        return rows, priority[rows]

    def _priorities(self, n: int) -> U64:
        """Those of the next `n` rows, worked out many at once."""
        first = self.n_seen - self._begins
        if first < 0 or first + n > len(self._ahead):
            self._begins, first = self.n_seen, 0
            numbers = np.arange(self.n_seen, self.n_seen + max(n, AHEAD), dtype=np.uint64)
            self._ahead = _mixed(numbers)
        return self._ahead[first : first + n]

    def keep(self, values: F32, priority: U64) -> None:
        """Candidates that turned out quiet."""
        for row, rank in zip(values, priority, strict=True):
            worst = int(self.priority.argmax())
            if rank < self.priority[worst]:
                self.priority[worst] = rank
                self.values[worst] = row
                self._highest = None


def _mixed(numbers: U64) -> U64:
    z = (numbers + np.uint64(1)) * np.uint64(0x9E37_79B9_7F4A_7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
    return np.asarray(z ^ (z >> np.uint64(31)), np.uint64)
