"""Closed slices as rows: raw integer columns per active host, then the features of the schema.

`Memory` holds what outlives a slice: sums and sets over 60 slices. `close` gathers the slices that close
together as raw integers, column by column, divides and rounds; `matrix` joins what a batch closed. It never
looks at a frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agent.features.hosts import HostTable, Slots
from agent.features.ip_schema import SCHEMA, SIDES, SPECS
from agent.features.links import LONG_COUNTS, SHORT_COUNTS, ClosedLinks, Links, ends
from agent.features.slices import (
    CLAIM_SUMS,
    FRAME_MAXES,
    FRAME_SUMS,
    MAXES,
    MQTT_MAXES,
    MQTT_SUMS,
    SUMS,
)
from agent.features.sliding import SlidingSums
from agent.features.sums import SLICE_SHIFT, SLOT_BITS, SLOT_MASK, Sums, edges, sorted_keys
from agent.records import FeatureMatrix, Subjects

if TYPE_CHECKING:
    from agent.records import F32, I64, U64

SLICE_NS = 1_000_000_000

_RAW_60 = {c.removesuffix("_60") for s in SPECS for c in (*s.top, *s.bottom) if c.endswith("_60")}
LONG_SUMS = tuple(c for c in SUMS if any(f"{side}_{c}" in _RAW_60 for side in SIDES))
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
_LONG_FROM = np.array([_RAW_INDEX[f"{side}_{c}"] for side in SIDES for c in LONG_SUMS])
_ACTIVE_FROM = np.array(
    [_RAW_INDEX[name] for name in ("out_packets", "in_packets", "out_mac_changes")]
)
_N_LONG = len(_LONG_FROM) + len(_ACTIVE_FROM)
_MAXES_AT = 2 * len(SUMS)
_SHORT_AT = _MAXES_AT + 2 * len(MAXES)
_LONG_AT = _SHORT_AT + len(SHORT_COUNTS)
_LONG_COUNTS_AT = _LONG_AT + _N_LONG
_STRIP_ROWS = 256
_VALUE_ROWS = 500
"""Rows that are divided and rounded at a time: their columns, in cache, must not lie a power of two apart."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Block:
    """Rows of some slices, by slice and then by address."""

    values: F32
    """(r, len(SPECS))"""
    number: I64
    """(r,) the slice of each."""
    subjects: Subjects


@dataclass(slots=True, frozen=True, kw_only=True)
class Closed:
    """What was gathered of slices that close together; rows by key as in `agent.features.sums`."""

    frames: Sums
    mqtt: Sums
    claims: Sums
    numbers: list[int]
    """The slices that have frames, ascending."""
    links: list[tuple[I64, I64]]
    """Of each its link codes and their packets."""
    claimed: list[tuple[I64, dict[int, int]]]
    """Of each the claims `slot << 48 | MAC`, and the rival MAC by slot."""


class Memory:
    """What the last 60 slices hold; and the room in which rows are made."""

    def __init__(self, max_hosts: int, max_codes: int) -> None:
        self.sums = SlidingSums(max_hosts, _N_LONG)
        self.links = Links(max_hosts, max_codes)
        self._room = np.zeros(0, np.int64)

    def forget(self, gone: Slots) -> None:
        """Forget the hosts whose slots were freed."""
        self.sums.forget(gone)
        self.links.forget(gone)

    def raw(self, n_rows: int) -> I64:
        """(len(RAW), n_rows) of whatever was there: fresh memory costs more than filling it."""
        n = len(RAW) * n_rows
        if len(self._room) < n:
            self._room = np.empty(n, np.int64)
        return self._room[:n].reshape(len(RAW), n_rows)


@dataclass(slots=True, frozen=True)
class _Places:
    """Which row is whose."""

    low: int
    """No key is less."""
    of_key: NDArray[np.intp]
    """At `key - low`: `side * r + row`."""
    host: I64
    """(r,) `slice << 13 | slot` of each row; rows by slice, then by address."""
    sent: NDArray[np.intp]
    """The rows that have an out side."""


