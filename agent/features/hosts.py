"""The bounded table of hosts: address to slot, exactly, and who gets a slot.

Open addressing in numpy with a salted hash; a hit is verified against the whole 128-bit address, so two
hosts never share a slot. It never forgets silently: what gets no slot is FOLDED, and is counted.

Contract: `resolve` takes addresses in frame order and gives slots; who is new is decided frame by frame,
so the result does not depend on how frames are cut into batches. At most `max_new` new sources a slice
to one destination, and as many new destinations from one source, get a slot; the rest is folded.
`make_room` (at the close of a slice) frees slots: those never seen in both directions first, then those
idle longest. A slot that was freed has nothing left of its old host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from agent.records import I64, U64, BoolArray

_K1 = 0x9E37_79B9_7F4A_7C15
_K2 = 0xC2B2_AE3D_27D4_EB4F
_U64 = 0xFFFF_FFFF_FFFF_FFFF
_INDEX_BITS = 16
"""65,536 cells for at most 8,190 hosts: a probe rarely needs a second look."""
_NEVER = np.iinfo(np.int64).max
_BLOCK_ROWS = 512
"""Rows that are settled one by one before the rest is looked up again."""

Slots = NDArray[np.int64]


class HostTable:
    """Addresses of at most `max_hosts` hosts; `folded` and `none` are the slots of nobody."""

    def __init__(self, *, salt: int, max_hosts: int, max_new: int) -> None:
        if not 1 <= max_hosts <= 8190:
            raise ValueError(f"max_hosts must be 1 to 8190, not {max_hosts}")
        self.max_hosts = max_hosts
        self.max_new = max_new
        self._reserve = min(max_new, max_hosts // 4)
        self.folded = max_hosts
        self.none = max_hosts + 1
        self.hi = np.zeros(max_hosts, np.uint64)
        self.lo = np.zeros(max_hosts, np.uint64)
        self.mac = np.zeros(max_hosts, np.uint64)
        self.admitted = np.full(max_hosts, _NEVER, np.int64)
        """Slice in which the host got its slot; beyond all slices where the slot is free."""
        self.since = np.full(max_hosts, _NEVER, np.int64)
        """First slice that was open when it got its slot: what is older is another host's."""
        self.last = np.full(max_hosts, -1, np.int64)
        self.seen = np.zeros((2, max_hosts), np.bool_)
        """Whether it was ever a source, a destination."""
        self.n_evicted = 0
        self.first_open = 0
        self.generation = 0
        """Grows with each eviction: slots looked up before are stale."""
        self._a = (salt * _K1 ^ _K2) & _U64 | 1
        self._b = (salt * _K2 ^ _K1) & _U64 | 1
        self._cells = np.full(1 << _INDEX_BITS, -1, np.int16)
        self._free = list(range(max_hosts - 1, -1, -1))
        self._order = np.zeros(0, np.intp)
        self._rank = np.zeros(max_hosts, np.int64)
        self._ordered = (0, 0)
        self._new: dict[int, I64] = {}
        """Per open slice: (2, slots) new sources of a destination, new destinations of a source."""

    def __len__(self) -> int:
        return self.max_hosts - len(self._free)

    def by_address(self) -> tuple[Slots, I64]:
        """The slots in use in the order of their addresses, and (max_hosts,) the place of each slot in it."""
        state = (self.generation, len(self))
        if state != self._ordered:
            self._ordered = state
            used = np.flatnonzero(self.admitted != _NEVER)
            self._order = used[np.lexsort((self.lo[used], self.hi[used]))]
            self._rank[self._order] = np.arange(len(used))
        return self._order, self._rank

    def lookup(self, hi: U64, lo: U64) -> Slots:
        """(n,) the slot of each address, -1 where it has none."""
        h = lo * np.uint64(self._a)
        if hi.any():
            h ^= hi * np.uint64(self._b)
        h ^= h >> np.uint64(32)
        h *= np.uint64(self._b)
        cell = (h >> np.uint64(64 - _INDEX_BITS)).astype(np.int64)
        slot = self._cells[cell].astype(np.int64)
        # A free cell (-1) indexes the last host here, and may even equal it: checked beside it.
        wrong = (self.lo[slot] != lo) | (self.hi[slot] != hi)
        todo = np.flatnonzero(wrong & (slot >= 0))
        while len(todo):
            cell[todo] = (cell[todo] + 1) & ((1 << _INDEX_BITS) - 1)
            s = self._cells[cell[todo]].astype(np.int64)
            slot[todo] = s
            again = (s >= 0) & ((self.lo[s] != lo[todo]) | (self.hi[s] != hi[todo]))
            todo = todo[again]
        return slot

    def _insert(self, slot: int, hi: int, lo: int) -> None:
        """Put a slot into its cell; the scalar twin of `lookup`."""
        h = ((lo * self._a) & _U64) ^ ((hi * self._b) & _U64)
        h ^= h >> 32
        cell = ((h * self._b) & _U64) >> (64 - _INDEX_BITS)
        while self._cells[cell] >= 0:
            cell = (cell + 1) & ((1 << _INDEX_BITS) - 1)
        self._cells[cell] = slot

    def _admit(self, hi: int, lo: int, slice_no: int) -> int:
        slot = self._free.pop()
        self.hi[slot], self.lo[slot] = hi, lo
        self.admitted[slot] = self.last[slot] = slice_no
        self.since[slot] = self.first_open
        self._insert(slot, hi, lo)
        return slot

    def new_counts(self, slice_no: int) -> I64:
        """(2, max_hosts + 2) hosts admitted in a slice, by destination and by source."""
        counts = self._new.get(slice_no)
        if counts is None:
            counts = self._new[slice_no] = np.zeros((2, self.max_hosts + 2), np.int64)
        return counts

    def resolve(
        self,
        src: tuple[U64, U64],
        dst: tuple[U64, U64],
        slots: tuple[Slots, Slots],
        slice_no: I64,
    ) -> None:
        """Give slots to the unknown (-1) rows of `slots`, in place, in frame order.

        `src`, `dst`: (n,) halves of the addresses; `slots`: (n,) as looked up, `none` where there is no host;
        `slice_no`: (n,) each frame's slice. Afterwards no slot is -1: it is a host's, `folded` or `none`.
        """
        s, d = slots
        rows = np.flatnonzero((s < 0) | (d < 0))
        while len(rows):
            needs = self._needs(s[rows], d[rows], slice_no[rows])
            first = int(needs.argmax()) if needs.any() else len(rows)
            settled = rows[:first]
            for column in slots:
                part = column[settled]
                column[settled] = np.where(part < 0, self.folded, part)
            rows = rows[first:]
            if not len(rows):
                break
            self._settle(rows[:_BLOCK_ROWS], src, dst, slots, slice_no)
            rows = rows[_BLOCK_ROWS:]
            for column, (hi, lo) in ((s, src), (d, dst)):
                unknown = rows[column[rows] < 0]
                column[unknown] = self.lookup(hi[unknown], lo[unknown])
            rows = rows[(s[rows] < 0) | (d[rows] < 0)]

    def _needs(self, s: Slots, d: Slots, slice_no: I64) -> BoolArray:
        """(n,) True where a frame, with the table as it stands, would get a new slot."""
        if not self._free:
            return np.zeros(len(s), np.bool_)
        room = np.zeros((2, len(s)), np.bool_)
        for number in np.unique(slice_no):
            counts = self.new_counts(int(number))
            at = slice_no == number
            room[0, at] = counts[0, np.where(d[at] < 0, self.folded, d[at])] < self.max_new
            room[1, at] = counts[1, np.where(s[at] < 0, self.folded, s[at])] < self.max_new
        out: BoolArray = ((s < 0) & room[0]) | ((d < 0) & room[1])
        return out

    def _settle(
        self,
        rows: NDArray[np.intp],
        src: tuple[U64, U64],
        dst: tuple[U64, U64],
        slots: tuple[Slots, Slots],
        slice_no: I64,
    ) -> None:
        """Frame by frame: a new source counts for its destination, a new destination for its source."""
        fresh: dict[tuple[int, int], int] = {}
        s_col, d_col = slots
        columns = (src[0], src[1], dst[0], dst[1], s_col, d_col, slice_no)
        for row, s_hi, s_lo, d_hi, d_lo, s, d, number in zip(
            rows.tolist(), *(c[rows].tolist() for c in columns), strict=True
        ):
            counts = self.new_counts(number)
            if s < 0:
                s = fresh.get((s_hi, s_lo), -1)  # noqa: PLW2901  (what an earlier row found)
            if d < 0:
                d = fresh.get((d_hi, d_lo), -1)  # noqa: PLW2901  (likewise)
            if s < 0:
                s = self.folded  # noqa: PLW2901  (unless there is room)
                victim = d if d >= 0 else self.folded
                if self._free and counts[0, victim] < self.max_new:
                    counts[0, victim] += 1
                    s = fresh[s_hi, s_lo] = self._admit(s_hi, s_lo, number)  # noqa: PLW2901
                    if (s_hi, s_lo) == (d_hi, d_lo) and d < 0:
                        d = s  # noqa: PLW2901
            if d < 0:
                d = self.folded  # noqa: PLW2901
                if self._free and counts[1, s] < self.max_new:
                    counts[1, s] += 1
                    d = fresh[d_hi, d_lo] = self._admit(d_hi, d_lo, number)  # noqa: PLW2901
            s_col[row], d_col[row] = s, d

    def has_room(self, n_new: int) -> bool:
        """Whether `n_new` hosts more leave so many slots free that `make_room` has nothing to do."""
        return len(self._free) - n_new >= self._reserve

    def make_room(self, first_open: int) -> Slots:
        """Free slots until enough are free, among hosts idle since before slice `first_open`; those freed."""
        self.first_open = first_open
        for number in [n for n in self._new if n < first_open]:
            del self._new[number]
        wanted = self._reserve - len(self._free)
        if wanted <= 0:
            return np.zeros(0, np.int64)
        idle = np.flatnonzero((self.admitted != _NEVER) & (self.last < first_open))
        both = (self.seen[0] & self.seen[1])[idle]
        gone = idle[np.lexsort((idle, self.last[idle], both))][:wanted]
        if not len(gone):
            return gone
        self.hi[gone] = self.lo[gone] = self.mac[gone] = 0
        self.admitted[gone] = self.since[gone] = _NEVER
        self.last[gone] = -1
        self.seen[:, gone] = False
        self._free.extend(gone[::-1].tolist())
        self.n_evicted += len(gone)
        self.generation += 1
        self._cells[:] = -1
        for slot in np.flatnonzero(self.admitted != _NEVER).tolist():
            self._insert(slot, int(self.hi[slot]), int(self.lo[slot]))
        for counts in self._new.values():
            counts[:, gone] = 0
        return gone
