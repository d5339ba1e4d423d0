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

from agent.features.claims import ANNOUNCEMENT, CONTRADICTION, TWO_WAY, UNASKED, ClaimBook
from agent.features.frames import ASK, Claims, Frames
from agent.features.hosts import HostTable, Slots
from agent.features.ip_schema import CLASSES, MQTT_CLASSES
from agent.features.sliding import Tally
from agent.records import MqttTable, MqttType

if TYPE_CHECKING:
    from agent.records import I64, U8

SEGMENT_ROWS = 1 << 14
_ROW_BITS = 14
SLOT_BITS = 13
LINK_BITS = 18
MAC_BITS = 48

FRAME_SUMS = (
    *CLASSES,
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
_CLAIM_FLAGS = (UNASKED, CONTRADICTION, TWO_WAY, ANNOUNCEMENT)
SUMS = (*FRAME_SUMS, *MQTT_SUMS, *CLAIM_SUMS)
MAXES = ("size_max", "gap_max", "mqtt_keep_alive_max")
_SUM = {name: i for i, name in enumerate(SUMS)}
_N_CLASSES = len(CLASSES)
_MQTT_AT = len(FRAME_SUMS)
_CLAIM_AT = _MQTT_AT + len(MQTT_SUMS)

MAX_GAP_US = 60_000_000
"""Longest gap that counts: the long horizon. Squares of microseconds of 60 s stay below 2^63, of ns not."""

_MQTT_LUT: U8 = np.zeros(256, np.uint8)
for _type, _name in (
    (MqttType.CONNECT, "mqtt_connect"),
    (MqttType.CONNACK, "mqtt_connack"),
    (MqttType.PUBLISH, "mqtt_publish"),
    (MqttType.SUBSCRIBE, "mqtt_subscribe"),
    (MqttType.PINGREQ, "mqtt_ping"),
    (MqttType.PINGRESP, "mqtt_ping"),
    (MqttType.DISCONNECT, "mqtt_disconnect"),
):
    _MQTT_LUT[_type] = MQTT_CLASSES.index(_name)


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


def _edges(values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n,) True where a run of equal values begins."""
    out = np.empty(len(values), np.bool_)
    out[:1] = True
    np.not_equal(values[1:], values[:-1], out=out[1:])
    return out


def add_side(side: int, segment: Segment, hosts: HostTable, last_clock: I64) -> None:
    """Frames of each host on one side: classes, sizes, gaps. `last_clock`: (2, hosts), -1 unknown."""
    slot, peer = (segment.src, segment.dst) if side == 0 else (segment.dst, segment.src)
    rows = np.flatnonzero(slot < hosts.max_hosts)
    if not len(rows):
        return
    key = (slot[rows] << _ROW_BITS | rows).astype(np.int32)
    key.sort()
    order = (key & (SEGMENT_ROWS - 1)).astype(np.intp)
    who = (key >> _ROW_BITS).astype(np.int64)
    new_host = _edges(who)
    first = np.flatnonzero(new_host)
    here = who[first]
    if segment.one_slice:
        starts = first
        bit = segment.bit[:1]
    else:
        of_row = segment.bit[order]
        starts = np.flatnonzero(new_host | _edges(of_row))
        bit = of_row[starts]
    slots = who[starts]
    lengths = np.diff(starts, append=len(order))
    window = slice(segment.start, segment.stop)
    frames = segment.frames

    part = np.empty((len(starts), len(FRAME_SUMS)), np.int64)
    run = np.repeat(np.arange(len(starts)) * _N_CLASSES, lengths)
    run += frames.frame_class[window][order]
    weight = None if frames.all_single else frames.weight[window][order]
    part[:, :_N_CLASSES] = np.bincount(
        run, weights=weight, minlength=len(starts) * _N_CLASSES
    ).reshape(-1, _N_CLASSES)
    at = _N_CLASSES
    sums = frames.sums[:, window][:, order]
    part[:, at : at + 4] = np.add.reduceat(sums[:4], starts, axis=1).T
    is_folded = peer[order] == hosts.folded
    part[:, at + 4] = np.add.reduceat(sums[4] * is_folded, starts) if is_folded.any() else 0

    gap, unknown = _gaps(segment.clock[order], first, here, last_clock[side])
    part[:, at + 5] = lengths
    part[np.searchsorted(starts, first[unknown]), at + 5] -= 1
    part[:, at + 6] = np.add.reduceat(gap, starts)
    part[:, at + 7] = np.add.reduceat(gap * gap, starts)
    part[:, at + 8] = 0
    if side == 0:
        changes = _mac_changes(frames.src_mac[window][order], first, here, hosts)
        if changes is not None:
            part[:, at + 8] = np.add.reduceat(changes, starts)
    maxes = np.zeros((len(starts), len(MAXES)), np.int64)
    maxes[:, 0] = np.maximum.reduceat(frames.size[window][order], starts)
    maxes[:, 1] = np.maximum.reduceat(gap, starts)
    hosts.seen[side, here] = True
    for number, target in enumerate(segment.slices):
        if segment.one_slice:
            if bit[0] == number:
                _scatter(target, side, slots, part, maxes, hosts)
        else:
            chosen = bit == number
            if chosen.any():
                _scatter(target, side, slots[chosen], part[chosen], maxes[chosen], hosts)


def _gaps(
    clock: I64, first: NDArray[np.intp], here: Slots, last_clock: I64
) -> tuple[I64, NDArray[np.bool_]]:
    """(n,) whole microseconds since the host's frame before; per host, whether it had none before."""
    before = np.empty(len(clock), np.int64)
    before[1:] = clock[:-1]
    before[first] = last_clock[here]
    unknown = last_clock[here] < 0
    gap = (clock - before) // 1000
    np.minimum(gap, MAX_GAP_US, out=gap)
    gap[first[unknown]] = 0
    ends = np.append(first[1:], len(clock)) - 1
    last_clock[here] = clock[ends]
    return gap, unknown


def _mac_changes(
    mac: NDArray[np.uint64], first: NDArray[np.intp], here: Slots, hosts: HostTable
) -> I64 | None:
    """(n,) 1 where a host's frame comes from another MAC than its frame before; None where none does."""
    before = np.empty(len(mac), np.uint64)
    before[1:] = mac[:-1]
    known = hosts.mac[here]
    before[first] = np.where(known != 0, known, mac[first])
    hosts.mac[here] = mac[np.append(first[1:], len(mac)) - 1]
    changed = mac != before
    return changed.astype(np.int64) if changed.any() else None


def _scatter(
    target: OpenSlice, side: int, slots: Slots, part: I64, maxes: I64, hosts: HostTable
) -> None:
    """Add runs to their hosts; a host has two runs where late frames mix with those of the next slice."""
    width = part.shape[1]
    if len(slots) > 1 and (slots[1:] == slots[:-1]).any():
        np.add.at(target.sums[side, :, :width], slots, part)
        np.maximum.at(target.maxes[side], slots, maxes)
    else:
        target.sums[side, slots, :width] += part
        target.maxes[side, slots] = np.maximum(target.maxes[side, slots], maxes)
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
    starts = np.flatnonzero(_edges(codes))
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


def add_mqtt(segment: Segment, mqtt: MqttTable, hosts: HostTable) -> None:
    """MQTT control packets, for the host that sent them and the one that received them."""
    a, b = np.searchsorted(mqtt.row, (segment.start, segment.stop))
    if a == b:
        return
    row = mqtt.row[a:b] - segment.start
    count = mqtt.count[a:b].astype(np.int64)
    kind = _MQTT_LUT[mqtt.packet_type[a:b]]
    code = mqtt.code[a:b]
    refused = (kind == MQTT_CLASSES.index("mqtt_connack")) & (code > 0)
    kind = np.where(refused, np.uint8(MQTT_CLASSES.index("mqtt_refused")), kind)
    subscribes = kind == MQTT_CLASSES.index("mqtt_subscribe")
    kind[subscribes & mqtt.wildcard[a:b]] = MQTT_CLASSES.index("mqtt_wildcard")
    publish = kind == MQTT_CLASSES.index("mqtt_publish")
    length = np.maximum(mqtt.remaining_len[a:b], 0)
    extra = np.empty((4, len(row)), np.int64)
    extra[0] = _edges(row)
    extra[1] = length * count * publish
    extra[2] = count * (publish & (mqtt.flags[a:b] & 8 != 0))
    extra[3] = count * (mqtt.violation[a:b] != 0)
    connects = np.flatnonzero(kind == MQTT_CLASSES.index("mqtt_connect"))
    keep_alive = np.maximum(mqtt.keep_alive_s[a:b][connects], 0)
    bit = segment.bit[row]
    for side, column in enumerate((segment.src, segment.dst)):
        slot = column[row]
        for number, target in enumerate(segment.slices):
            chosen = (slot < hosts.max_hosts) & (bit == number)
            if not chosen.any():
                continue
            all_chosen = bool(chosen.all())
            pick = slice(None) if all_chosen else chosen
            _add_mqtt(target, side, slot[pick], kind[pick], count[pick], extra[:, pick])
            wanted = chosen[connects]
            np.maximum.at(target.maxes[side, :, 2], slot[connects][wanted], keep_alive[wanted])


def _add_mqtt(
    target: OpenSlice, side: int, slot: Slots, kind: NDArray[np.uint8], count: I64, extra: I64
) -> None:
    """One side, one slice: bincount by host."""
    mark = np.zeros(len(target.active), np.int64)
    mark[slot] = 1
    here = np.flatnonzero(mark)
    mark[here] = np.arange(len(here))
    at = mark[slot]
    n = len(here)
    width = len(MQTT_CLASSES)
    part = np.empty((n, len(MQTT_SUMS)), np.int64)
    part[:, :width] = np.bincount(at * width + kind, weights=count, minlength=n * width).reshape(
        n, width
    )
    for i, column in enumerate(extra):
        part[:, width + i] = np.bincount(at, weights=column, minlength=n) if column.any() else 0
    target.sums[side, here, _MQTT_AT : _MQTT_AT + len(MQTT_SUMS)] += part


def add_claims(segment: Segment, claims: Claims, book: ClaimBook, hosts: HostTable) -> None:
    """ARP and ND, frame by frame; left-out frames (no host on either side) teach nothing."""
    a, b = np.searchsorted(claims.row, (segment.start, segment.stop))
    if a == b:
        return
    row = claims.row[a:b] - segment.start
    columns = (
        segment.src[row],
        segment.dst[row],
        segment.bit[row],
        segment.clock[row],
        claims.op[a:b],
        claims.mac[a:b],
        claims.sender_hi[a:b],
        claims.sender_lo[a:b],
        claims.target_hi[a:b],
        claims.target_lo[a:b],
    )
    for src, dst, bit, clock, op, mac, s_hi, s_lo, t_hi, t_lo in zip(
        *(c.tolist() for c in columns), strict=True
    ):
        if src == dst == hosts.none:
            continue
        sender, target = s_hi << 64 | s_lo, t_hi << 64 | t_lo
        if op == ASK:
            flags = book.ask(clock, sender, mac, target)
        else:
            flags = book.claim(clock, sender, mac, target)
        into = segment.slices[bit]
        if src < hosts.max_hosts and sender:
            into.claimed.append(src << MAC_BITS | mac)
            if flags & (CONTRADICTION | TWO_WAY):
                into.rivals[src] = mac
        for i, flag in enumerate(_CLAIM_FLAGS if flags else ()):
            if flags & flag:
                for side, slot in ((0, src), (1, dst)):
                    if slot < hosts.max_hosts:
                        into.sums[side, slot, _CLAIM_AT + i] += 1
