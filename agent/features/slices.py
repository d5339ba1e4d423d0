"""Frames of a piece, grouped by slice, host and side: classes, sizes, gaps, and who addressed whom.

A piece is at most 16,384 frames within 32 slices whose hosts are already slots. It is grouped by one integer
sort and reduced; all sums are int64, or float64 of whole numbers below 2^53, so the order of addition
cannot matter. Gaps and changes of MAC are between a host's frames as they came, whatever their slice.

It never looks at an address, and never keeps a frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agent.features.classes import CLASSES, FRAME_GROUPS, MQTT_CLASSES, MQTT_GROUPS
from agent.features.frames import Frames
from agent.features.hosts import HostTable, Slots
from agent.features.ip_schema import SPECS
from agent.features.links import LINK_BITS
from agent.features.sliding import Tally
from agent.features.sums import SLICE_SHIFT, SLOT_BITS, KeyedSums, Rows, edges

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.records import I64, U64

PIECE_ROWS = 1 << 14
_ROW_BITS = 14
PIECE_SLICES = 32
"""5 bits of slice + 44 of link + 14 of row fill the 63 bits of a sort key."""
_CODE_BITS = 2 * SLOT_BITS + LINK_BITS

_USED = {c.split("_", 1)[1].removesuffix("_60") for s in SPECS for c in (*s.top, *s.bottom)}


def _summed(
    classes: tuple[str, ...], groups: Mapping[str, tuple[str, ...]]
) -> dict[str, list[int]]:
    """The classes that features use by themselves, then the groups: the columns of each, which classes add up."""
    alone = {c: [i] for i, c in enumerate(classes) if c in _USED}
    return alone | {name: [classes.index(c) for c in group] for name, group in groups.items()}


FRAME_CLASSES = _summed(CLASSES, FRAME_GROUPS)
FRAME_SUMS = (
    *FRAME_CLASSES,
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
FRAME_MAXES = ("size_max", "gap_max")
MQTT_KINDS = _summed(MQTT_CLASSES, MQTT_GROUPS)
MQTT_SUMS = (*MQTT_KINDS, "mqtt_frames", "mqtt_publish_bytes", "mqtt_dup", "mqtt_violation")
MQTT_MAXES = ("mqtt_keep_alive_max",)
CLAIM_SUMS = ("arp_unasked", "arp_contradiction", "arp_two_way", "arp_announcement")
SUMS = (*FRAME_SUMS, *MQTT_SUMS, *CLAIM_SUMS)
MAXES = (*FRAME_MAXES, *MQTT_MAXES)

MAX_GAP_US = 60_000_000
"""Longest gap that counts: the long horizon. Squares of microseconds of 60 s stay below 2^63, of ns not."""


class Arrivals:
    """Of each host the frame before: (2 * max_hosts,) its event time, out then in, -1 none; its MAC, 0 none."""

    def __init__(self, max_hosts: int) -> None:
        self.clock = np.full(2 * max_hosts, -1, np.int64)
        self.mac = np.zeros(max_hosts, np.uint64)

    def forget(self, slots: Slots) -> None:
        """Forget the hosts whose slots were freed."""
        self.clock.reshape(2, -1)[:, slots] = -1
        self.mac[slots] = 0


@dataclass(slots=True, kw_only=True)
class Piece:
    """At most 16,384 frames of a batch within 32 slices."""

    frames: Frames
    start: int
    stop: int
    src: Slots
    dst: Slots
    """(n,) slots; `hosts.none` where a frame has no host on that side or is left out."""
    clock: I64
    """(n,) the latest event time seen up to each frame [ns]."""
    base: int
    """The first slice."""
    number: I64
    """(n,) each frame's slice, counted from `base`."""
    one_slice: bool
    """All frames are of one slice."""


