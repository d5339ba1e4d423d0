"""Where MQTT control packets start, in many TCP payloads at once, each walked as if it began with one.

Round k reads the k-th header of every payload that still has one; the last few payloads are walked one by
one. Runs of two-byte packets are taken in one look. The cost of a payload is bounded by its length, whatever it
contains: at most `16 + length / 4` headers are walked, and at most `64 + length / 48` packets become entries of
their own; further ones are counted together by first byte (the remaining length and body of the first stand for
them), and what lies past the last header walked is estimated and marked.

It never decides whether a payload does begin with a control packet: `mqtt_follow` and `mqtt` compare the ends
with TCP's sequence numbers. It reads no byte past a payload's captured ones but to throw it away.

In: `offset` (n,) int64 into `buffer`, `length` (n,) bytes on the wire, `captured` (n,) of these in the buffer.
Out: `Walk`. Raises: nothing. Remembers: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from agent.decode.gather import gather
from agent.decode.mqtt_header import (
    LEAST_BODY_LIST,
    MOST_BODY_LIST,
    plausible,
    read_headers,
)

if TYPE_CHECKING:
    from agent.records import I32, I64, U8, BoolArray

_FEW = 24
"""Below this many payloads a Python loop is cheaper than numpy's calls (about 30 calls a round)."""
_CHUNK_BYTES = 4 << 20
"""Payload bytes walked at a time; bounds the entries in memory to about 30 MB at the very worst."""
_WINDOWS = (32, 1536)
"""Bytes looked at for a run of two-byte packets: first few, then many once the few were all of one run."""
_WINDOW_STEP_BYTES = 8
"""Bytes of a window that cost as much as walking one header."""
_LOOK = 64
"""Periods looked ahead at first when a run of equal packets is found in a single payload."""


class Stop(IntEnum):
    """Why a walk ended; `Walk.end` says where."""

    LANDED = 0  # exactly at the payload's end
    CUT = 1  # a packet begins there and goes on past the payload's end
    IMPLAUSIBLE = 2  # what stands there cannot be a header
    LOST = 3  # the next header lies in bytes that were not captured
    MALFORMED = 4  # a fifth length byte
    BUDGET = 5  # too many headers; the rest is estimated


class Entry(NamedTuple):
    """One control packet, or `count` with the same first byte, `at` bytes into a payload."""

    at: int
    first: int
    remaining: int
    size: int
    packets: int
    extrapolated: bool


@dataclass(slots=True, frozen=True)
class Walk:
    """What was found: (n,) per payload, (m,) per entry, entries ordered by payload and position."""

    stop: U8
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
    extrapolated: BoolArray


def max_headers(length: int) -> int:
    """Headers walked in a payload of this length; two-byte runs aside, a packet has four bytes or more."""
    return 16 + length // 4


def max_entries(length: int) -> int:
    """Entries of their own in a payload of this length."""
    return 64 + length // 48


