"""What MQTT decoding remembers of TCP connections: a bounded table of flows, and one of connections just opened.

`FlowTable` keeps, per flow and direction, where the next control packet starts (a TCP sequence number) and the
header bytes already seen of it; the least recently used flow goes first, and evictions are counted. `SynTable`
keeps the first sequence number after a SYN, so that a flood of SYNs overwrites only other half-open
connections and never a flow. Neither reads bytes of a payload.

Hashes are salted, so nobody can make flows collide; every hit is verified against the real addresses and ports.

In and out: arrays of equal length, one row a segment or flow. Raises: nothing.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.records import I64, U8, U16, U32, U64, BoolArray

CARRY_BYTES = 136
"""Header bytes kept of a packet that is cut: a fixed header of 5 and what `mqtt_fields` reads of a body."""
_SYN_BITS = 16
LEAST_LATER = 256
"""SYNs in a batch that make it worth to wait with them: fewer would be many small batches to put in at once."""
_MASK64 = (1 << 64) - 1


class Salt(NamedTuple):
    """Odd multipliers and an offset that an attacker does not know."""

    low: np.uint64
    high: np.uint64
    offset: np.uint64


def make_salt(salt: int) -> Salt:
    """Three words from one, by splitmix64 (Steele et al. 2014)."""
    words = []
    state = salt & _MASK64
    for _ in range(3):
        state = (state + 0x9E3779B97F4A7C15) & _MASK64
        z = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & _MASK64
        z = (z ^ z >> 27) * 0x94D049BB133111EB & _MASK64
        words.append(z ^ z >> 31)
    return Salt(np.uint64(words[0] | 1), np.uint64(words[1] | 1), np.uint64(words[2]))


def _endpoint(hi: U64, lo: U64, port: U64, salt: Salt) -> U64:
    mixed = (lo + salt.offset) * salt.low
    mixed ^= mixed >> np.uint64(31)
    mixed += (hi + (port << np.uint64(40))) * salt.high
    mixed ^= mixed >> np.uint64(29)
    mixed *= salt.low
    mixed ^= mixed >> np.uint64(32)
    return mixed


class Flows(NamedTuple):
    """Which flow each row belongs to, (n,)."""

    key: U64
    """(n, 5) source hi, lo, destination hi, lo, source port << 16 | destination port."""
    hash: U64
    """The same for both directions."""
    reverse: BoolArray
    """Which of the two directions."""

    def take(self, rows: I64) -> Flows:
        """These rows."""
        return Flows(self.key.take(rows, axis=0), self.hash.take(rows), self.reverse.take(rows))


def identify(
    src_hi: U64,
    src_lo: U64,
    dst_hi: U64,
    dst_lo: U64,
    src_port: U16,
    dst_port: U16,
    salt: Salt,
) -> Flows:
    """Keys, hashes and directions of rows."""
    from_port, to_port = src_port.astype(np.uint64), dst_port.astype(np.uint64)
    source = _endpoint(src_hi, src_lo, from_port, salt)
    target = _endpoint(dst_hi, dst_lo, to_port, salt)
    both = source + target
    both ^= both >> np.uint64(30)
    both *= salt.high
    both ^= both >> np.uint64(31)
    key = np.empty((len(both), 5), np.uint64)
    key[:, 0], key[:, 1], key[:, 2], key[:, 3] = src_hi, src_lo, dst_hi, dst_lo
    np.bitwise_or(from_port << np.uint64(16), to_port, out=key[:, 4])
    return Flows(key, both, source > target)


def turn(key: U64, reverse: BoolArray) -> U64:
    """Keys with source and destination exchanged where `reverse`: one key for both directions."""
    out = key.copy()
    back = key[reverse]
    out[reverse, 0:2] = back[:, 2:4]
    out[reverse, 2:4] = back[:, 0:2]
    ports = back[:, 4]
    out[reverse, 4] = ports >> np.uint64(16) | (ports & np.uint64(0xFFFF)) << np.uint64(16)
    return out


class Openings(NamedTuple):
    """SYNs not yet put into the table: a batch's columns as they are, and which rows."""

    addresses: tuple[U64, U64, U64, U64]
    """Source hi, lo, destination hi, lo."""
    ports: tuple[U16, U16]
    seq: U32
    rows: I64
    salt: Salt
    stamp: int
    """Of the batch's first row."""


