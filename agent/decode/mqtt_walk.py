"""Where MQTT control packets start, in many TCP payloads at once, each walked as if it began with one.

Round k reads the k-th header of every payload that still has one; the last few payloads are walked in a plain
loop (`mqtt_scan`, which also says how the cost of a payload is bounded by its length). Runs of two-byte packets are
taken in windows. Beyond the first `_FREE` headers of a payload, walking is paid from a `Purse`: where that is empty,
walks end and the rest of their payloads is estimated, after as many headers for all that are still walked.

It never decides whether a payload does begin with a control packet: `mqtt_epochs` compares the ends with TCP's
sequence numbers. It reads no byte past a payload's captured ones but to throw it away.

In: `offset` (n,) int64 into `buffer`, `length` (n,) bytes on the wire, `captured` (n,) of these in the buffer.
Out: `Walk`. Raises: nothing. Remembers: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.decode.gather import gather
from agent.decode.mqtt_header import plausible, read_headers
from agent.decode.mqtt_scan import Purse, Stop, scan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.records import I32, I64, U8, BoolArray

_FEW = 24
"""Below this many payloads a Python loop is cheaper than numpy's calls (about 30 calls a round)."""
_FREE = 6
"""Headers walked of every payload whatever the others cost; ordinary segments hold fewer packets."""
_CHUNK_BYTES = 8 << 20
"""Payload bytes walked at a time; bounds what entries take in memory to tens of MB at the very worst."""
_WINDOWS = (32, 256, 1536)
"""Bytes looked at for a run of two-byte packets: first few, then many once the few were all of one run."""
_WINDOW_STEP_BYTES = 32
"""Bytes of a window that cost as much as walking one header."""
_WINDOW_PURSE_BYTES = 1024
"""As before, measured where many are looked at together."""
_WINDOW_BLOCK_BYTES = 1 << 20
_STREAK = 3
"""Equal headers in a row after which the next `_LEAP` are looked at together."""
_LEAP = 16
_LEAP_STEPS = 3
"""Rounds that a leap costs as much as, where it comes to nothing."""


@dataclass(slots=True, frozen=True)
class Walk:
    """What was found: (n,) per payload; (m,) per entry, by payload and then by position."""

    stop: U8
    """(n,) `mqtt_scan.Stop`."""
    end: I64
    """(n,) bytes into the payload; where the next control packet starts or would."""
    packets: I64
    """(n,) whole control packets found, counted, not entries."""
    payload: I64
    """(m,) which payload."""
    pos: I64
    """(m,) absolute offset of the first byte."""
    first: U8
    remaining: I32
    size: I32
    """(m,) bytes of the fixed header."""
    count: I64
    """(m,) packets with the same first byte that this entry stands for."""
    extrapolated: BoolArray

    def only(self, entries: I64) -> Walk:
        """These entries, in this order."""
        names = Walk.__slots__[3:]
        return Walk(
            self.stop, self.end, self.packets, *(getattr(self, n).take(entries) for n in names)
        )


def walk(buffer: U8, offset: I64, length: I64, captured: I64, purse: Purse | None = None) -> Walk:
    """Walk every payload from its first byte, as if a control packet began there; without a purse at any cost."""
    if purse is None:
        purse = Purse(most=1 << 60, per_segment=0, per_ms=0)
    parts = [
        _Chunk(buffer, offset[a:b], length[a:b], captured[a:b], purse).walk(a)
        for a, b in _chunks(captured)
    ]
    if len(parts) == 1:
        return parts[0]
    return Walk(*(np.concatenate([getattr(p, name) for p in parts]) for name in Walk.__slots__))


def _chunks(captured: I64) -> list[tuple[int, int]]:
    """Ranges of payloads of about `_CHUNK_BYTES` captured bytes each; at least one, maybe empty."""
    total = np.cumsum(captured)
    cuts = np.arange(_CHUNK_BYTES, int(total[-1]) if len(total) else 0, _CHUNK_BYTES)
    inner = (np.searchsorted(total, cuts) + 1).tolist()
    edges = sorted({0, *inner, len(captured)})
    return list(pairwise(edges)) if len(captured) else [(0, 0)]


@dataclass(slots=True)
class _Active:
    """Payloads with a header still to be read."""

    payload: I64
    pos: I64
    """Where that header is."""
    limit: I64
    """Where the payload ends."""
    edge: I64
    """Where what was captured of it ends."""
    steps: I64
    """Rounds that it may take part in."""
    used: I64
    """Entries of their own that it has had."""
    previous: I64
    """The header before: first byte and remaining length, -1 where that took more than a byte."""
    streak: I64
    """Headers in a row that were equal to the one before."""

    def keep(self, rows: I64) -> None:
        """Only these go on."""
        for name in _Active.__slots__:
            setattr(self, name, getattr(self, name).take(rows))


