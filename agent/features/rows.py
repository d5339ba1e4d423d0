"""A closed slice as rows: raw integer columns per active host, then the features of the schema.

`Memory` holds what outlives a slice: sums and sets over 60 slices. `close` turns an open slice into a
`Block` of raw integers; `matrix` divides and rounds many blocks at once. It never looks at a frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agent.features.frames import SERVICE
from agent.features.hosts import HostTable, Slots
from agent.features.ip_schema import SCHEMA, SIDES, SPECS, Spec
from agent.features.links import LONG_COUNTS, SHORT_COUNTS, Links, Pairs, ends
from agent.features.slices import MAXES, SUMS, OpenSlice
from agent.features.sliding import SlidingSums
from agent.records import FeatureMatrix, Subjects

if TYPE_CHECKING:
    from agent.records import F32, I64, U64

SLICE_NS = 1_000_000_000

_RAW_60 = {c.removesuffix("_60") for s in SPECS for c in (*s.top, *s.bottom) if c.endswith("_60")}
LONG_SUMS = tuple(c for c in SUMS if any(f"{side}_{c}" in _RAW_60 for side in SIDES))
_LONG_AT = np.array([SUMS.index(c) for c in LONG_SUMS])
RAW = (
    *(f"{side}_{c}" for side in SIDES for c in SUMS),
    *(f"{side}_{c}" for side in SIDES for c in MAXES),
    *SHORT_COUNTS,
    *(f"{side}_{c}_60" for side in SIDES for c in LONG_SUMS),
    *(f"{side}_active_60" for side in SIDES),
    "mixed_macs_60",
    *(f"{c}_60" for c in LONG_COUNTS),
)
"""Names of the raw columns of a block."""
_RAW_INDEX = {name: i for i, name in enumerate(RAW)}


@dataclass(slots=True, frozen=True, kw_only=True)
class Block:
    """Rows of one slice: raw (r, len(RAW)) int64, and their subjects."""

    number: int
    raw: I64
    subjects: Subjects


class Memory:
    """What the last 60 slices hold."""

    def __init__(self, max_hosts: int, max_codes: int) -> None:
        self.sums = SlidingSums(max_hosts, 2 * len(LONG_SUMS) + 3)
        self.links = Links(max_hosts, max_codes)

    def forget(self, gone: Slots) -> None:
        """Forget the hosts whose slots were freed."""
        self.sums.forget(gone)
        self.links.forget(gone)


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
    rows = np.flatnonzero(window.active)
    rows = rows[np.lexsort((hosts.lo[rows], hosts.hi[rows]))]
    number = window.number
    sums, maxes = window.sums[:, rows], window.maxes[:, rows]
    short = memory.links.close(number, window.links.codes, window.claimed)
    flags = np.empty((len(rows), 3), np.int64)
    flags[:, :2] = (sums[:, :, SUMS.index("packets")] > 0).T
    flags[:, 2] = sums[0, :, SUMS.index("mac_changes")] > 0
    long = np.concatenate([*sums[:, :, _LONG_AT], flags], axis=1)
    memory.sums.push(number, rows, long, hosts.since)
    raw = np.concatenate(
        [
            *sums,
            *maxes,
            np.stack([c[rows] for c in short], axis=1),
            memory.sums.totals[rows],
            np.stack([c[rows] for c in memory.links.long()], axis=1),
        ],
        axis=1,
    )
    return Block(number=number, raw=raw, subjects=_subjects(window, hosts, rows, memory.links))


def _subjects(window: OpenSlice, hosts: HostTable, rows: I64, links: Links) -> Subjects:
    """Whom the rows are about, and the context that alerts need."""
    n = hosts.max_hosts
    codes, link_packets = window.links.codes, window.links.packets
    pair_codes, starts = Pairs.code(codes)
    ip = np.flatnonzero(pair_codes & 4 == 0)
    src, dst = ends(codes[starts[ip]])
    packets = np.add.reduceat(link_packets, starts)[ip] if len(ip) else link_packets[:0]
    in_peer, in_packets = _top(dst, src, packets, n)
    out_peer, out_packets = _top(src, dst, packets, n)
    served = np.flatnonzero(codes >> 16 & 3 == SERVICE)
    port = codes[served] & 0xFFFF
    client, server = ends(codes[served])
    in_port, out_port = (_top_port(end, port, link_packets[served], n) for end in (server, client))
    probed = _top(*links.probed(), n)[0]
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
        in_new_sources=(np.bincount(dst[new], minlength=n) + folded)[rows],
        rival_mac=rival[rows],
        probed_hi=address(probed, hosts.hi),
        probed_lo=address(probed, hosts.lo),
    )


def _top_port(slot: I64, port: I64, packets: I64, n: int) -> I64:
    """Per host the port with the most packets, the lowest of equals; -1 none."""
    key = slot << 16 | port
    order = np.argsort(key, kind="stable")
    unique, first = np.unique(key[order], return_index=True)
    if not len(unique):
        return np.full(n, -1, np.int64)
    return _top(unique >> 16, unique & 0xFFFF, np.add.reduceat(packets[order], first), n)[0]


_COMPOSED = tuple(s for s in SPECS if s.dtype != "count" or len(s.top) > 1)
_POOL = {name: i for i, name in enumerate((*RAW, *(s.name for s in _COMPOSED)))}
_PICK = np.array([_POOL[s.name if s in _COMPOSED else s.top[0]] for s in SPECS])
"""Where each feature stands among raw and composed columns."""


def _sum(raw: I64, names: tuple[str, ...]) -> I64:
    out = raw[:, _RAW_INDEX[names[0]]]
    for name in names[1:]:
        out = out + raw[:, _RAW_INDEX[name]]
    return out


def _compose(raw: I64, spec: Spec) -> F32:
    """(r,) one feature: whole numbers, one float64 division or root, one rounding to float32."""
    if spec.dtype == "count":
        return _sum(raw, spec.top).astype(np.float32)
    n = _sum(raw, spec.bottom)
    divisor = np.maximum(n, 1)
    if spec.dtype == "ratio":
        top = _sum(raw, spec.top)
    else:
        squares, total = (raw[:, _RAW_INDEX[name]] for name in spec.top)
        mean = total // divisor  # whole: then the sum of squares about it is whole too
        top = squares - 2 * mean * total + n * mean * mean
    value = top / divisor  # int64 by int64 is one float64 division
    value[n == 0] = 0.0
    if spec.dtype == "root":
        np.sqrt(value, out=value)
    return value.astype(np.float32)


def matrix(blocks: list[Block]) -> FeatureMatrix:
    """Many blocks as one feature matrix, in their order."""
    raw = np.concatenate([b.raw for b in blocks]) if blocks else np.zeros((0, len(RAW)), np.int64)
    pool = np.empty((len(raw), len(_POOL)), np.float32)
    pool[:, : len(RAW)] = raw
    for i, spec in enumerate(_COMPOSED, start=len(RAW)):
        pool[:, i] = _compose(raw, spec)
    numbers = np.repeat(
        np.array([b.number for b in blocks], np.int64), [len(b.raw) for b in blocks]
    )
    return FeatureMatrix(
        schema=SCHEMA,
        values=pool.take(_PICK, axis=1),
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
    "probed_hi": np.uint64,
    "probed_lo": np.uint64,
}


def _join(parts: list[Subjects]) -> Subjects:
    return Subjects(
        **{
            name: np.concatenate([getattr(p, name) for p in parts]) if parts else np.zeros(0, dtype)
            for name, dtype in _SUBJECT_TYPES.items()
        }
    )
