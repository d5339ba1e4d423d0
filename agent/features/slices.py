"""Open slices: sums per host and side, added to as frames come, in any cut.

Each function takes one segment of at most 16,384 frames whose hosts are already slots, groups it by one
integer sort, and adds the groups to the slice that each frame belongs to (at most two are open). All sums
are int64, or float64 of whole numbers below 2^53, so the order of addition cannot matter.

It never looks at an address, and never keeps a frame.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from agent.features.frames import Frames
from agent.features.hosts import HostTable, Slots
from agent.features.ip_schema import CLASSES, MQTT_CLASSES
from agent.features.links import LINK_BITS, SLOT_BITS
from agent.features.sliding import Tally

if TYPE_CHECKING:
    from agent.records import I64

SEGMENT_ROWS = 1 << 14
_ROW_BITS = 14

FRAME_SUMS = (
    *CLASSES,
    "packets",
    "bytes",
    "size_squares",
    "payloads",
    "group",
    "folded",
    "gaps",
    "gap_us",
    "gap_squares",
    "mac_changes",
)
MQTT_SUMS = (
    *MQTT_CLASSES,
    "mqtt_frames",
    "mqtt_publish_bytes",
    "mqtt_dup",
    "mqtt_violation",
)
CLAIM_SUMS = ("arp_unasked", "arp_contradiction", "arp_two_way", "arp_announcement")
SUMS = (*FRAME_SUMS, *MQTT_SUMS, *CLAIM_SUMS)
MAXES = ("size_max", "gap_max", "mqtt_keep_alive_max")
_N_CLASSES = len(CLASSES)
MQTT_AT = len(FRAME_SUMS)
CLAIMS_AT = MQTT_AT + len(MQTT_SUMS)

MAX_GAP_US = 60_000_000
"""Longest gap that counts: the long horizon. Squares of microseconds of 60 s stay below 2^63, of ns not."""


class OpenSlice:
    """Sums of one slice: `sums` (2, hosts, len(SUMS)) int64, `maxes` (2, hosts, 3); 0 out, 1 in."""

    def __init__(self, max_hosts: int, max_links: int) -> None:
        self.number = -1
        self.sums = np.zeros((2, max_hosts, len(SUMS)), np.int64)
        self.maxes = np.zeros((2, max_hosts, len(MAXES)), np.int64)
        self.active = np.zeros(max_hosts, np.bool_)
        self.links = Tally(max_links)
        self.claimed: list[int] = []
        """Slot << 48 | MAC of each claim."""
        self.rivals: dict[int, int] = {}
        """Slot to the MAC that contradicts, or that claims two ways."""

    def clear(self, rows: NDArray[np.intp]) -> None:
        """Make it a fresh slice; `rows` are the hosts that were active."""
        self.sums[:, rows] = 0
        self.maxes[:, rows] = 0
        self.active[rows] = False
        self.links = Tally(self.links.max_codes)
        self.claimed = []
        self.rivals = {}
        self.number = -1


@dataclass(slots=True, kw_only=True)
class Segment:
    """At most 16,384 frames of a batch, between two closings of slices."""

    frames: Frames
    start: int
    stop: int
    src: Slots
    dst: Slots
    """(n,) slots; `hosts.none` where a frame has no host on that side or is left out."""
    clock: I64
    """(n,) the latest event time seen up to each frame [ns]."""
    bit: I64
    """(n,) 0 or 1: which of `slices`."""
    slices: tuple[OpenSlice, OpenSlice]
    one_slice: bool = field(init=False)
    """All frames are of one slice."""

    def __post_init__(self) -> None:
        self.one_slice = not len(self.bit) or bool((self.bit == self.bit[0]).all())


def edges(values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n,) True where a run of equal values begins."""
    out = np.empty(len(values), np.bool_)
    out[:1] = True
    np.not_equal(values[1:], values[:-1], out=out[1:])
    return out