class _Chunk:
    """The walk of some payloads."""

    def __init__(self, buffer: U8, offset: I64, length: I64, captured: I64, purse: Purse) -> None:
        n = len(offset)
        self.purse = purse
        self.buffer = buffer
        self.offset = offset
        self.length = length
        self.captured = captured
        self.stop: U8 = np.zeros(n, np.uint8)
        self.end: I64 = length.astype(np.int64)
        self.columns: list[tuple[NDArray[Any], ...]] = []
        self.room = 32 + length // 64  # as `mqtt_scan.max_entries`
        self.together: NDArray[np.int32] | None = None
        """(n * 256,) packets past a payload's room, by payload and first byte; there once they are needed."""

    def walk(self, base: int) -> Walk:
        start = self.offset.astype(np.int64)
        active = _Active(
            payload=np.arange(len(start)),
            pos=start,
            limit=start + self.length,
            edge=start + self.captured,
            steps=64 + self.length // 4,  # as `mqtt_scan.max_headers`
            used=np.zeros(len(start), np.int64),
            previous=np.full(len(start), -1),
            streak=np.zeros(len(start), np.int64),
        )
        k = 0
        while len(active.payload) > _FEW:
            k += 1
            if k > _FREE:
                if self.purse.steps <= 0:
                    active.steps[:] = 0
                self.purse.steps -= len(active.payload)
            self._round(active, k)
        left = len(active.payload)
        for row in zip(active.payload.tolist(), active.pos.tolist(), strict=True):
            self._finish(*row, max(self.purse.steps // left, _FREE))
            left -= 1
        return self._join(base)

    def _add(self, payload: I64, pos: I64, header: tuple[U8, I32, I32], count: I64) -> None:
        self.columns.append((payload, pos, *header, count, np.zeros(len(payload), bool)))

    def _add_within_room(
        self, active: _Active, rows: I64 | slice, pos: I64, header: tuple[U8, I32, I32], count: I64
    ) -> None:
        """Entries for payloads that have room for more; for others, packets are counted together.

        `rows` are of `active`, each once. The first packet counted together gets the entry, count 0 for now.
        """
        payload = active.payload[rows]
        full = active.used[rows] >= self.room[payload]
        active.used[rows] += 1
        if not full.any():
            self._add(payload, pos, header, count)
            return
        own = ~full
        first, remaining, size = header
        self._add(payload[own], pos[own], (first[own], remaining[own], size[own]), count[own])
        self._add_together(
            payload[full], pos[full], (first[full], remaining[full], size[full]), count[full]
        )

    def _add_together(
        self, payload: I64, pos: I64, header: tuple[U8, I32, I32], count: I64
    ) -> None:
        if self.together is None:
            self.together = np.zeros(len(self.offset) << 8, np.int32)
        first, remaining, size = header
        key = payload << 8 | first
        before = self.together[key]
        self.together[key] = before + count
        new = np.flatnonzero((before == 0) & (count > 0))
        none = np.zeros(len(new), np.int64)
        self._add(payload[new], pos[new], (first[new], remaining[new], size[new]), none)

    def _round(self, active: _Active, k: int) -> None:
        """Read one header of each payload that is active; move on to the next."""
        first, remaining, size = read_headers(self.buffer, active.pos)
        after = active.pos + size
        following = after + remaining
        whole = (after <= active.edge) & (following <= active.limit) & (k <= active.steps)
        whole &= plausible(first, remaining)
        whole &= size > 0
        if not whole.all():
            self._end_walks(active, ~whole, (first, remaining, size), k)
            rows = np.flatnonzero(whole)
            active.keep(rows)
            first, remaining, size = first.take(rows), remaining.take(rows), size.take(rows)
            following = following.take(rows)
        single = np.ones(len(first), np.int64)
        self._add_within_room(active, slice(None), active.pos, (first, remaining, size), single)
        active.pos = following
        going = following < active.limit
        if not going.all():
            # The others landed: that is what a payload's stop and end are from the outset.
            rows = np.flatnonzero(going)
            active.keep(rows)
            if not len(rows):
                return
            first, remaining, size = first.take(rows), remaining.take(rows), size.take(rows)
        code = np.where(size == 2, first.astype(np.int64) << 8 | remaining, -1)
        same = (code == active.previous) & (code >= 0)
        empty = remaining == 0
        pairs = np.flatnonzero(empty & (active.previous & 0xFF == 0))
        active.streak += 1
        active.streak *= same
        active.previous = code
        if len(pairs):
            self._take_pairs(active, pairs)
        runs = np.flatnonzero((active.streak >= _STREAK) & ~empty)
        if len(runs):
            self._leap(active, runs)
        if len(pairs) or len(runs):
            going = active.pos < active.limit
            if not going.all():
                active.keep(np.flatnonzero(going))

    def _end_walks(
        self, active: _Active, rows: BoolArray, header: tuple[U8, I32, I32], k: int
    ) -> None:
        """Say why these payloads' walks end here."""
        first, remaining, size = header[0][rows], header[1][rows], header[2][rows]
        payload, pos = active.payload[rows], active.pos[rows]
        left, seen = active.limit[rows] - pos, active.edge[rows] - pos
        possible = plausible(first, remaining)
        spent = (k > active.steps[rows]) & possible & (size + remaining <= left)
        stop = np.full(len(payload), Stop.CUT, np.uint8)
        stop[~possible] = Stop.IMPLAUSIBLE
        stop[spent] = Stop.BUDGET
        stop[size == 0] = Stop.MALFORMED
        short = np.where(size > 0, size, 5) > seen
        stop[short] = np.where(seen < left, Stop.LOST, Stop.CUT)[short]
        self.stop[payload] = stop
        self.end[payload] = pos - self.offset[payload]
        rest = stop == Stop.BUDGET
        if rest.any():
            # `_join` fills the count in, from the packets and bytes before.
            header = (first[rest], remaining[rest], size[rest])
            none = np.zeros(int(np.count_nonzero(rest)), np.int64)
            self.columns.append((payload[rest], pos[rest], *header, none, none == 0))

    def _finish(self, payload: int, pos: int, most: int) -> None:
        """Walk the rest of one payload, at most so many headers, in a plain loop."""
        start = int(self.offset[payload])
        data = self.buffer[pos : max(start + int(self.captured[payload]), pos)].tobytes()
        found = scan(data, 0, start + int(self.length[payload]) - pos, trusting=False, most=most)
        self.purse.steps -= max(found.cost - _FREE, 0)
        self.stop[payload] = found.stop
        self.end[payload] = pos - start + found.end
        if found.entries:
            table = np.array(found.entries, np.int64)
            header = (table[:, 1].astype(np.uint8), table[:, 2].astype(np.int32))
            self.columns.append(
                (
                    np.full(len(table), payload),
                    table[:, 0] + pos,
                    *header,
                    table[:, 3].astype(np.int32),
                    table[:, 4],
                    table[:, 5].astype(bool),
                )
            )

    def _leap(self, active: _Active, rows: I64) -> None:
        """Where headers were equal for some time, take those equal ones that follow, up to `_LEAP`."""
        pos, code = active.pos[rows], active.previous[rows]
        first, remaining = (code >> 8).astype(np.uint8), code & 0xFF
        period = remaining + 2
        most = np.minimum(
            (active.edge[rows] - 2 - pos) // period + 1, (active.limit[rows] - pos) // period
        )
        at = period[:, None] * np.arange(_LEAP)
        at += pos[:, None]
        np.minimum(at, len(self.buffer) - 2, out=at)
        good = self.buffer.take(at) == first[:, None]
        at += 1
        good &= self.buffer.take(at) == remaining.astype(np.uint8)[:, None]
        length = np.clip(_leading(good), 0, most)
        active.pos[rows] = pos + length * period
        self.purse.steps -= len(rows)
        active.steps[rows] -= np.where(length == 0, _LEAP_STEPS, 1)
        active.streak[rows[length < _LEAP]] = 0
        payload = active.payload[rows]
        own = np.clip(self.room[payload] // 3 - active.used[rows], 0, length)
        active.used[rows] += own
        header = (first, remaining.astype(np.int32), np.full(len(rows), 2, np.int32))
        each = np.repeat(np.arange(len(rows)), own)
        nth = np.arange(len(each)) - np.repeat(np.cumsum(own) - own, own)
        single = np.ones(len(each), np.int64)
        columns = (header[0][each], header[1][each], header[2][each])
        self._add(payload[each], pos[each] + nth * period[each], columns, single)
        rest = np.flatnonzero(length > own)
        header = (header[0][rest], header[1][rest], header[2][rest])
        pos = (pos + own * period)[rest]
        self._add_within_room(active, rows[rest], pos, header, (length - own)[rest])

    def _take_pairs(self, active: _Active, rows: I64) -> None:
        """Where two two-byte packets stood, take all that follow in windows."""
        for width in _WINDOWS:
            block = max(_WINDOW_BLOCK_BYTES // width, 1)
            full = [
                self._window(active, rows[a : a + block], width) for a in range(0, len(rows), block)
            ]
            going = np.concatenate(full)
            self.purse.steps -= len(rows) * (1 + width // _WINDOW_PURSE_BYTES)
            active.steps[rows[~going]] -= width // _WINDOW_STEP_BYTES
            rows = rows[going]
            if not len(rows):
                return

    def _window(self, active: _Active, rows: I64, width: int) -> BoolArray:
        """Take the two-byte packets in the next `width` bytes; True where the window was full of them."""
        pos = active.pos[rows]
        room = np.minimum(active.limit[rows], active.edge[rows]) - pos
        room = np.clip(room, 0, width) // 2
        pair = gather(self.buffer, pos, width).view("<u2")
        # PINGREQ, PINGRESP, DISCONNECT or AUTH with flags 0 and nothing after: C0 00, D0 00, E0 00, F0 00.
        length = _leading((pair & 0xFF0F == 0) & (pair >= 0xC0))
        np.minimum(length, room, out=length)
        same = np.minimum(_leading(pair == pair[:, :1]), length)
        uniform = np.flatnonzero((same == length) & (length > 0))
        self._add_empty(active, rows[uniform], pos[uniform], pair[uniform, 0], length[uniform])
        mixed = np.flatnonzero(same < length)
        if len(mixed):
            part = pair[mixed]
            part[np.arange(width // 2) >= length[mixed, None]] = 0
            for value in (0xC0, 0xD0, 0xE0, 0xF0):
                hits = part == value
                count = np.count_nonzero(hits, axis=1)
                has = np.flatnonzero(count)
                at = pos[mixed[has]] + 2 * hits[has].argmax(axis=1)
                self._add_empty(active, rows[mixed[has]], at, np.full(len(has), value), count[has])
        active.pos[rows] = pos + 2 * length
        full: BoolArray = length == width // 2
        return full

    def _add_empty(
        self, active: _Active, rows: I64, pos: I64, first: NDArray[Any], count: I64
    ) -> None:
        """Two-byte packets, `count` together."""
        none = np.zeros(len(rows), np.int32)
        header = (first.astype(np.uint8), none, none + 2)
        self._add_within_room(active, rows, pos, header, count.astype(np.int64))

    def _join(self, base: int) -> Walk:
        """All entries, and the counts that had to wait for the end of the walk."""
        if not self.columns:
            none = np.zeros(0, np.int64)
            small = np.zeros(0, np.int32)
            self._add(none, none, (none.astype(np.uint8), small, small), none)
        columns = [np.concatenate(c) for c in zip(*self.columns, strict=True)]
        payload, _, first, _, _, count, extrapolated = columns
        if self.together is not None:
            waiting = np.flatnonzero((count == 0) & ~extrapolated)
            count[waiting] = self.together[payload[waiting] << 8 | first[waiting]]
        n = len(self.offset)
        packets = np.bincount(payload, weights=count, minlength=n).astype(np.int64)
        guess = np.flatnonzero(extrapolated & (count == 0))
        if len(guess):
            which = payload[guess]
            rest = (self.length - self.end)[which]
            count[guess] = np.maximum(rest * packets[which] // np.maximum(self.end[which], 1), 1)
            packets[which] += count[guess]
        if base:
            columns[0] = payload + base
        walked = Walk(self.stop, self.end, packets, *columns)
        if len(self.columns) == 1:
            return walked
        return walked.only(sorted_places(payload, n.bit_length()))


def sorted_places(values: I64, bits: int) -> I64:
    """The stable order of values of so many bits: packed above their places, which sorts fastest."""
    place_bits = len(values).bit_length()
    if bits + place_bits > 32:
        wide = values << place_bits
        wide |= np.arange(len(values))
        wide.sort()
        wide &= (1 << place_bits) - 1
        return wide
    packed = values.astype(np.uint32)
    packed <<= np.uint32(place_bits)
    packed |= np.arange(len(values), dtype=np.uint32)
    packed.sort()
    packed &= np.uint32((1 << place_bits) - 1)
    return packed.astype(np.int64)


def _leading(good: BoolArray) -> I64:
    """How many True each row begins with; (n,)."""
    count: I64 = good.argmin(axis=1)
    count[good[:, 0] & (count == 0)] = good.shape[1]
    return count
