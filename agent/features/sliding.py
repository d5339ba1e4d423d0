"""What the last 60 slices hold: sums per host, and sets of codes that leave when they were not seen for long.

Both are exact and bounded. Slices are named by their number (event seconds), so an idle hour costs no more
than one slice. A host's slot that was freed takes its sums and codes along (`forget`): nothing aliases.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from agent.records import I64, BoolArray

HORIZON_SLICES = 60
"""The long horizon of CONTRACTS: 60 slices, the current one included."""
MAX_ADDEND = 2**31 - 1
"""Cap on what one slice adds to a sum of the long horizon; kept as int32, so 60 slices stay small."""


_COLUMN_BITS = 6


class SlidingSums:
    """Per host, column sums over the last 60 slices; `totals` is (max_hosts, n_columns) int64.

    Of each slice it keeps what is not zero: most hosts do few of the things that are counted.
    """

    def __init__(self, max_hosts: int, n_columns: int) -> None:
        """At most 64 columns."""
        wide = np.zeros((max_hosts, 1 << _COLUMN_BITS), np.int64)
        self.totals = wide[:, :n_columns]
        self._wide = wide
        self._slices: deque[tuple[int, NDArray[np.int32], NDArray[np.integer[Any]]]] = deque()

    def push(self, slice_no: int, slots: I64, values: I64, since: I64) -> I64:
        """Add a slice's (n_columns, len(slots)) values, capped, and drop the slices that it pushes out.

        The totals of these hosts, (len(slots), n_columns).

        `since`: per slot, the slice since which its host has it; older slices belong to another host.
        """
        flat = self._wide.reshape(-1)
        while self._slices and self._slices[0][0] <= slice_no - HORIZON_SLICES:
            number, at, old = self._slices.popleft()
            stays = since[at >> _COLUMN_BITS] <= number
            if not stays.all():
                at, old = at[stays], old[stays]
            flat[at] -= old
        here = np.flatnonzero(values.reshape(-1) != 0)
        column = here // max(len(slots), 1)
        at = slots[here - column * len(slots)] << _COLUMN_BITS | column
        some = np.minimum(values.reshape(-1)[here], MAX_ADDEND)
        flat[at] += some
        small = np.uint16 if not len(some) or some.max() < 1 << 16 else np.int32
        self._slices.append((slice_no, at.astype(np.int32), some.astype(small)))
        # Of the whole rows: `take` of a part of them would copy the table first.
        return self._wide.take(slots, axis=0)[:, : self.totals.shape[1]]

    def forget(self, slots: I64) -> None:
        """Forget the hosts of these slots."""
        self.totals[slots] = 0


def contains(codes: I64, wanted: I64) -> BoolArray:
    """(len(wanted),) whether each is among `codes` (ascending)."""
    if not len(codes):
        return np.zeros(len(wanted), np.bool_)
    at = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
    return np.equal(codes[at], wanted)


class SlidingSet:
    """Codes seen in the last 60 slices, ascending; at most `max_codes`: those seen longest ago go first."""

    def __init__(self, max_codes: int) -> None:
        self.max_codes = max_codes
        self.codes = np.zeros(0, np.int64)
        self.n_evicted = 0
        self._last = np.zeros(0, np.int64)
        self._oldest = 0
        """No code was last seen in an earlier slice."""

    def expire(self, slice_no: int) -> I64:
        """Drop what was not seen in the 59 slices before this one; what left, ascending. `see` comes next."""
        end = slice_no - HORIZON_SLICES
        if self._oldest > end:
            return self.codes[:0]
        left = self.forget(self._last <= end)
        self._oldest = int(self._last.min(initial=slice_no))
        return left

    def see(self, slice_no: int, codes: I64) -> tuple[I64, I64]:
        """Take a slice's codes in. Those that were not there; those evicted for want of room; ascending."""
        at = np.searchsorted(self.codes, codes)
        if len(self.codes):
            clipped = np.minimum(at, len(self.codes) - 1)
            found = self.codes[clipped] == codes
            self._last[clipped[found]] = slice_no
            missing = np.flatnonzero(~found)
        else:
            missing = np.arange(len(codes))
        entered = codes[missing]
        if not len(self.codes):
            self.codes, self._last = entered, np.full(len(entered), slice_no)
        elif len(entered):
            where = at[missing] + np.arange(len(entered))
            self._insert(where, entered, slice_no)
        over = len(self.codes) - self.max_codes
        if over <= 0:
            return entered, entered[:0]
        self.n_evicted += over
        gone = np.zeros(len(self.codes), np.bool_)
        gone[np.argsort(self._last, kind="stable")[:over]] = True
        return entered, self.forget(gone)

    def _insert(self, where: NDArray[np.intp], entered: I64, slice_no: int) -> None:
        """Put codes in; `where` they stand afterwards, ascending."""
        # Gather all from the place before, then overwrite: several times faster than masks.
        source = np.ones(len(self.codes) + len(entered), np.intp)
        source[where] = 0
        source[0] -= 1
        np.cumsum(source, out=source)
        self.codes = self.codes.take(source, mode="clip")
        self._last = self._last.take(source, mode="clip")
        self.codes[where], self._last[where] = entered, slice_no

    def forget(self, gone: BoolArray) -> I64:
        """Drop the codes where `gone`; what left, ascending."""
        left = self.codes[gone]
        if len(left):
            keep = ~gone
            self.codes, self._last = self.codes[keep], self._last[keep]
        return left


class Tally:
    """Codes of one open slice and the packets of each; at most `max_codes`, the first seen stay."""

    def __init__(self, max_codes: int) -> None:
        self.max_codes = max_codes
        self.codes = np.zeros(0, np.int64)
        self.packets = np.zeros(0, np.int64)
        self.n_refused = 0

    def add(self, codes: I64, packets: I64, first_row: I64) -> None:
        """Add codes (ascending, unique) with their packets; `first_row` orders those that are new."""
        if not len(self.codes):
            found = np.zeros(len(codes), np.bool_)
            at = np.zeros(len(codes), np.int64)
        else:
            at = np.searchsorted(self.codes, codes)
            clipped = np.minimum(at, len(self.codes) - 1)
            found = self.codes[clipped] == codes
            self.packets[at[found]] += packets[found]
        new = np.flatnonzero(~found)
        room = self.max_codes - len(self.codes)
        if len(new) > room:
            keep = np.sort(new[np.argsort(first_row[new], kind="stable")[:room]])
            self.n_refused += len(new) - len(keep)
            new = keep
        if len(new) == len(codes) and not len(self.codes):
            self.codes, self.packets = codes, packets.copy()
        elif len(new):
            self.codes = np.insert(self.codes, at[new], codes[new])
            self.packets = np.insert(self.packets, at[new], packets[new])
