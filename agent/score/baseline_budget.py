"""The alarm budget: how far outside its range a device must be before the site is told, by the site's own traffic.

Of every score it counts how often quiet traffic reached it, as findings (what lies less than `merge_ns` apart on one
device is one), and over how long. The threshold is the lowest score that is reached no more often than the budget.
It never goes below `LOWEST` nor above `HIGHEST`: the first keeps small changes quiet, the second keeps a flood in
sight, whatever a ward is used to.

In: device numbers, whole scores, the baseline's own time [ns]. Out: `threshold`. Raises nothing.
Remembers: counts a score, forgotten by half-life; per device when it last reached each score.

Source: (n + 1/2) / t is the mean of a Poisson rate given n events in time t under Jeffreys' prior.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.records import I64

LEVELS = 33
"""Scores that are told apart, 0 to 32; what is higher counts as the last."""
LOWEST = 3
"""One new peer, or 2.8 times the top of the range."""
HIGHEST = 12
"""64 times the top of the range."""
START = 8
"""Until the budget is known: 16 times the top of the range."""
DAY_NS = 86_400 * 10**9
MINUTE_NS = 60 * 10**9
"""The threshold follows the counts so often."""


class Budget:
    """Counts of quiet findings by score, and the threshold that they give."""

    def __init__(
        self,
        n_devices: int,
        *,
        per_day: float,
        merge_ns: int,
        enough_ns: float,
        half_life_ns: float,
    ) -> None:
        """`enough_ns`: quiet time from which on the counts are trusted."""
        self.per_day = per_day
        self._merge_ns = merge_ns
        self._enough_ns = enough_ns
        self._half_life_ns = half_life_ns
        self.episodes = np.zeros(LEVELS)
        self.quiet_ns = 0.0
        """How long quiet traffic was judged, forgotten like the counts."""
        self.threshold = START
        self._waiting_ns = 0
        self._last_ns = np.full((n_devices, LEVELS), -(1 << 62), np.int64)

    @property
    def calibrated(self) -> bool:
        """Whether enough quiet traffic was seen for the threshold to be the site's own."""
        return self.quiet_ns >= self._enough_ns

    def count(self, devices: I64, scores: NDArray[np.int64], now_ns: int) -> None:
        """Quiet rows of one slice with a score above 0."""
        reached = np.minimum(scores, LEVELS - 1)[:, None] >= np.arange(LEVELS)
        last = self._last_ns[devices]
        begins = reached & (now_ns - last > self._merge_ns)
        self.episodes += begins.sum(axis=0)
        self._last_ns[devices] = np.where(reached, now_ns, last)

    def pass_time(self, elapsed_ns: int) -> None:
        """So much quiet traffic has been judged; the threshold follows."""
        self._waiting_ns += elapsed_ns
        if self._waiting_ns < min(MINUTE_NS, self._half_life_ns / 1000):
            return
        kept = 0.5 ** (self._waiting_ns / self._half_life_ns)
        self.episodes *= kept
        self.quiet_ns = self.quiet_ns * kept + self._waiting_ns
        self._waiting_ns = 0
        if self.calibrated:
            good = np.flatnonzero(self.rates() <= self.per_day)
            lowest = int(good[0]) if len(good) else HIGHEST
            self.threshold = min(max(lowest, LOWEST), HIGHEST)

    def rates(self) -> NDArray[np.float64]:
        """(LEVELS,) findings a day that a threshold at each score would have told of quiet traffic."""
        return np.asarray((self.episodes + 0.5) / max(self.quiet_ns / DAY_NS, 1e-9))

    def forget(self, devices: I64) -> None:
        """These numbers are other devices' from now on."""
        self._last_ns[devices] = -(1 << 62)
