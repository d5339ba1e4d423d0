"""A closed slice as rows: raw integer columns per active host, then the features of the schema.

`Memory` holds what outlives a slice: sums and sets over 60 slices. `close` turns an open slice into a
`Block` of raw integers; `matrix` divides and rounds many blocks at once. It never looks at a frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agent.features.frames import ASK, REFUSAL, RESOLVE, SERVICE
from agent.features.hosts import HostTable, Slots
from agent.features.ip_schema import SCHEMA, SIDES, SPECS, Spec
from agent.features.slices import (
    FRAME_SUMS,
    LINK_BITS,
    MAC_BITS,
    MAXES,
    SLOT_BITS,
    SUMS,
    OpenSlice,
)
from agent.features.sliding import SlidingSet, SlidingSums, sorted_unique
from agent.records import FeatureMatrix, Subjects

if TYPE_CHECKING:
    from agent.records import F32, I64, U64

SLICE_NS = 1_000_000_000

_FLAGS = ("active", "mixed_macs")
"""Per slice 0 or 1, summed over 60 slices."""
_RAW_60 = {c.removesuffix("_60") for s in SPECS for c in (*s.top, *s.bottom) if c.endswith("_60")}
LONG_SUMS = tuple(c for c in SUMS if any(f"{side}_{c}" in _RAW_60 for side in SIDES))
_LONG_AT = [SUMS.index(c) for c in LONG_SUMS]
_SHORT_SETS = (
    "out_peers",
    "in_peers",
    "out_new_peers",
    "in_new_peers",
    "out_arp_targets",
    "out_services",
    "in_services",
    "out_services_one_peer",
    "in_services_one_peer",
    "out_refused_services",
    "in_refused_services",
)
_SERVICE_SETS = _SHORT_SETS[5:]
_LONG_SETS = (
    "out_peers",
    "in_peers",
    "out_unanswered_peers",
    "in_unanswered_peers",
    "out_arp_targets",
    "out_arp_unanswered",
    *_SERVICE_SETS,
    "arp_macs",
    "arp_mac_addresses",
)
RAW = (
    *(f"{side}_{c}" for side in SIDES for c in SUMS),
    *(f"{side}_{c}" for side in SIDES for c in MAXES),
    *_SHORT_SETS,
    *(f"{side}_{c}_60" for side in SIDES for c in LONG_SUMS),
    *(f"{side}_active_60" for side in SIDES),
    "mixed_macs_60",
    *(f"{c}_60" for c in _LONG_SETS),
)
"""Names of the raw columns, in the order of a block's rows."""
_RAW_INDEX = {name: i for i, name in enumerate(RAW)}
_N_SUMS, _N_LONG = len(SUMS), len(LONG_SUMS)
_PACKETS = slice(0, FRAME_SUMS.index("bytes"))

_SLOT_MASK = (1 << SLOT_BITS) - 1


@dataclass(slots=True, frozen=True, kw_only=True)
class Block:
    """Rows of one slice: raw (len(RAW), r) int64, and their subjects."""

    number: int
    raw: I64
    subjects: Subjects


class Memory:
    """What the last 60 slices hold."""

    def __init__(self, max_hosts: int, max_codes: int) -> None:
        self.max_hosts = max_hosts
        self.sums = SlidingSums(max_hosts, 2 * _N_LONG + 3)
        self.pairs = SlidingSet(max_codes)
        self.services = SlidingSet(max_codes)
        self.macs = SlidingSet(max_codes)

    def forget(self, gone: Slots) -> None:
        """Forget the hosts whose slots were freed."""
        if not len(gone):
            return
        dead = np.zeros(1 << SLOT_BITS, np.bool_)
        dead[gone] = True
        self.sums.forget(gone)
        low, high, _ = _pair_parts(self.pairs.codes)
        self.pairs.forget(dead[low] | dead[high])
        src, dst = _ends(self.services.codes)
        self.services.forget(dead[src] | dead[dst])
        self.macs.forget(dead[self.macs.codes >> MAC_BITS])


def _ends(codes: I64) -> tuple[I64, I64]:
    """Source and destination slot of link codes."""
    both = codes >> LINK_BITS
    return both >> SLOT_BITS, both & _SLOT_MASK