@dataclass(slots=True, kw_only=True)
class _Runs:
    """Frames sorted by side, host and order, cut where the host or the slice changes."""

    order: NDArray[np.intp]
    """(m,) row in the piece."""
    first: NDArray[np.intp]
    """Where a (side, host) begins."""
    here: Slots
    """Of each (side, host) its index `side * max_hosts + slot`."""
    starts: NDArray[np.intp]
    """Where a run begins."""
    keys: I64
    """Of each run its key in the sums."""
    n_out: int
    """How many of the m are on the out side; they come first."""


def _runs(piece: Piece, max_hosts: int) -> _Runs | None:
    """One integer sort groups both sides: `side, slot, row`."""
    out = np.flatnonzero(piece.src < max_hosts)
    into = np.flatnonzero(piece.dst < max_hosts)
    if not len(out) and not len(into):
        return None
    slots = np.concatenate([piece.src[out], piece.dst[into] + max_hosts])
    key = slots << _ROW_BITS | np.concatenate([out, into])
    key = key.astype(np.int32)  # 1 + 13 + 14 bits: half the width sorts twice as fast
    key.sort()
    order = (key & (PIECE_ROWS - 1)).astype(np.intp)
    index = key >> _ROW_BITS
    edge = edges(index)
    first = np.flatnonzero(edge)
    if piece.one_slice:
        starts = first
        number = piece.number[:1]
    else:
        of_row = piece.number.take(order)
        starts = np.flatnonzero(edge | edges(of_row))
        number = of_row[starts]
    who = index[starts].astype(np.int64)
    side = who >= max_hosts
    return _Runs(
        order=order,
        first=first,
        here=index[first].astype(np.int64),
        starts=starts,
        keys=(number + piece.base << SLICE_SHIFT) | (who - side * max_hosts) << 1 | side,
        n_out=len(out),
    )


def add_hosts(piece: Piece, hosts: HostTable, arrivals: Arrivals, sums: KeyedSums) -> None:
    """Frames of each host on either side, into `sums` (columns FRAME_SUMS, FRAME_MAXES; last: the MAC)."""
    runs = _runs(piece, hosts.max_hosts)
    if runs is None:
        return
    frames = piece.frames
    window = slice(piece.start, piece.stop)
    order, starts = runs.order, runs.starts
    n = len(starts)
    ends = np.append(starts[1:], len(order))
    lengths = ends - starts
    part = np.zeros((len(FRAME_SUMS), n + 1), np.int64)
    part_rows = part[:, :n]
    run = frames.frame_class[window].take(order) * np.int64(n)
    run += np.repeat(np.arange(n), lengths)
    weight = None if frames.all_single else frames.weight[window].take(order)
    counts = np.bincount(run, weights=weight, minlength=n * len(CLASSES))
    add_classes(counts.reshape(len(CLASSES), n), FRAME_CLASSES, part_rows)
    at = len(FRAME_CLASSES)
    for name, column in zip(FRAME_SUMS[at:], frames.sums[:, window], strict=False):
        if name == "packets" and frames.all_single:
            part_rows[at] = lengths
        elif column.any():
            np.add.reduceat(column.take(order), starts, out=part_rows[at])
        at += 1
    folded_out, folded_in = piece.dst == hosts.folded, piece.src == hosts.folded
    if folded_out.any() or folded_in.any():
        folded = np.where(np.arange(len(order)) < runs.n_out, folded_out[order], folded_in[order])
        folded = folded if weight is None else weight * folded
        part_rows[at] = np.add.reduceat(folded.astype(np.int64), starts)
    gap, unknown = _gaps(piece.clock.take(order), runs, arrivals)
    part_rows[at + 1] = lengths
    part[at + 1, np.searchsorted(starts, runs.first[unknown])] -= 1
    np.add.reduceat(gap, starts, out=part_rows[at + 2])
    np.add.reduceat(gap * gap, starts, out=part_rows[at + 3])
    macs = _macs(frames.src_mac[window], runs, arrivals, part_rows[at + 4])
    maxes = np.zeros((len(FRAME_MAXES), n + 1), np.int64)
    np.maximum.reduceat(frames.size[window].take(order), starts, out=maxes[0, :n])
    np.maximum.reduceat(gap, starts, out=maxes[1, :n])
    hosts.seen.reshape(-1)[runs.here] = True
    slots = runs.keys >> 1 & ((1 << SLOT_BITS) - 1)
    np.maximum.at(hosts.last, slots, runs.keys >> SLICE_SHIFT)
    sums.add(Rows(runs.keys, part, maxes, macs))


