"""Windowed features of hosts: schema `ip-1`, one row per active host and 1 s slice of event time.

Pure and bounded: it opens nothing and knows no clock but the frames' own. It never depends on how frames
are cut into batches: who gets a row, what is late and what is folded are decided frame by frame.

In: `PacketTable` in capture order. Out: `FeatureMatrix`, rows ordered by (end_ns, address). Remembered: the
two open slices, the last 60 slices of at most `max_hosts` hosts, ARP and ND bindings. Raises: nothing.

A slice [s, s + 1 s) closes when event time reaches its end + 200 ms; frames that come later are late,
counted, and left out. Where 256 frames in a row lie more than 5 s in the past, time itself has stepped
back: windows close, memory is cleared, and it starts anew there (counted).

Source: DESIGN "Schemas and windows"; CONTRACTS "Windows", "Features are exact".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from agent.features.claims import ClaimBook
from agent.features.frames import Frames, frames_of
from agent.features.hosts import HostTable, Slots
from agent.features.ip_schema import SCHEMA
from agent.features.rows import SLICE_NS, Block, Memory, close, matrix
from agent.features.slices import (
    SEGMENT_ROWS,
    OpenSlice,
    Segment,
    add_hosts,
    add_links,
)
from agent.features.streams import add_claims, add_mqtt
from agent.records import FeatureMatrix, PacketTable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.records import I64, BoolArray

__all__ = ["SCHEMA", "HostWindows"]

GRACE_NS = 200_000_000
"""How long a slice waits for late frames; below the bar of 0.5 s from window to alert."""
STEP_BACK_NS = 5_000_000_000
STEP_BACK_FRAMES = 256
"""So many frames in a row, that far in the past, are a clock that was set back, not stragglers."""
MAX_CODES = 1 << 16
"""Pairs, services and MAC claims remembered, each; 1 MB each."""


class HostWindows:
    """The extractor of `ip-1`."""

    schema = SCHEMA

    def __init__(
        self,
        *,
        salt: int = 0,
        max_hosts: int = 4096,
        max_new_sources: int = 256,
        max_codes: int = MAX_CODES,
    ) -> None:
        """`salt` keys the hash of addresses: unknown to an attacker when live, fixed in replay."""
        self._salt = salt
        self._max_hosts = max_hosts
        self._max_new = max_new_sources
        self._max_codes = max_codes
        self._counts = dict.fromkeys(
            (
                "frames",
                "late_frames",
                "ignored_frames",
                "hostless_frames",
                "folded_packets",
                "clock_steps",
                "evicted_hosts",
                "evicted_codes",
                "evicted_claims",
                "refused_links",
                "rows",
            ),
            0,
        )
        self._clock = -1
        self._late_run = 0
        self._first_open = 0
        self._fresh()

    def _fresh(self) -> None:
        """Empty tables; running totals stay."""
        self._hosts = HostTable(salt=self._salt, max_hosts=self._max_hosts, max_new=self._max_new)
        self._memory = Memory(self._max_hosts, self._max_codes)
        self._book = ClaimBook(self._max_hosts)
        self._last_clock = np.full(2 * self._max_hosts, -1, np.int64)
        self._open: dict[int, OpenSlice] = {}
        self._spare: list[OpenSlice] = []

    def counters(self) -> Mapping[str, int]:
        """Running totals: frames, what was late, left out, folded or evicted; and hosts now in the table."""
        counts = dict(self._counts)
        for name, n in self._table_counts().items():
            counts[name] += n
        counts["hosts"] = len(self._hosts)
        return counts

    def _table_counts(self) -> dict[str, int]:
        return {
            "evicted_hosts": self._hosts.n_evicted,
            "evicted_codes": self._memory.links.n_evicted,
            "evicted_claims": self._book.n_evicted,
        }

    def add(self, table: PacketTable, *, ignore: BoolArray | None = None) -> FeatureMatrix:
        """Take a batch in, leaving out rows where `ignore`; the rows of the slices that it closed."""
        blocks: list[Block] = []
        n = len(table)
        if n:
            self._counts["frames"] += n
            frames = frames_of(table)
            hostless = ~(frames.has_src | frames.has_dst)
            left_out = hostless
            if ignore is not None:
                self._counts["ignored_frames"] += int(np.count_nonzero(ignore))
                hostless &= ~ignore
                left_out = hostless | ignore
            self._counts["hostless_frames"] += int(np.count_nonzero(hostless))
            self._add_rows(table, frames, left_out, blocks)
        return self._matrix(blocks)

    def advance(self, now_ns: int) -> FeatureMatrix:
        """The rows of the slices that ended (grace included) before `now_ns`."""
        blocks: list[Block] = []
        self._clock = max(self._clock, now_ns)
        self._close_before((self._clock - GRACE_NS) // SLICE_NS, blocks)
        return self._matrix(blocks)

    def flush(self) -> FeatureMatrix:
        """The rows of every open slice; what comes later for those slices is late."""
        blocks: list[Block] = []
        self._close_before(self._clock // SLICE_NS + 1, blocks)
        return self._matrix(blocks)

    def _matrix(self, blocks: list[Block]) -> FeatureMatrix:
        out = matrix(blocks)
        self._counts["rows"] += len(out)
        return out

    def _add_rows(
        self, table: PacketTable, frames: Frames, left_out: BoolArray, blocks: list[Block]
    ) -> None:
        """All frames of a batch, in stretches between two closings of slices."""
        ts = table.ts_ns
        n = len(ts)
        lookup = _Lookup(self._hosts, frames)
        start = 0
        clock = np.maximum.accumulate(np.maximum(ts, self._clock))
        while start < n:
            closed = max(int(clock[start] - GRACE_NS) // SLICE_NS, self._first_open)
            self._close_before(closed, blocks)
            change = (closed + 1) * SLICE_NS + GRACE_NS
            stop = int(np.searchsorted(clock[start:], change)) + start
            stop = min(stop, start + SEGMENT_ROWS, n)
            number = ts[start:stop] // SLICE_NS
            late = number < closed
            self._clock = int(clock[stop - 1])
            if late.any() or self._late_run:
                step = self._step_back(ts[start:stop], clock[start:stop], late)
                if step >= 0:
                    stop = start + step
                    self._clock = int(clock[max(stop - 1, 0)])
                    number, late = number[:step], late[:step]
            if stop > start:
                # `ignore`d and hostless late frames count as late too: they came too late for anything.
                self._counts["late_frames"] += int(np.count_nonzero(late))
                outside = late | left_out[start:stop]
                self._add_segment(
                    table, lookup, (start, stop), clock[start:stop], number - closed, outside
                )
                start = stop
            else:
                self._step(int(ts[start]), blocks)
                lookup = _Lookup(self._hosts, frames)
                clock[start:] = np.maximum.accumulate(ts[start:])

    def _step_back(self, ts: I64, clock: I64, late: BoolArray) -> int:
        """The frame at which a set-back clock shows (its number in the stretch), -1 if none."""
        far = late & (ts < clock - STEP_BACK_NS)
        breaks = np.concatenate([[-1 - self._late_run], np.flatnonzero(~far)])
        run = np.arange(len(ts)) - breaks[np.searchsorted(breaks, np.arange(len(ts)), "right") - 1]
        hit = np.flatnonzero(far & (run >= STEP_BACK_FRAMES))
        if len(hit):
            self._late_run = int(run[hit[0]]) - 1
            return int(hit[0])
        self._late_run = int(run[-1]) if far[-1] else 0
        return -1

    def _step(self, ts_ns: int, blocks: list[Block]) -> None:
        """Time starts anew at `ts_ns`."""
        self._close_before(self._clock // SLICE_NS + 1, blocks)
        for name, n in self._table_counts().items():
            self._counts[name] += n
        self._fresh()
        self._counts["clock_steps"] += 1
        self._late_run = 0
        self._first_open = 0
        self._clock = ts_ns

    def _close_before(self, number: int, blocks: list[Block]) -> None:
        """Close the open slices below `number`, oldest first."""
        if number <= self._first_open:
            return
        self._first_open = number
        for slice_no in sorted(s for s in self._open if s < number):
            window = self._open.pop(slice_no)
            self._counts["refused_links"] += window.links.n_refused
            rows = np.flatnonzero(window.active)
            if len(rows):
                blocks.append(close(window, self._hosts, self._memory))
            window.clear(rows)
            self._spare.append(window)
        gone = self._hosts.make_room(number)
        if len(gone):
            self._last_clock.reshape(2, -1)[:, gone] = -1
            self._memory.forget(gone)

    def _window(self, slice_no: int) -> OpenSlice:
        window = self._open.get(slice_no)
        if window is None:
            window = (
                self._spare.pop() if self._spare else OpenSlice(self._max_hosts, self._max_codes)
            )
            window.number = slice_no
            self._open[slice_no] = window
        return window

    def _add_segment(
        self,
        table: PacketTable,
        lookup: _Lookup,
        window: tuple[int, int],
        clock: I64,
        bit: I64,
        outside: BoolArray,
    ) -> None:
        """Frames between two closings: of slice `_first_open` (bit 0) and the next (bit 1)."""
        hosts = self._hosts
        base = self._first_open
        bit = np.where(outside, 0, bit) if outside.any() else bit
        src, dst = lookup.slots(*window, outside, bit + base)
        segment = Segment(
            frames=lookup.frames,
            start=window[0],
            stop=window[1],
            src=src,
            dst=dst,
            clock=clock,
            bit=bit,
            slices=(self._window(base), self._window(base + 1)),
        )
        folded = (src == hosts.folded) | (dst == hosts.folded)
        if folded.any():
            weight = lookup.frames.weight[window[0] : window[1]]
            self._counts["folded_packets"] += int(weight[folded].sum())
        add_claims(segment, lookup.frames.claims, self._book, hosts)
        add_hosts(segment, hosts, self._last_clock)
        add_links(segment, hosts)
        add_mqtt(segment, table.mqtt, hosts)


class _Lookup:
    """Slots of a batch's addresses: looked up at once, then settled stretch by stretch."""

    def __init__(self, hosts: HostTable, frames: Frames) -> None:
        self.frames = frames
        self._hosts = hosts
        self._generation = hosts.generation
        self._n_hosts = len(hosts)
        self._src = hosts.lookup(frames.src_hi, frames.src_lo)
        self._dst = hosts.lookup(frames.dst_hi, frames.dst_lo)

    def slots(
        self, start: int, stop: int, outside: BoolArray, slice_no: I64
    ) -> tuple[Slots, Slots]:
        """Source and destination slots of frames start to stop; `none` where there is no host."""
        hosts, frames = self._hosts, self.frames
        src = (frames.src_hi[start:stop], frames.src_lo[start:stop])
        dst = (frames.dst_hi[start:stop], frames.dst_lo[start:stop])
        stale = hosts.generation != self._generation
        grown = stale or len(hosts) != self._n_hosts
        out = []
        for (hi, lo), known, has in (
            (src, self._src[start:stop], frames.has_src[start:stop]),
            (dst, self._dst[start:stop], frames.has_dst[start:stop]),
        ):
            slots = hosts.lookup(hi, lo) if stale else known.copy()
            if grown and not stale:
                missing = np.flatnonzero(slots < 0)
                slots[missing] = hosts.lookup(hi[missing], lo[missing])
            slots[outside | ~has] = hosts.none
            out.append(slots)
        if (out[0] < 0).any() or (out[1] < 0).any():
            hosts.resolve(src, dst, (out[0], out[1]), slice_no)
        return out[0], out[1]