def _pair_codes(src: I64, dst: I64, link: I64) -> I64:
    """Pairs so that the two halves of an exchange differ in the last bit only.

    `low slot, high slot, what, who asked, answer`: for IP packets the two directions are each other's
    answer; for ARP and ND the answer to a request is a claim told to who asked.
    """
    resolve = link >> 16 == RESOLVE
    swapped = src > dst
    answer = link & 0xFFFF != ASK
    asker = swapped ^ answer  # whether the asker is the higher slot
    last = np.where(resolve, 4 | asker << 1 | answer, swapped)
    return (np.minimum(src, dst) << SLOT_BITS | np.maximum(src, dst)) << 3 | last


def _pair_parts(codes: I64) -> tuple[I64, I64, I64]:
    """Lower slot, higher slot, last three bits."""
    both = codes >> 3
    return both >> SLOT_BITS, both & _SLOT_MASK, codes & 7


class _Pairs:
    """Pair codes (ascending, unique) taken apart."""

    def __init__(self, codes: I64) -> None:
        low, high, last = _pair_parts(codes)
        self.ip = last < 2
        swapped = np.where(self.ip, last & 1, (last >> 1 ^ last) & 1) == 1
        self.src = np.where(swapped, high, low)
        self.dst = np.where(swapped, low, high)
        self.asks = (last & 5) == 4
        answered = np.zeros(len(codes), np.bool_)
        twins = np.flatnonzero((codes[:-1] ^ 1) == codes[1:])
        answered[twins] = answered[twins + 1] = True
        self.answered = answered


def _count(slots: I64, n: int) -> I64:
    return np.bincount(slots, minlength=n)


def _runs(values: I64) -> tuple[I64, I64]:
    """Runs of equal values: the values, and how long each run is."""
    if not len(values):
        return values, values
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    return values[starts], np.diff(starts, append=len(values))


def _service_sets(codes: I64, n: int) -> list[I64]:
    """Per host the six counts of `_SERVICE_SETS`, from link codes (ascending, unique)."""
    what = (codes >> 16) & 3
    served = codes[what == SERVICE]
    src, dst = _ends(served)
    own_ports = np.sort(dst << 16 | served & 0xFFFF)
    one = np.zeros((2, n), np.int64)
    pair, length = _runs(served >> LINK_BITS)
    np.maximum.at(one[0], pair >> SLOT_BITS, length)
    np.maximum.at(one[1], pair & _SLOT_MASK, length)
    refuser, refused = _ends(codes[what == REFUSAL])
    return [
        _count(src, n),
        _count(sorted_unique(own_ports) >> 16, n),
        one[0],
        one[1],
        _count(refuser, n),
        _count(refused, n),
    ]


def _mac_sets(codes: I64, n: int) -> list[I64]:
    """Per host: MACs that claimed it; most addresses claimed by one of them."""
    slot = codes >> MAC_BITS
    addresses = np.zeros(n, np.int64)
    if len(codes):
        _, at, counts = np.unique(
            codes & ((1 << MAC_BITS) - 1), return_inverse=True, return_counts=True
        )
        np.maximum.at(addresses, slot, counts[at])
    return [_count(slot, n), addresses]


def _top(key: I64, value: I64, packets: I64, n: int) -> tuple[I64, I64]:
    """Per key the value with the most packets (the first of equals), -1 none; and its packets."""
    best = np.zeros(n, np.int64)
    np.maximum.at(best, key, packets)
    winners = np.flatnonzero(packets == best[key])[::-1]
    out = np.full(n, -1, np.int64)
    out[key[winners]] = value[winners]
    return out, best