def scan(data: bytes, at: int, length: int, *, trusting: bool) -> tuple[list[Entry], Stop, int]:
    """Walk one payload of `length` bytes, of which `data` was captured, from `at`: entries, why and where it ended.

    `trusting` goes on past headers that are against the protocol but still say their length: right for a flow
    that is in step.
    """
    captured = len(data)
    entries: list[Entry] = []
    together: dict[int, Entry] = {}
    headers = max_headers(length - at)
    room = max_entries(length - at)
    begin = at
    look = _LOOK
    previous = (-1, -1)
    n_packets = 0
    stop = Stop.LANDED
    while at < length:
        first, remaining, size = header_at(data, at)
        if size <= 0:
            if size < 0:
                stop = Stop.MALFORMED
            else:
                stop = Stop.CUT if captured == length else Stop.LOST
            break
        if not trusting and not LEAST_BODY_LIST[first] <= remaining <= MOST_BODY_LIST[first]:
            stop = Stop.IMPLAUSIBLE
            break
        following = at + size + remaining
        if following > length:
            stop = Stop.CUT
            break
        headers -= 1
        if headers < 0:
            stop = Stop.BUDGET
            guess = max((length - at) * n_packets // max(at - begin, 1), 1)
            entries.append(Entry(at, first, remaining, size, guess, extrapolated=True))
            break
        count = 1
        if (first, remaining) == previous and size == 2:
            count, look = _run(data, at, length, look)
            headers -= count // 32
            following = at + count * (2 + remaining)
        previous = (first, remaining)
        n_packets += count
        singles = min(count, max(room - len(entries), 0)) if remaining else 0
        if remaining == 0 and len(entries) < room:
            entries.append(Entry(at, first, 0, size, count, extrapolated=False))
            count = 0
        for k in range(singles):
            entries.append(
                Entry(at + k * (size + remaining), first, remaining, size, 1, extrapolated=False)
            )
        if count > singles:
            here = Entry(
                at + singles * (size + remaining), first, remaining, size, 0, extrapolated=False
            )
            known = together.get(first, here)
            together[first] = known._replace(packets=known.packets + count - singles)
        at = following
    if together:
        entries = sorted([*entries, *together.values()])
    return entries, stop, at


def header_at(data: bytes, at: int) -> tuple[int, int, int]:
    """First byte, remaining length, header size at `at`; size 0: the data ends inside it, -1: a fifth length byte."""
    n = len(data)
    if at + 2 > n:
        return 0, 0, 0
    first = data[at]
    value = data[at + 1]
    if value < 128:
        return first, value, 2
    value &= 127
    for k in (2, 3, 4):
        if at + k >= n:
            return first, 0, 0
        byte = data[at + k]
        value |= (byte & 127) << 7 * (k - 1)
        if byte < 128:
            return first, value, k + 1
    return first, 0, -1


def _run(data: bytes, at: int, length: int, look: int) -> tuple[int, int]:
    """How many packets with the same two header bytes follow each other from `at`, at least 1; and the next look.

    The look ahead grows only while it is all of one run, so its cost stays in proportion to what it finds.
    """
    period = 2 + data[at + 1]
    most = min(look, (length - at) // period, (len(data) - at - 2) // period + 1)
    window = np.frombuffer(data, np.uint8, offset=at, count=(most - 1) * period + 2)
    odd = np.flatnonzero((window[::period] != data[at]) | (window[1::period] != data[at + 1]))
    if len(odd):
        return max(int(odd[0]), 1), _LOOK
    return max(most, 1), min(look * 4, 1 << 16)


def walk(buffer: U8, offset: I64, length: I64, captured: I64) -> Walk:
    """Walk every payload from its first byte, as if a control packet began there."""
    n = len(offset)
    parts = [
        _walk_chunk(buffer, offset[a:b], length[a:b], captured[a:b], a)
        for a, b in _chunks(captured)
    ]
    if not parts:
        parts = [_walk_chunk(buffer, offset, length, captured, 0)]
    if len(parts) == 1:
        return parts[0]
    assert sum(len(p.stop) for p in parts) == n
    return Walk(*(np.concatenate([getattr(p, name) for p in parts]) for name in Walk.__slots__))


def _chunks(captured: I64) -> list[tuple[int, int]]:
    """Ranges of payloads of about `_CHUNK_BYTES` captured bytes each."""
    if not len(captured):
        return []
    total = np.cumsum(captured)
    cuts = np.searchsorted(total, np.arange(_CHUNK_BYTES, int(total[-1]), _CHUNK_BYTES)) + 1
    edges = np.unique(np.concatenate(([0], cuts, [len(captured)])))
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))


class _Found:
    """Entries as they are found: a list of column tuples, joined at the end."""

    def __init__(self, n: int) -> None:
        self.stop = np.zeros(n, np.uint8)
        self.end = np.zeros(n, np.int64)
        self.packets = np.zeros(n, np.int64)
        self.columns: list[tuple[I64, I64, U8, I32, I32, I64, BoolArray]] = []

    def add(self, payload: I64, pos: I64, first: U8, remaining: I32, size: I32) -> None:
        m = len(payload)
        self.columns.append(
            (payload, pos, first, remaining, size, np.ones(m, np.int64), np.zeros(m, bool))
        )

    def add_counted(self, payload: I64, pos: I64, first: U8, count: I64) -> None:
        """Two-byte packets, `count` together."""
        m = len(payload)
        empty = np.zeros(m, np.int32)
        self.columns.append((payload, pos, first, empty, empty + 2, count, np.zeros(m, bool)))

    def add_entries(self, payload: int, start: int, entries: list[Entry]) -> None:
        if not entries:
            return
        at, first, remaining, size, count, extrapolated = zip(*entries, strict=True)
        self.columns.append(
            (
                np.full(len(at), payload, np.int64),
                np.array(at, np.int64) + start,
                np.array(first, np.uint8),
                np.array(remaining, np.int32),
                np.array(size, np.int32),
                np.array(count, np.int64),
                np.array(extrapolated, bool),
            )
        )