@dataclass(slots=True, kw_only=True)
class _Runs:
    """Frames sorted by side, host and order, cut where the host or the slice changes."""

    order: NDArray[np.intp]
    """(m,) row in the segment."""
    first: NDArray[np.intp]
    """Where a (side, host) begins."""
    here: Slots
    """Of each (side, host) its index `side * max_hosts + slot`."""
    starts: NDArray[np.intp]
    """Where a run begins."""
    who: Slots
    """Of each run its index."""
    bit: I64
    """Of each run its slice."""
    n_out: int
    """How many of the m are on the out side; they come first."""


def _runs(segment: Segment, max_hosts: int) -> _Runs | None:
    """One integer sort groups both sides: `side, slot, row`."""
    out = np.flatnonzero(segment.src < max_hosts)
    into = np.flatnonzero(segment.dst < max_hosts)
    if not len(out) and not len(into):
        return None
    slots = np.concatenate([segment.src[out], segment.dst[into] + max_hosts])
    key = slots << _ROW_BITS | np.concatenate([out, into])
    key = key.astype(np.int32)  # 1 + 13 + 14 bits: half the width sorts twice as fast
    key.sort()
    order = (key & (SEGMENT_ROWS - 1)).astype(np.intp)
    index = key >> _ROW_BITS
    edge = edges(index)
    first = np.flatnonzero(edge)
    starts, bit = first, segment.bit[:1]
    if not segment.one_slice:
        of_row = segment.bit[order]
        starts = np.flatnonzero(edge | edges(of_row))
        bit = of_row[starts]
    return _Runs(
        order=order,
        first=first,
        here=index[first].astype(np.int64),
        starts=starts,
        who=index[starts].astype(np.int64),
        bit=bit,
        n_out=len(out),
    )


def add_hosts(segment: Segment, hosts: HostTable, last_clock: I64) -> None:
    """Frames of each host on either side: classes, sizes, gaps.

    `last_clock`: (2 * max_hosts,) event time of each host's frame before, out then in; -1 unknown [ns].
    """
    runs = _runs(segment, hosts.max_hosts)
    if runs is None:
        return
    frames = segment.frames
    window = slice(segment.start, segment.stop)
    order, starts = runs.order, runs.starts
    lengths = np.diff(starts, append=len(order))
    part = np.zeros((len(starts), len(FRAME_SUMS)), np.int64)
    run = np.repeat(np.arange(len(starts)) * _N_CLASSES, lengths)
    run += frames.frame_class[window][order]
    weight = None if frames.all_single else frames.weight[window][order]
    counts = np.bincount(run, weights=weight, minlength=len(starts) * _N_CLASSES)
    part[:, :_N_CLASSES] = counts.reshape(-1, _N_CLASSES)
    at = _N_CLASSES
    n_sums = len(frames.sums)
    part[:, at : at + n_sums] = np.add.reduceat(frames.sums[:, window][:, order], starts, axis=1).T
    at += n_sums
    folded_out, folded_in = segment.dst == hosts.folded, segment.src == hosts.folded
    if folded_out.any() or folded_in.any():
        folded = np.where(np.arange(len(order)) < runs.n_out, folded_out[order], folded_in[order])
        folded = folded if weight is None else weight * folded
        part[:, at] = np.add.reduceat(folded.astype(np.int64), starts)
    gap, unknown = _gaps(segment.clock[order], runs, last_clock)
    part[:, at + 1] = lengths
    part[np.searchsorted(starts, runs.first[unknown]), at + 1] -= 1
    part[:, at + 2] = np.add.reduceat(gap, starts)
    part[:, at + 3] = np.add.reduceat(gap * gap, starts)
    _mac_changes(frames.src_mac[window], runs, hosts, part[:, at + 4])
    maxes = np.zeros((len(starts), len(MAXES)), np.int64)
    maxes[:, 0] = np.maximum.reduceat(frames.size[window][order], starts)
    maxes[:, 1] = np.maximum.reduceat(gap, starts)
    hosts.seen.reshape(-1)[runs.here] = True
    for number, target in enumerate(segment.slices):
        if segment.one_slice:
            if runs.bit[0] == number:
                _scatter(target, runs.who, part, maxes, hosts)
            continue
        chosen = np.flatnonzero(runs.bit == number)
        if len(chosen):
            _scatter(target, runs.who[chosen], part[chosen], maxes[chosen], hosts)