def _places(keys: I64, hosts: HostTable) -> _Places:
    """Rows for all hosts that have any frame; `keys` ascending."""
    slots, rank = hosts.by_address()
    first = int(keys[0]) >> SLICE_SHIFT
    low = first << SLICE_SHIFT
    pair = keys - low >> 1
    ranked = pair & ~SLOT_MASK | rank[pair & SLOT_MASK]
    here = sorted_keys(ranked, 0)
    n = len(here)
    row = np.empty(int(here[-1]) + 1, np.intp)
    row[here] = np.arange(n)
    row = row[ranked]
    of_key = np.empty(int(keys[-1]) - low + 1, np.intp)
    of_key[keys - low] = (keys & 1) * n + row
    host = (here & ~SLOT_MASK | slots[here & SLOT_MASK]) + (first << SLOT_BITS)
    return _Places(low, of_key, host, row[keys & 1 == 0])


def _copy(to: NDArray[Any], source: NDArray[Any]) -> None:
    """`to[:] = source`, (r, columns) both, `to` columnwise in memory: a strip stays in cache."""
    for i in range(0, len(to), _STRIP_ROWS):
        to[i : i + _STRIP_ROWS] = source[i : i + _STRIP_ROWS]


def _fill_sums(raw: I64, closed: Closed, places: _Places) -> None:
    """The sums and maxima of the slices themselves into raw columns."""
    at, max_at = 0, _MAXES_AT
    for part, n_sums, n_maxes in (
        (closed.frames, len(FRAME_SUMS), len(FRAME_MAXES)),
        (closed.mqtt, len(MQTT_SUMS), len(MQTT_MAXES)),
        (closed.claims, len(CLAIM_SUMS), 0),
    ):
        lanes = [
            (raw[i : i + n_sums], raw[j : j + n_maxes])
            for i, j in ((at, max_at), (at + len(SUMS), max_at + len(MAXES)))
        ]
        part.fill(places.low, places.of_key, lanes)
        at += n_sums
        max_at += n_maxes


def close(closed: Closed, hosts: HostTable, memory: Memory) -> Block:
    """The rows of slices that close together, ordered by slice and address; the memory moves on."""
    places = _places(closed.frames.keys(), hosts)
    n = len(places.host)
    raw = memory.raw(n)
    _fill_sums(raw, closed, places)
    slot = places.host & SLOT_MASK
    number = places.host >> SLOT_BITS
    bounds = np.searchsorted(number, [*closed.numbers, closed.numbers[-1] + 1]).tolist()
    links = ClosedLinks(closed.links)
    new_pairs, new_services = [], []
    senders = np.zeros(n, np.bool_)
    senders[places.sent] = True
    mac = closed.frames.last(places.low, places.of_key, 2 * n)[:n]
    probed = np.full(n, -1, np.int64)
    for i, slice_no in enumerate(closed.numbers):
        a, b = bounds[i], bounds[i + 1]
        here = slot[a:b]
        addend = np.empty((_N_LONG, b - a), np.int64)
        addend[: len(_LONG_FROM)] = raw[_LONG_FROM, a:b]
        np.greater(raw[_ACTIVE_FROM, a:b], 0, out=addend[len(_LONG_FROM) :])
        long_sums = memory.sums.push(slice_no, here, addend, hosts.since)
        _copy(raw[_LONG_AT : _LONG_AT + _N_LONG, a:b].T, long_sums)
        fresh = memory.links.see(
            slice_no,
            links.pair_parts[i],
            links.service_parts[i],
            links.own_parts[i],
            closed.claimed[i][0],
        )
        new_pairs.append(fresh[0])
        new_services.append(fresh[1])
        into = raw[_LONG_COUNTS_AT : _LONG_COUNTS_AT + len(LONG_COUNTS), a:b]
        probed[a:b] = _top(*memory.links.long(here, into), hosts.max_hosts)[0][here]
        own = senders[a:b]
        hosts.mac[here[own]] = mac[a:b][own]
        mac[a:b] = hosts.mac[here]
    place = np.repeat(np.arange(len(closed.numbers)) << SLOT_BITS, np.diff(bounds)) | slot
    for j, column in enumerate(links.counts(new_pairs, new_services), start=_SHORT_AT):
        column.take(place, out=raw[j], mode="clip")
    subjects = _subjects(closed, links, hosts, slot, place, raw[_RAW_INDEX["in_folded"]])
    subjects = {**subjects, "mac": mac, **_addresses("probed", probed, hosts)}
    return Block(values=_values(raw), number=number, subjects=Subjects(**subjects))


