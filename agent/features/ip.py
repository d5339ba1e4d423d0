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
from agent.features.rows import SLICE_NS, Block, Closed, Memory, close, matrix
from agent.features.slices import (
    FRAME_MAXES,
    FRAME_SUMS,
    MQTT_MAXES,
    MQTT_SUMS,
    PIECE_ROWS,
    PIECE_SLICES,
    Arrivals,
    Piece,
    add_hosts,
    add_links,
)
from agent.features.sliding import Tally
from agent.features.streams import ClaimedSlices, add_claims, add_mqtt
from agent.features.sums import SLICE_SHIFT, KeyedSums
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
MAX_CLOSED_ROWS = 1 << 13
"""Hosts and sides of slices that close together, where they are more than one slice; 7 MB of raw columns."""
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
        self._arrivals = Arrivals(self._max_hosts)
        self._sums = KeyedSums(len(FRAME_SUMS), len(FRAME_MAXES))
        self._mqtt = KeyedSums(len(MQTT_SUMS), len(MQTT_MAXES))
        self._claims = ClaimedSlices(self._max_codes)
        self._links: dict[int, Tally] = {}

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
        """All frames of a batch, piece by piece."""
        ts = table.ts_ns
        n = len(ts)
        lookup = _Lookup(self._hosts, frames)
        start = 0
        clock = np.maximum.accumulate(np.maximum(ts, self._clock))
        while start < n:
            self._close_before((int(clock[start]) - GRACE_NS) // SLICE_NS, blocks)
            stop = self._stop(clock, start, lookup)
            number = ts[start:stop] // SLICE_NS
            closed = np.maximum((clock[start:stop] - GRACE_NS) // SLICE_NS, self._first_open)
            late = number < closed
            if late.any() or self._late_run:
                step = self._step_back(ts[start:stop], clock[start:stop], late)
                if step == 0:
                    self._step(int(ts[start]), blocks)
                    lookup = _Lookup(self._hosts, frames)
                    clock[start:] = np.maximum.accumulate(ts[start:])
                    continue
                if step > 0:
                    stop = start + step
                    number, late = number[:step], late[:step]
            # `ignore`d and hostless late frames count as late too: they came too late for anything.
            self._counts["late_frames"] += int(np.count_nonzero(late))
            outside = late | left_out[start:stop]
            self._clock = int(clock[stop - 1])
            self._add_piece(table, lookup, (start, stop), clock[start:stop], number, outside)
            self._close_before((self._clock - GRACE_NS) // SLICE_NS, blocks)
            start = stop

    def _stop(self, clock: I64, start: int, lookup: _Lookup) -> int:
        """Where the piece that begins at `start` ends.

        Closing a slice may free slots, and what is freed depends on the frames before. Where that cannot
        happen within the piece, it runs over several slices; else it ends where a slice closes.
        """
        first = max(int(clock[start] - GRACE_NS) // SLICE_NS, self._first_open)
        stop = min(start + PIECE_ROWS, len(clock))
        last_ns = (first + PIECE_SLICES) * SLICE_NS
        stop = start + int(np.searchsorted(clock[start:stop], last_ns))
        if int(clock[stop - 1]) - GRACE_NS >= (first + 1) * SLICE_NS and not self._hosts.has_room(
            lookup.n_unknown(start, stop)
        ):
            last_ns = (first + 1) * SLICE_NS + GRACE_NS
            stop = start + int(np.searchsorted(clock[start:stop], last_ns))
        return stop

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
        """Close the open slices below `number`."""
        if number <= self._first_open:
            return
        self._first_open = number
        # Slices may close one by one or together: together is quicker, one by one needs less memory.
        for n in self._sums.bounds(number, MAX_CLOSED_ROWS):
            self._close_some(n, blocks)
        gone = self._hosts.make_room(number)
        if len(gone):
            self._arrivals.forget(gone)
            self._memory.forget(gone)

    def _close_some(self, number: int, blocks: list[Block]) -> None:
        """Close the open slices below `number`, together."""
        rows = self._sums.take_below(number)
        keys = rows.keys()
        numbers = np.unique(keys >> SLICE_SHIFT).tolist()
        tallies = [self._links.pop(n) if n in self._links else Tally(0) for n in numbers]
        self._counts["refused_links"] += sum(t.n_refused for t in tallies)
        closed = Closed(
            frames=rows,
            mqtt=self._mqtt.take_below(number),
            claims=self._claims.sums.take_below(number),
            numbers=numbers,
            links=[(t.codes, t.packets) for t in tallies],
            claimed=[self._claims.take(n) for n in numbers],
        )
        blocks.append(close(closed, self._hosts, self._memory))

    def _tally(self, slice_no: int) -> Tally:
        """The links of an open slice."""
        return self._links.setdefault(slice_no, Tally(self._max_codes))

    def _add_piece(
        self,
        table: PacketTable,
        lookup: _Lookup,
        window: tuple[int, int],
        clock: I64,
        number: I64,
        outside: BoolArray,
    ) -> None:
        """Frames of one piece; `number`: the slice of each, `outside`: those left out."""
        hosts = self._hosts
        inside = number if not outside.any() else number[~outside]
        if not len(inside):
            return
        base, top = int(inside.min()), int(inside.max())
        if len(inside) < len(number):
            number = np.where(outside, base, number)
        src, dst = lookup.slots(*window, outside, number)
        piece = Piece(
            frames=lookup.frames,
            start=window[0],
            stop=window[1],
            src=src,
            dst=dst,
            clock=clock,
            base=base,
            number=number - base,
            one_slice=base == top,
        )
        folded = (src == hosts.folded) | (dst == hosts.folded)
        if folded.any():
            weight = lookup.frames.weight[window[0] : window[1]]
            self._counts["folded_packets"] += int(weight[folded].sum())
        add_claims(piece, lookup.frames.claims, self._book, hosts, self._claims)
        add_hosts(piece, hosts, self._arrivals, self._sums)
        add_links(piece, hosts, self._tally)
        add_mqtt(piece, table.mqtt, hosts, self._mqtt)


class _Lookup:
    """Slots of a batch's addresses: looked up at once, then settled stretch by stretch."""

    def __init__(self, hosts: HostTable, frames: Frames) -> None:
        self.frames = frames
        self._hosts = hosts
        self._look()

    def _look(self) -> None:
        """Look everything up, with the table as it stands."""
        hosts, frames = self._hosts, self.frames
        self._generation = hosts.generation
        self._n_hosts = len(hosts)
        self._src = hosts.lookup(frames.src_hi, frames.src_lo)
        self._dst = hosts.lookup(frames.dst_hi, frames.dst_lo)

    def n_unknown(self, start: int, stop: int) -> int:
        """How many new hosts these frames can bring, at most."""
        if self._hosts.generation != self._generation:
            self._look()
        return int(
            np.count_nonzero(self._src[start:stop] < 0)
            + np.count_nonzero(self._dst[start:stop] < 0)
        )

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