def add_classes(counts: NDArray[Any], columns: dict[str, list[int]], out: I64) -> None:
    """Counts by class as the columns of `_summed`, into the first rows of `out`."""
    for to, classes in zip(out, columns.values(), strict=False):
        to[:] = counts[classes[0]]
        for i in classes[1:]:
            np.add(to, counts[i], out=to, casting="unsafe")


def _gaps(clock: I64, runs: _Runs, arrivals: Arrivals) -> tuple[I64, NDArray[np.bool_]]:
    """(m,) whole microseconds since the host's frame before; per host, whether it had none before."""
    first, here = runs.first, runs.here
    before = np.empty(len(clock), np.int64)
    before[1:] = clock[:-1]
    last = arrivals.clock[here]
    before[first] = last
    unknown = last < 0
    gap = (clock - before) // 1000
    np.minimum(gap, MAX_GAP_US, out=gap)
    gap[first[unknown]] = 0
    arrivals.clock[here] = clock[np.append(first[1:], len(clock)) - 1]
    return gap, unknown


def _macs(mac: U64, runs: _Runs, arrivals: Arrivals, changes: I64) -> U64:
    """Of each run the MAC of its last frame (0 on the in side); in `changes`, how often it changed."""
    last = np.zeros(len(runs.starts), np.uint64)
    n = runs.n_out
    if not n:
        return last
    n_first = int(np.searchsorted(runs.first, n))
    n_starts = int(np.searchsorted(runs.starts, n))
    first, here, starts = runs.first[:n_first], runs.here[:n_first], runs.starts[:n_starts]
    mac = mac.take(runs.order[:n])
    before = np.empty(n, np.uint64)
    before[1:] = mac[:-1]
    before[first] = arrivals.mac[here]
    arrivals.mac[here] = mac[np.append(first[1:], n) - 1]
    last[:n_starts] = mac[np.append(starts[1:], n) - 1]
    changed = (mac != before) & (before != 0)
    if changed.any():
        changes[:n_starts] = np.add.reduceat(changed.astype(np.int64), starts)
    return last


def add_links(piece: Piece, hosts: HostTable, tally_of: Callable[[int], Tally]) -> None:
    """Which host addressed which, as what: codes `src, dst, what, port` with their packets, by slice."""
    src, dst = piece.src, piece.dst
    rows = np.flatnonzero((src < hosts.max_hosts) & (dst < hosts.max_hosts) & (src != dst))
    if not len(rows):
        return
    frames = piece.frames
    key = src[rows] << SLOT_BITS | dst[rows]
    if not piece.one_slice:
        key |= piece.number[rows] << 2 * SLOT_BITS
    key <<= LINK_BITS
    key |= frames.link[piece.start : piece.stop][rows]
    key <<= _ROW_BITS
    key |= rows
    key.sort()
    order = key & (PIECE_ROWS - 1)
    codes = key >> _ROW_BITS
    starts = np.flatnonzero(edges(codes))
    if frames.all_single:
        packets = np.append(starts[1:], len(order)) - starts
    else:
        packets = np.add.reduceat(frames.weight[piece.start : piece.stop][order], starts)
    codes, first_row = codes[starts], order[starts]
    if piece.one_slice:
        tally_of(piece.base + int(piece.number[0])).add(codes, packets, first_row)
        return
    number = codes >> _CODE_BITS
    bounds = np.append(np.flatnonzero(edges(number)), len(codes)).tolist()
    for a, b in pairwise(bounds):
        n = int(number[a])
        tally_of(piece.base + n).add(codes[a:b] - (n << _CODE_BITS), packets[a:b], first_row[a:b])