def _top(key: I64, value: I64, packets: I64, n: int) -> tuple[I64, I64]:
    """Per key the value with the most packets (the first of equals), -1 none; and its packets."""
    best = np.zeros(n, np.int64)
    np.maximum.at(best, key, packets)
    winners = np.flatnonzero(packets == best[key])[::-1]
    out = np.full(n, -1, np.int64)
    out[key[winners]] = value[winners]
    return out, best


def _top_port(host: I64, port: I64, packets: I64, n: int) -> I64:
    """Per host the port with the most packets, the lowest of equals; -1 none."""
    # Below the key its place: one sort of whole numbers is several times faster than `argsort`.
    bits = len(port).bit_length()
    key = (host << 16 | port) << bits | np.arange(len(port))
    key.sort()
    order = key & (1 << bits) - 1
    key >>= bits
    starts = np.flatnonzero(edges(key))
    if not len(starts):
        return np.full(n, -1, np.int64)
    unique = key[starts]
    return _top(unique >> 16, unique & 0xFFFF, np.add.reduceat(packets[order], starts), n)[0]


def _addresses(name: str, slots: I64, hosts: HostTable) -> dict[str, U64]:
    """Addresses of slots, 0 where -1."""
    some = slots >= 0
    return {
        f"{name}_{half}": np.where(some, column[slots], np.uint64(0))
        for half, column in (("hi", hosts.hi), ("lo", hosts.lo))
    }


def _subjects(
    closed: Closed, links: ClosedLinks, hosts: HostTable, slot: I64, place: I64, folded: I64
) -> dict[str, NDArray[Any]]:
    """Whom the rows are about, and the context that alerts need; `place` as in `ClosedLinks`."""
    n = links.n
    starts = links.pair_starts
    packets = np.add.reduceat(links.packets, starts) if len(starts) else links.packets
    ip = np.flatnonzero(links.pair_codes & 4 == 0)
    codes, packets = links.codes[starts[ip]], packets[ip]
    above = codes >> 44 << SLOT_BITS
    src, dst = ends(codes)
    in_peer, in_packets = _top(above | dst, src, packets, n)
    out_peer, out_packets = _top(above | src, dst, packets, n)
    new = hosts.admitted[src] == np.array(closed.numbers)[above >> SLOT_BITS]
    new_sources = np.bincount((above | dst)[new], minlength=n)
    services = links.codes[links.service_at]
    above = services >> 44 << SLOT_BITS
    client, server = ends(services)
    packets, port = links.packets[links.service_at], services & 0xFFFF
    in_port, out_port = (
        _top_port(above | end, port, packets, n)[place].astype(np.int32) for end in (server, client)
    )
    rival = np.zeros(n, np.uint64)
    for i, (_, rivals) in enumerate(closed.claimed):
        for at, mac in rivals.items():
            rival[i << SLOT_BITS | at] = mac
    return {
        "hi": hosts.hi[slot],
        "lo": hosts.lo[slot],
        **_addresses("in_peer", in_peer[place], hosts),
        "in_peer_packets": in_packets[place],
        **_addresses("out_peer", out_peer[place], hosts),
        "out_peer_packets": out_packets[place],
        "in_port": in_port,
        "out_port": out_port,
        "in_new_sources": new_sources[place] + folded,
        "rival_mac": rival[place],
    }