def close(window: OpenSlice, hosts: HostTable, memory: Memory) -> Block:
    """The rows of a slice, for its active hosts in the order of their addresses; the memory moves on."""
    n = hosts.max_hosts
    rows = np.flatnonzero(window.active)
    rows = rows[np.lexsort((hosts.lo[rows], hosts.hi[rows]))]
    number = window.number
    raw = np.empty((len(RAW), len(rows)), np.int64)
    sums = window.sums[:, rows]
    at = 2 * _N_SUMS
    raw[:_N_SUMS], raw[_N_SUMS:at] = sums[0].T, sums[1].T
    for side in (0, 1):
        raw[at : at + len(MAXES)] = window.maxes[side, rows].T
        at += len(MAXES)

    codes, packets = window.links.codes, window.links.packets
    src, dst = _ends(codes)
    pair_codes = _pair_codes(src, dst, codes & ((1 << LINK_BITS) - 1))
    order = np.argsort(pair_codes, kind="stable")
    pair_codes, first = np.unique(pair_codes[order], return_index=True)
    pair_packets = np.add.reduceat(packets[order], first) if len(first) else np.zeros(0, np.int64)
    is_new = memory.pairs.see(number, pair_codes)
    pairs = _Pairs(pair_codes)
    short = [
        _count(pairs.src[pairs.ip], n),
        _count(pairs.dst[pairs.ip], n),
        _count(pairs.src[pairs.ip & is_new], n),
        _count(pairs.dst[pairs.ip & is_new], n),
        _count(pairs.src[pairs.asks], n),
        *_service_sets(codes, n),
    ]
    at = _fill(raw, at, short, rows)

    flags = np.empty((len(rows), 3), np.int64)
    flags[:, :2] = (sums[:, :, _PACKETS].sum(axis=2) > 0).T
    flags[:, 2] = sums[0, :, SUMS.index("mac_changes")] > 0
    long = np.concatenate([sums[0][:, _LONG_AT], sums[1][:, _LONG_AT], flags], axis=1)
    memory.sums.push(number, rows, long, hosts.admitted)
    raw[at : at + long.shape[1]] = memory.sums.totals[rows].T
    at += long.shape[1]

    what = (codes >> 16) & 3
    memory.services.see(number, codes[(what == SERVICE) | (what == REFUSAL)])
    memory.macs.see(number, np.unique(np.array(window.claimed, np.int64)))
    _fill(raw, at, _long_sets(memory, n), rows)
    subjects = _subjects(window, hosts, rows, pairs, pair_packets)
    return Block(number=number, raw=raw, subjects=subjects)


def _long_sets(memory: Memory, n: int) -> list[I64]:
    """Per host the counts of `_LONG_SETS`."""
    pairs = _Pairs(memory.pairs.codes)
    lone = ~pairs.answered
    return [
        _count(pairs.src[pairs.ip], n),
        _count(pairs.dst[pairs.ip], n),
        _count(pairs.src[pairs.ip & lone], n),
        _count(pairs.dst[pairs.ip & lone], n),
        _count(pairs.src[pairs.asks], n),
        _count(pairs.src[pairs.asks & lone], n),
        *_service_sets(memory.services.codes, n),
        *_mac_sets(memory.macs.codes, n),
    ]


def _fill(raw: I64, at: int, columns: list[I64], rows: I64) -> int:
    """Put per-host columns into a block from row `at` on; the row after them."""
    for column in columns:
        raw[at] = column[rows]
        at += 1
    return at


def _subjects(
    window: OpenSlice, hosts: HostTable, rows: I64, pairs: _Pairs, packets: I64
) -> Subjects:
    """Whom the rows are about, and the context that alerts need."""
    n = hosts.max_hosts
    ip = pairs.ip
    src, dst, packets = pairs.src[ip], pairs.dst[ip], packets[ip]
    in_peer, in_packets = _top(dst, src, packets, n)
    out_peer, out_packets = _top(src, dst, packets, n)
    codes = window.links.codes
    served = (codes >> 16) & 3 == SERVICE
    port = codes[served] & 0xFFFF
    ends = _ends(codes[served])
    in_port, out_port = (
        _top_port(end, port, window.links.packets[served], n) for end in (ends[1], ends[0])
    )
    new = hosts.admitted[src] == window.number
    folded = window.sums[1, :, SUMS.index("folded")]
    rival = np.zeros(n, np.uint64)
    for slot, mac in window.rivals.items():
        rival[slot] = mac

    def address(of: I64, half: U64) -> U64:
        slots = of[rows]
        return np.where(slots >= 0, half[slots], np.uint64(0))

    return Subjects(
        hi=hosts.hi[rows],
        lo=hosts.lo[rows],
        mac=hosts.mac[rows],
        in_peer_hi=address(in_peer, hosts.hi),
        in_peer_lo=address(in_peer, hosts.lo),
        in_peer_packets=in_packets[rows],
        out_peer_hi=address(out_peer, hosts.hi),
        out_peer_lo=address(out_peer, hosts.lo),
        out_peer_packets=out_packets[rows],
        in_port=in_port[rows].astype(np.int32),
        out_port=out_port[rows].astype(np.int32),
        in_new_sources=(_count(dst[new], n) + folded)[rows],
        rival_mac=rival[rows],
    )