def _gaps(clock: I64, runs: _Runs, last_clock: I64) -> tuple[I64, NDArray[np.bool_]]:
    """(m,) whole microseconds since the host's frame before; per host, whether it had none before."""
    first, here = runs.first, runs.here
    before = np.empty(len(clock), np.int64)
    before[1:] = clock[:-1]
    last = last_clock[here]
    before[first] = last
    unknown = last < 0
    gap = (clock - before) // 1000
    np.minimum(gap, MAX_GAP_US, out=gap)
    gap[first[unknown]] = 0
    last_clock[here] = clock[np.append(first[1:], len(clock)) - 1]
    return gap, unknown


def _mac_changes(mac: NDArray[np.uint64], runs: _Runs, hosts: HostTable, out: I64) -> None:
    """Add up in `out`, per run, where a host's frame comes from another MAC than its frame before."""
    n = runs.n_out
    if not n:
        return
    n_first = int(np.searchsorted(runs.first, n))
    first, here = runs.first[:n_first], runs.here[:n_first]
    mac = mac[runs.order[:n]]
    before = np.empty(n, np.uint64)
    before[1:] = mac[:-1]
    known = hosts.mac[here]
    before[first] = np.where(known != 0, known, mac[first])
    hosts.mac[here] = mac[np.append(first[1:], n) - 1]
    changed = (mac != before) & (before != 0)
    if changed.any():
        starts = runs.starts[: np.searchsorted(runs.starts, n)]
        out[: len(starts)] = np.add.reduceat(changed.astype(np.int64), starts)


def _scatter(target: OpenSlice, who: Slots, part: I64, maxes: I64, hosts: HostTable) -> None:
    """Add runs to their hosts; a host has two runs where late frames mix with those of the next slice."""
    n = hosts.max_hosts
    sums = target.sums.reshape(2 * n, -1)
    largest = target.maxes.reshape(2 * n, -1)
    width = part.shape[1]
    if (who[1:] == who[:-1]).any():
        np.add.at(sums[:, :width], who, part)
        np.maximum.at(largest, who, maxes)
    else:
        sums[who, :width] += part
        largest[who] = np.maximum(largest[who], maxes)
    slots = np.where(who < n, who, who - n)
    target.active[slots] = True
    hosts.last[slots] = np.maximum(hosts.last[slots], target.number)


def add_links(segment: Segment, hosts: HostTable) -> None:
    """Which host addressed which, as what: codes `src, dst, what, port` with their packets."""
    src, dst = segment.src, segment.dst
    rows = np.flatnonzero((src < hosts.max_hosts) & (dst < hosts.max_hosts) & (src != dst))
    if not len(rows):
        return
    frames = segment.frames
    key = src[rows] << SLOT_BITS | dst[rows]
    key <<= LINK_BITS
    key |= frames.link[segment.start : segment.stop][rows]
    if not segment.one_slice:
        key |= segment.bit[rows] << (2 * SLOT_BITS + LINK_BITS)
    key <<= _ROW_BITS
    key |= rows
    key.sort()
    order = key & (SEGMENT_ROWS - 1)
    codes = key >> _ROW_BITS
    starts = np.flatnonzero(edges(codes))
    if frames.all_single:
        packets = np.diff(starts, append=len(order))
    else:
        packets = np.add.reduceat(frames.weight[segment.start : segment.stop][order], starts)
    codes, first_row = codes[starts], order[starts]
    if segment.one_slice:
        segment.slices[int(segment.bit[0])].links.add(codes, packets, first_row)
        return
    top = 1 << (2 * SLOT_BITS + LINK_BITS)
    middle = int(np.searchsorted(codes, top))
    segment.slices[0].links.add(codes[:middle], packets[:middle], first_row[:middle])
    segment.slices[1].links.add(codes[middle:] - top, packets[middle:], first_row[middle:])