class SynTable:
    """The last SYN of each direction; one place a hash, newest wins."""

    def __init__(self) -> None:
        size = 1 << _SYN_BITS
        self._key = np.zeros((size, 5), np.uint64)
        self._start = np.zeros(size, np.int64)
        self._stamp = np.full(size, -1, np.int64)
        self._waiting: deque[Openings] = deque()
        self._n_waiting = 0

    def put_later(self, openings: Openings) -> None:
        """As `put`, once `find` or `put` is called; past as many as the table holds, the oldest are forgotten.

        The columns are kept: for batches of `LEAST_LATER` SYNs or more that are most of its frames, or much memory
        would be held for few.
        """
        self._waiting.append(openings)
        self._n_waiting += len(openings.rows)
        while self._n_waiting - len(self._waiting[0].rows) >= len(self._start):
            self._n_waiting -= len(self._waiting.popleft().rows)

    def _put_waiting(self) -> None:
        waiting, self._waiting, self._n_waiting = self._waiting, deque(), 0
        for w in waiting:
            rows = w.rows
            src_hi, src_lo, dst_hi, dst_lo = (c.take(rows) for c in w.addresses)
            src_port, dst_port = (c.take(rows) for c in w.ports)
            flows = identify(src_hi, src_lo, dst_hi, dst_lo, src_port, dst_port, w.salt)
            start = (w.seq.take(rows).astype(np.int64) + 1) & 0xFFFF_FFFF
            self._put(flows, start, rows + w.stamp)

    @staticmethod
    def _place(flows: Flows) -> I64:
        place = (flows.hash >> np.uint64(64 - _SYN_BITS)).astype(np.int64)
        place ^= flows.reverse
        return place

    def put(self, flows: Flows, start: I64, stamp: I64) -> None:
        """Remember that these directions opened at the time `stamp`, their first bytes being numbered `start`."""
        self._put_waiting()
        self._put(flows, start, stamp)

    def _put(self, flows: Flows, start: I64, stamp: I64) -> None:
        place = self._place(flows)
        self._key[place] = flows.key
        self._start[place] = start
        self._stamp[place] = stamp

    def find(self, flows: Flows) -> tuple[I64, I64]:
        """The number of each direction's first byte, and the stamp of its SYN, -1 where none is remembered; (n,)."""
        self._put_waiting()
        place = self._place(flows)
        known = (self._key[place] == flows.key).all(axis=1)
        return self._start[place], np.where(known, self._stamp[place], -1)


class FlowTable:
    """Flows by slot; the arrays are (slots,) per flow or (slots, 2) per direction, 1 the reversed one."""

    def __init__(self, max_flows: int) -> None:
        self.max_flows = max_flows
        self.slot_of: dict[int, int] = {}
        self._free = list(range(max_flows - 1, -1, -1))
        self._hash = np.zeros(max_flows, np.uint64)
        self.key = np.zeros((max_flows, 5), np.uint64)
        self.used = np.zeros(max_flows, np.int64)
        self.level: U8 = np.zeros(max_flows, np.uint8)
        self.connected = np.zeros(max_flows, bool)
        self.client: NDArray[np.int8] = np.full(max_flows, -1, np.int8)  # the client's direction
        self.known = np.zeros((max_flows, 2), bool)
        self.synchronised = np.zeros((max_flows, 2), bool)
        self.boundary = np.zeros((max_flows, 2), np.int64)
        self.chain = np.zeros((max_flows, 2), np.int64)
        self.opened = np.full((max_flows, 2), -1, np.int64)  # the stamp of the SYN it began with
        self.carry_len = np.zeros((max_flows, 2), np.int64)
        self.carry = np.zeros((max_flows, 2, CARRY_BYTES), np.uint8)
        self.finished = np.zeros((max_flows, 2), bool)  # a FIN in step was seen
        self.evictions = 0
        self.collisions = 0

    def __len__(self) -> int:
        return len(self.slot_of)

    def find(self, flow: U64, key: U64) -> I64:
        """Slots of these flows, -1 where they are not known; (n,). `key` as `turn` makes it."""
        get = self.slot_of.get
        slot = np.array([get(h, -1) for h in flow.tolist()], np.int64)
        hit = np.flatnonzero(slot >= 0)
        if len(hit):
            other = (self.key[slot[hit]] != key[hit]).any(axis=1)
            slot[hit[other]] = -1
        return slot

    def insert(self, flow: U64, key: U64, now: int) -> I64:
        """Slots for new flows, unique by hash; -1 for those beyond the table's size. `now`: the batch's number.

        A flow that another's hash belongs to takes its slot. Flows used in this batch are evicted last.
        """
        self._make_room(len(flow), now)
        slots = np.full(len(flow), -1, np.int64)
        for i, h in enumerate(flow.tolist()):
            known = self.slot_of.get(h)
            if known is not None:
                self.collisions += 1
                slots[i] = known
            elif self._free:
                slots[i] = self.slot_of[h] = self._free.pop()
        new = slots[slots >= 0]
        self._hash[new] = flow[slots >= 0]
        self.key[new] = key[slots >= 0]
        self.used[new] = now
        self.level[new] = 0
        self.connected[new] = False
        self.client[new] = -1
        self.known[new] = False
        self.synchronised[new] = False
        self.opened[new] = -1
        self.carry_len[new] = 0
        self.finished[new] = False
        return slots

    def _make_room(self, wanted: int, now: int) -> None:
        short = min(wanted, self.max_flows) - len(self._free)
        if short <= 0:
            return
        live = np.fromiter(self.slot_of.values(), np.int64, len(self.slot_of))
        short = min(short, int(np.count_nonzero(self.used[live] < now)))
        if short <= 0:
            return
        oldest = live[np.argsort(self.used[live], kind="stable")[:short]]
        self.evictions += short
        self.free(oldest)

    def free(self, slots: I64) -> None:
        """Forget these flows; each slot once."""
        for h, slot in zip(self._hash[slots].tolist(), slots.tolist(), strict=True):
            if self.slot_of.pop(h, None) is not None:
                self._free.append(slot)