def _walk_chunk(buffer: U8, offset: I64, length: I64, captured: I64, base: int) -> Walk:
    n = len(offset)
    found = _Found(n)
    payload = np.arange(n)
    pos = offset.astype(np.int64)
    limit = pos + length
    edge = pos + captured
    steps = 16 + length // 4
    was_empty = np.zeros(
        n, np.uint8
    )  # how many two-byte packets came just before; 2: a full window
    empty_payload = pos >= limit
    if empty_payload.any():
        keep = ~empty_payload
        payload, pos, limit, edge, steps = (c[keep] for c in (payload, pos, limit, edge, steps))
        was_empty = was_empty[keep]
    k = 0
    while len(payload) > _FEW:
        k += 1
        first, remaining, size = read_headers(buffer, pos)
        following = pos + size + remaining
        whole = (size > 0) & (pos + size <= edge) & (following <= limit)
        whole &= plausible(first, remaining) & (k <= steps)
        if not whole.all():
            bad = np.flatnonzero(~whole)
            _stop(
                found,
                payload[bad],
                pos[bad] - offset[payload[bad]],
                limit[bad] - pos[bad],
                edge[bad] - pos[bad],
                (first[bad], remaining[bad], size[bad]),
                k > steps[bad],
                offset,
            )
            payload, pos, limit, edge, steps, was_empty, first, remaining, size, following = (
                c[whole]
                for c in (
                    payload, pos, limit, edge, steps, was_empty, first, remaining, size, following
                )
            )  # fmt: skip
        found.add(payload, pos, first, remaining, size)
        pos = following
        empty = remaining == 0
        runs = np.flatnonzero(empty & (was_empty > 0) & (pos + _WINDOWS[0] // 4 <= limit))
        was_empty = empty.astype(np.uint8)
        if len(runs):
            _take_runs(buffer, found, runs, (payload, pos, limit, edge, steps, was_empty))
        active = pos < limit
        if not active.all():
            done = payload[~active]
            found.stop[done] = Stop.LANDED
            found.end[done] = length[done]
            payload, pos, limit, edge, steps, was_empty = (
                c[active] for c in (payload, pos, limit, edge, steps, was_empty)
            )
    for i, p, left in zip(payload.tolist(), pos.tolist(), (limit - pos).tolist(), strict=True):
        data = (
            buffer[p : int(offset[i] + captured[i])].tobytes()
            if offset[i] + captured[i] > p
            else b""
        )
        entries, stop, end = scan(data, 0, left, trusting=False)
        found.add_entries(i, p, entries)
        found.stop[i] = stop
        found.end[i] = p - offset[i] + end
    return _join(found, length, base)


def _stop(
    found: _Found,
    payload: I64,
    at: I64,
    left: I64,
    seen: I64,
    header: tuple[U8, I32, I32],
    spent: BoolArray,
    offset: I64,
) -> None:
    """Say why these payloads' walks end `at`; `left` bytes remain, `seen` of them captured."""
    first, remaining, size = header
    cut_header = np.where(size > 0, size, 5) > seen
    # A malformed length is one only where all its five bytes are there.
    stop = np.where(size == 0, Stop.MALFORMED, Stop.CUT)
    stop = np.where((size > 0) & ~plausible(first, remaining), Stop.IMPLAUSIBLE, stop)
    budget = spent & (size > 0) & (size + remaining <= left) & plausible(first, remaining)
    stop = np.where(budget, Stop.BUDGET, stop)
    stop = np.where(cut_header, np.where(seen < left, Stop.LOST, Stop.CUT), stop)
    found.stop[payload] = stop
    found.end[payload] = at
    rest = np.flatnonzero(stop == Stop.BUDGET)
    if len(rest):
        # `_join` fills the count in, from the packets and bytes before.
        found.columns.append(
            (
                payload[rest],
                offset[payload[rest]] + at[rest],
                first[rest],
                remaining[rest],
                size[rest],
                np.zeros(len(rest), np.int64),
                np.ones(len(rest), bool),
            )
        )


def _take_runs(
    buffer: U8, found: _Found, runs: I64, state: tuple[I64, I64, I64, I64, I64, U8]
) -> None:
    """Where two two-byte packets stood, take all that follow in a window; moves `pos` on in place."""
    payload, pos, limit, edge, steps, was_empty = state
    steps[runs] -= 1
    for width in _WINDOWS:
        block = max(_CHUNK_BYTES // 4 // width, 1)
        going = [
            _window(buffer, found, runs[a : a + block], state, width)
            for a in range(0, len(runs), block)
        ]
        full = np.concatenate(going)
        steps[runs[~full]] -= width // _WINDOW_STEP_BYTES
        runs = runs[full]
        if not len(runs):
            return
    # Still all of one run: the next round reads one header, then looks again.
    was_empty[runs] = 1
    del payload, limit, edge


def _window(
    buffer: U8,
    found: _Found,
    rows: I64,
    state: tuple[I64, I64, I64, I64, I64, U8],
    width: int,
) -> BoolArray:
    """Take the two-byte packets in the next `width` bytes of `rows`; True where the window was full of them."""
    payload, pos, limit, edge, _, _ = state
    room = np.minimum(np.minimum(limit[rows], edge[rows]) - pos[rows], width) // 2
    pair = gather(buffer, pos[rows], width).view("<u2")
    # PINGREQ, PINGRESP, DISCONNECT or AUTH with flags 0 and nothing after: C0 00, D0 00, E0 00, F0 00.
    good = (pair & 0xFF0F == 0) & (pair >= 0xC0)
    length = _leading(good)
    np.minimum(length, room, out=length)
    same = np.minimum(_leading(pair == pair[:, :1]), length)
    uniform = np.flatnonzero((same == length) & (length > 0))
    found.add_counted(
        payload[rows[uniform]],
        pos[rows[uniform]],
        pair[uniform, 0].astype(np.uint8),
        length[uniform],
    )
    mixed = np.flatnonzero(same < length)
    if len(mixed):
        part = pair[mixed]
        part[np.arange(width // 2) >= length[mixed, None]] = 0
        for value in (0xC0, 0xD0, 0xE0, 0xF0):
            hits = part == value
            count = np.count_nonzero(hits, axis=1)
            has = np.flatnonzero(count)
            where = pos[rows[mixed[has]]] + 2 * hits[has].argmax(axis=1)
            found.add_counted(
                payload[rows[mixed[has]]], where, np.full(len(has), value, np.uint8), count[has]
            )
    pos[rows] += 2 * length
    full: BoolArray = (length == room) & (room == width // 2)
    return full


def _leading(good: BoolArray) -> I64:
    """How many True each row begins with; (n,)."""
    first_bad = good.argmin(axis=1)
    first_bad[good[:, 0] & (first_bad == 0)] = good.shape[1]
    return first_bad


def _join(found: _Found, length: I64, base: int) -> Walk:
    """Entries by payload and position, with those past a payload's share counted together."""
    n = len(length)
    if not found.columns:
        none = np.zeros(0, np.int64)
        return Walk(found.stop, found.end, found.packets, none, none, np.zeros(0, np.uint8),
                    np.zeros(0, np.int32), np.zeros(0, np.int32), none, np.zeros(0, bool))  # fmt: skip
    columns = [np.concatenate(c) for c in zip(*found.columns, strict=True)]
    payload, pos, first, remaining, size, count, extrapolated = columns
    entries = np.bincount(payload, minlength=n)
    found.packets[:] = np.bincount(payload, weights=count, minlength=n).astype(np.int64)
    guess = np.flatnonzero(extrapolated & (count == 0))
    if len(guess):
        which = payload[guess]
        rest = (length - found.end)[which]
        count[guess] = np.maximum(rest * found.packets[which] // np.maximum(found.end[which], 1), 1)
    order = _order(payload)
    if int(entries.max(initial=0)) > 64:
        start = np.cumsum(entries) - entries
        rank = np.arange(len(order)) - start[payload[order]]
        over = rank >= (64 + length // 48)[payload[order]]
        if over.any():
            order, count = _together(order, over, payload, first, count, extrapolated)
    payload, pos, first, remaining, size, count, extrapolated = (
        c[order] for c in (payload, pos, first, remaining, size, count, extrapolated)
    )
    return Walk(
        found.stop, found.end, found.packets, payload + base, pos, first, remaining, size, count,
        extrapolated,
    )  # fmt: skip


def _order(payload: I64) -> I64:
    """The stable order by payload: its number above the row's, sorted as one integer."""
    bits = max(len(payload) - 1, 1).bit_length()
    packed = payload << bits
    packed |= np.arange(len(payload))
    packed.sort()
    packed &= (1 << bits) - 1
    return packed


def _together(
    order: I64, over: BoolArray, payload: I64, first: U8, count: I64, extrapolated: BoolArray
) -> tuple[I64, I64]:
    """Leave one entry per payload and first byte of those that are `over`; it carries their counts."""
    excess = order[over]
    key = payload[excess] << 9 | first[excess].astype(np.int64) << 1 | extrapolated[excess]
    _, index, inverse = np.unique(key, return_index=True, return_inverse=True)
    total = np.bincount(inverse, weights=count[excess]).astype(np.int64)
    kept = excess[index]
    count = count.copy()
    count[kept] = total
    order = np.concatenate((order[~over], kept))
    return order[_order(payload[order])], count
