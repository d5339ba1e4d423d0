"""The control packets of one TCP payload, one after the other, in a plain loop.

For the few payloads that numpy's rounds do not pay for, and for those that begin in the middle of a packet. Runs of
packets with equal headers are taken in strided looks, so the cost of a payload is bounded by its length: at most
`max_headers` headers are walked one by one, and at most `max_entries` packets or runs of equal headers become entries
of their own; further ones are counted together by first byte. The remaining length and the body of the first
stand for all that an entry counts. What lies past the last header walked is estimated and marked.

It never judges a packet. In: the captured bytes of a payload, its length on the wire, where to begin.
Out: entries, and why and where the walk ended. Raises: nothing. Remembers: nothing. `Purse` is what walking
many may cost in all, refilled by the frame and by the time of capture: then no content raises the cost of a frame.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from agent.decode.mqtt_header import LEAST_BODY_LIST, MOST_BODY_LIST

_STREAK = 4
"""Equal headers, or packets of two bytes, after which it pays to look for a run of them."""
_LOOK = 512
"""Packets looked ahead at first."""
_LOOK_COST = 16
"""Headers that a look costs as much as walking, where it finds fewer."""
_LOOK_MAX = 1 << 16
_LOOK_STEP = 32
"""Packets of a run that cost as much as walking one header."""


class Stop(IntEnum):
    """Why a walk ended."""

    LANDED = 0  # exactly at the payload's end
    CUT = 1  # a packet begins there and goes on past the payload's end
    IMPLAUSIBLE = 2  # what stands there cannot be a header
    LOST = 3  # the next header lies in bytes that were not captured
    MALFORMED = 4  # a fifth length byte
    BUDGET = 5  # too many headers; the rest is estimated


Entry = tuple[int, int, int, int, int, bool]
"""Where in the payload, first byte, remaining length, bytes of the fixed header, for how many packets with the same
first byte it stands, and whether that number is estimated."""


_EMPTY = (0xC0, 0xD0, 0xE0, 0xF0)
"""First bytes of PINGREQ, PINGRESP, DISCONNECT, AUTH: packets that may have no body."""


def max_headers(length: int) -> int:
    """Headers walked in a payload of this length: but for runs of two bytes, a packet has four or more."""
    return 64 + length // 4


def max_entries(length: int) -> int:
    """Entries of their own in a payload of this length: about five times what an ordinary full segment holds."""
    return 32 + length // 64


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


@dataclass(slots=True)
class Purse:
    """Headers that may still be walked one by one; what is not spent is kept, up to `most`."""

    most: int
    per_segment: int
    per_ms: int
    steps: int = field(init=False)
    newest_ns: int = -1

    def __post_init__(self) -> None:
        """Begin full."""
        self.steps = self.most

    def refill(self, n_segments: int, newest_ns: int) -> None:
        """For the segments of a batch and for the time since the batch before, in the clock of the capture."""
        passed_ns = max(newest_ns - self.newest_ns, 0) if self.newest_ns >= 0 else 0
        self.newest_ns = max(newest_ns, self.newest_ns)
        earned = n_segments * self.per_segment + min(
            passed_ns * self.per_ms // 1_000_000, self.most
        )
        self.steps = min(max(self.steps, 0) + earned, self.most + n_segments * self.per_segment)


@dataclass(slots=True)
class _Entries:
    """Entries found so far; past `room`, packets are counted together by first byte."""

    room: int
    entries: list[Entry] = field(default_factory=list)
    together: dict[int, tuple[int, int, int, int]] = field(default_factory=dict)
    """By first byte: where, remaining length and header size of the first of them, and how many."""

    def add(self, at: int, first: int, remaining: int, size: int, count: int) -> None:
        """`count` packets with equal headers, one after the other."""
        used = len(self.entries)
        period = size + remaining
        if remaining and count > 1:
            own = max(min(count, self.room // 3 - used), 0)
            self.entries += [
                (at + k * period, first, remaining, size, 1, False) for k in range(own)
            ]
            at, count, used = at + own * period, count - own, used + own
        if not count:
            return
        if used < self.room:
            self.entries.append((at, first, remaining, size, count, False))
            return
        begin, remaining, size, before = self.together.get(first, (at, remaining, size, 0))
        self.together[first] = (begin, remaining, size, before + count)

    def all(self) -> list[Entry]:
        """In the order of their first packets."""
        if not self.together:
            return self.entries
        rest = [
            (at, first, remaining, size, count, False)
            for first, (at, remaining, size, count) in self.together.items()
        ]
        return sorted(self.entries + rest)

    def packets(self) -> int:
        """How many control packets that is."""
        return sum(e[4] for e in self.entries) + sum(t[3] for t in self.together.values())


class Scan(NamedTuple):
    """What a walk found."""

    entries: list[Entry]
    stop: Stop
    end: int
    """Bytes into the payload; where the next control packet starts or would."""
    packets: int
    cost: int
    """Headers walked, or what cost as much."""


def scan(data: bytes, at: int, length: int, *, trusting: bool, most: int | None = None) -> Scan:
    """Walk a payload of `length` bytes, of which `data` was captured, from `at`; at most `most` headers.

    `trusting` goes on past headers that are against the protocol but still say their length: right for a flow
    that is in step.
    """
    found = _Entries(max_entries(length - at))
    entries, room = found.entries, found.room
    budget = max_headers(length - at)
    budget = headers = budget if most is None else min(budget, most)
    begin, look, last = at, _LOOK, len(data) - 1
    previous, streak, empties = -1, 0, 0
    stop = Stop.LANDED
    while at < length:
        first = remaining = size = 0
        if at < last:
            first, remaining, size = data[at], data[at + 1], 2
            if remaining > 127:
                first, remaining, size = header_at(data, at)
        following = at + size + remaining
        if (
            size <= 0
            or following > length
            or not (trusting or LEAST_BODY_LIST[first] <= remaining <= MOST_BODY_LIST[first])
        ):
            stop = _why_not(data, length, (first, remaining, size), trusting=trusting)
            break
        headers -= 1
        if headers < 0:
            packets = found.packets()
            guess = max((length - at) * packets // max(at - begin, 1), 1)
            rest = (at, first, remaining, size, guess, True)
            return Scan([*found.all(), rest], Stop.BUDGET, at, packets + guess, budget)
        code = first << 8 | remaining
        streak = streak + 1 if code == previous else 0
        previous = code
        if remaining:
            empties = 0
            count = 1
            if streak >= _STREAK and size == 2:
                count, look, cost = _run(data, at, length, look)
                headers -= cost
                streak = 0 if look == _LOOK else _STREAK
                following = at + count * (2 + remaining)
            if count > 1 or len(entries) >= room:
                found.add(at, first, remaining, size, count)
            else:
                entries.append((at, first, remaining, size, 1, False))
        else:
            empties += 1
            if empties >= _STREAK and first in _EMPTY:
                count, look, cost = _empty_run(data, at, look, found)
                headers -= cost
                empties = 0 if look == _LOOK else _STREAK
                following = at + 2 * count
            else:
                found.add(at, first, 0, size, 1)
        at = following
    return Scan(found.all(), stop, at, found.packets(), budget - max(headers, 0))


def _why_not(data: bytes, length: int, header: tuple[int, int, int], *, trusting: bool) -> Stop:
    """Why no whole packet stands where this header is, or the data end inside a header (size 0)."""
    first, remaining, size = header
    if size < 0:
        return Stop.MALFORMED
    if size == 0:
        return Stop.CUT if len(data) == length else Stop.LOST
    if not trusting and not LEAST_BODY_LIST[first] <= remaining <= MOST_BODY_LIST[first]:
        return Stop.IMPLAUSIBLE
    return Stop.CUT


def _empty_run(data: bytes, at: int, look: int, found: _Entries) -> tuple[int, int, int]:
    """Take the two-byte packets from `at` on, of any mix; how many, at least 1, the next look, and its cost."""
    count = (len(data) - at) // 2
    if data[at : at + 2 * count] == data[at : at + 2] * count:
        found.add(at, data[at], 0, 2, count)
        return count, look, 1
    most = min(look, (len(data) - at) // 2)
    pair = np.frombuffer(data, "<u2", offset=at, count=most)
    odd = np.flatnonzero((pair & 0xFF0F != 0) | (pair < 0xC0))
    pairs = int(odd[0]) if len(odd) else most
    for first in _EMPTY:
        hits = np.flatnonzero(pair[:pairs] == first)
        if len(hits):
            found.add(at + 2 * int(hits[0]), first, 0, 2, len(hits))
        if len(hits) == pairs:
            break
    look = _LOOK if len(odd) else min(look * 4, _LOOK_MAX)
    return pairs, look, max(_LOOK_COST - pairs, pairs // _LOOK_STEP)


def _run(data: bytes, at: int, length: int, look: int) -> tuple[int, int, int]:
    """How many packets with the same two header bytes follow each other from `at`, at least 1; next look; cost.

    The look ahead grows only while it is all of one run, so its cost stays in proportion to what it finds.
    """
    period = 2 + data[at + 1]
    most = min(look, (length - at) // period, (len(data) - at - 2) // period + 1)
    window = np.frombuffer(data, np.uint8, offset=at, count=(most - 1) * period + 2)
    other = (window[::period] != data[at]) | (window[1::period] != data[at + 1])
    odd = np.flatnonzero(other)
    count = max(int(odd[0]) if len(odd) else most, 1)
    look = _LOOK if len(odd) else min(look * 4, _LOOK_MAX)
    return count, look, max(_LOOK_COST - count, count // _LOOK_STEP)