def _columns(names: list[str]) -> NDArray[np.intp]:
    """Where raw columns stand in a block."""
    return np.array([_RAW_INDEX[name] for name in names], np.intp)


_RATIOS, _ROOTS = ([s for s in SPECS if s.dtype == d] for d in ("ratio", "root"))
_TOP_OF = _columns([s.top[0] for s in _RATIOS])
_BOTTOM_OF = _columns([s.bottom[0] for s in _RATIOS])
_SQUARES_OF = _columns([s.top[0] for s in _ROOTS])
_TOTAL_OF = _columns([s.top[1] for s in _ROOTS])
_N_OF = _columns([s.bottom[0] for s in _ROOTS])
_DIVIDED = {s.name: len(RAW) + i for i, s in enumerate((*_RATIOS, *_ROOTS))}
"""They stand below the raw columns when all are rounded."""
_FEATURES_AT = np.array([_DIVIDED.get(s.name, _RAW_INDEX[s.top[0]]) for s in SPECS], np.intp)


def _values(raw: I64) -> F32:
    """(r, len(SPECS)): whole numbers, one float64 division or root, one rounding to float32."""
    n = raw.shape[1]
    out = np.empty((n, len(SPECS)), np.float32)
    columns = np.empty((len(RAW) + len(_DIVIDED), min(n, _VALUE_ROWS)), np.float32)
    for i in range(0, n, _VALUE_ROWS):
        strip = raw[:, i : i + _VALUE_ROWS]
        part = columns[:, : strip.shape[1]]
        _fill_values(strip, part)
        out[i : i + _VALUE_ROWS] = part.take(_FEATURES_AT, axis=0).T
    return out


def _fill_values(raw: I64, out: F32) -> None:
    """Raw columns, ratios and roots of some rows, rounded, into `out` (columns, r)."""
    out[: len(RAW)] = raw
    bottom = raw[_BOTTOM_OF]
    ratio = raw[_TOP_OF] / np.maximum(bottom, 1)  # int64 by int64 is one float64 division
    ratio[bottom == 0] = 0.0
    out[len(RAW) : len(RAW) + len(_RATIOS)] = ratio
    n, total = raw[_N_OF], raw[_TOTAL_OF]
    divisor = np.maximum(n, 1)
    mean = total // divisor  # whole: then the sum of squares about it is whole too
    squares = raw[_SQUARES_OF] - 2 * mean * total + n * mean * mean
    out[len(RAW) + len(_RATIOS) :] = np.sqrt(squares / divisor)


def matrix(blocks: list[Block]) -> FeatureMatrix:
    """Blocks as one feature matrix, in their order."""
    if not blocks:
        blocks = [_EMPTY]
    values = [block.values for block in blocks]
    number = np.concatenate([b.number for b in blocks])
    return FeatureMatrix(
        schema=SCHEMA,
        values=values[0] if len(values) == 1 else np.concatenate(values),
        subjects=_join([b.subjects for b in blocks]),
        start_ns=number * SLICE_NS,
        end_ns=(number + 1) * SLICE_NS,
    )


def _join(parts: list[Subjects]) -> Subjects:
    if len(parts) == 1:
        return parts[0]
    names = Subjects.__dataclass_fields__
    return Subjects(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in names})


def _nobody() -> Subjects:
    """No subjects at all, each column of its type."""
    types = {
        **dict.fromkeys(Subjects.__dataclass_fields__, np.uint64),
        **dict.fromkeys(("in_peer_packets", "out_peer_packets", "in_new_sources"), np.int64),
        **dict.fromkeys(("in_port", "out_port"), np.int32),
    }
    empty: dict[str, Any] = {name: np.zeros(0, dtype) for name, dtype in types.items()}
    return Subjects(**empty)


_EMPTY = Block(
    values=np.zeros((0, len(SPECS)), np.float32),
    number=np.zeros(0, np.int64),
    subjects=_nobody(),
)