def _top_port(slot: I64, port: I64, packets: I64, n: int) -> I64:
    """Per host the port with the most packets, the lowest of equals; -1 none."""
    key = slot << 16 | port
    order = np.argsort(key, kind="stable")
    unique, first = np.unique(key[order], return_index=True)
    if not len(unique):
        return np.full(n, -1, np.int64)
    return _top(unique >> 16, unique & 0xFFFF, np.add.reduceat(packets[order], first), n)[0]


_SINGLE = [
    (i, _RAW_INDEX[s.top[0]]) for i, s in enumerate(SPECS) if s.dtype == "count" and len(s.top) == 1
]
_SINGLE_AT = [i for i, _ in _SINGLE]
_SINGLE_FROM = [j for _, j in _SINGLE]
_COMPOSED = [(i, s) for i, s in enumerate(SPECS) if s.dtype != "count" or len(s.top) > 1]


def _sum(raw: I64, names: tuple[str, ...]) -> I64:
    if len(names) == 1:
        column: I64 = raw[_RAW_INDEX[names[0]]]
        return column
    out: I64 = raw[[_RAW_INDEX[name] for name in names]].sum(axis=0)
    return out


def _compose(raw: I64, spec: Spec) -> F32:
    """(r,) one feature: whole numbers, one float64 division or root, one rounding to float32."""
    if spec.dtype == "count":
        return _sum(raw, spec.top).astype(np.float32)
    n = _sum(raw, spec.bottom)
    defined = n > 0
    divisor = np.where(defined, n, 1)
    if spec.dtype == "ratio":
        top = _sum(raw, spec.top)
    else:
        squares, total = (raw[_RAW_INDEX[name]] for name in spec.top)
        mean = total // divisor  # whole: then the sum of squares about it is whole too
        top = squares - 2 * mean * total + n * mean * mean
    value = top.astype(np.float64) / divisor.astype(np.float64)
    if spec.dtype == "root":
        value = np.sqrt(value)
    return np.where(defined, value, 0.0).astype(np.float32)


def matrix(blocks: list[Block]) -> FeatureMatrix:
    """Many blocks as one feature matrix, in their order."""
    raw = (
        np.concatenate([b.raw for b in blocks], axis=1)
        if blocks
        else np.zeros((len(RAW), 0), np.int64)
    )
    values = np.empty((raw.shape[1], len(SPECS)), np.float32)
    values[:, _SINGLE_AT] = raw[_SINGLE_FROM].T
    for i, spec in _COMPOSED:
        values[:, i] = _compose(raw, spec)
    numbers = np.repeat(
        np.array([b.number for b in blocks], np.int64), [b.raw.shape[1] for b in blocks]
    )
    return FeatureMatrix(
        schema=SCHEMA,
        values=values,
        subjects=_join([b.subjects for b in blocks]),
        start_ns=numbers * SLICE_NS,
        end_ns=(numbers + 1) * SLICE_NS,
    )


_SUBJECT_TYPES = {
    "hi": np.uint64,
    "lo": np.uint64,
    "mac": np.uint64,
    "in_peer_hi": np.uint64,
    "in_peer_lo": np.uint64,
    "in_peer_packets": np.int64,
    "out_peer_hi": np.uint64,
    "out_peer_lo": np.uint64,
    "out_peer_packets": np.int64,
    "in_port": np.int32,
    "out_port": np.int32,
    "in_new_sources": np.int64,
    "rival_mac": np.uint64,
}


def _join(parts: list[Subjects]) -> Subjects:
    return Subjects(
        **{
            name: np.concatenate([getattr(p, name) for p in parts]) if parts else np.zeros(0, dtype)
            for name, dtype in _SUBJECT_TYPES.items()
        }
    )
