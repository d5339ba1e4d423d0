"""Who says which MAC an address has: ARP and ND claims, judged against what was asked and what is known.

Frame by frame, in frame order: address resolution is a small part of any ward's traffic, and a loop of
a microsecond a packet bounds what a storm of it costs. Tables are bounded; what is pushed out is counted.

An unasked claim is one whose receiver did not ask for that address in the last 5 s. It teaches nothing:
an address is bound to a MAC by requests, announcements and asked answers only. A claim of another MAC is
a contradiction; such a MAC becomes the holder when the old holder has been silent for 60 s (a fail-over
contradicts for a moment; an attacker beside a living holder contradicts for ever, and one that only ever
sends unasked claims never becomes the holder). Two-way: one MAC tells A that it is B, and B that it is A,
unasked, within 60 s.

Source: RFC 826, RFC 5227 (probe, announcement), RFC 4861 7.2.
"""

from __future__ import annotations

from typing import TypeVar

_K = TypeVar("_K")
_V = TypeVar("_V")

UNASKED, CONTRADICTION, TWO_WAY, ANNOUNCEMENT = 1, 2, 4, 8
"""Flags of a claim."""

ASKED_NS = 5_000_000_000
"""How long a request makes an answer asked for; hosts retry within 1 to 3 s."""
SILENT_NS = 60_000_000_000
"""How long a holder must be silent until another MAC may take over; hosts ask again within 60 s."""
TWO_WAY_NS = 60_000_000_000


class ClaimBook:
    """Bounded memory of requests, bindings and unasked claims; addresses are 128-bit integers, 0 nobody."""

    def __init__(self, max_entries: int) -> None:
        self.max_entries = max_entries
        self.n_evicted = 0
        self._asked: dict[tuple[int, int], int] = {}
        self._holder: dict[int, tuple[int, int]] = {}
        self._told: dict[tuple[int, int, int], int] = {}

    def _put(self, table: dict[_K, _V], key: _K, value: _V) -> None:
        """Set, as the newest entry; the oldest goes where the table is full."""
        table.pop(key, None)
        if len(table) >= self.max_entries:
            del table[next(iter(table))]
            self.n_evicted += 1
        table[key] = value

    def judge(
        self,
        ts_ns: list[int],
        ops: list[int],
        macs: list[int],
        senders: list[int],
        targets: list[int],
    ) -> list[int]:
        """The flags of requests (op 1) and answers (any other), in frame order."""
        ask, claim = self.ask, self.claim
        return [
            ask(now, sender, mac, target) if op == 1 else claim(now, sender, mac, target)
            for now, op, mac, sender, target in zip(ts_ns, ops, macs, senders, targets, strict=True)
        ]

    def ask(self, ts_ns: int, sender: int, mac: int, target: int) -> int:
        """A request; `sender` 0 is a probe. The flags."""
        if sender != target:
            self._put(self._asked, (sender, target), ts_ns)
        if sender == 0:
            return 0
        flags = ANNOUNCEMENT if sender == target else 0
        return flags | self._bind(ts_ns, sender, mac, teaches=True)

    def claim(self, ts_ns: int, sender: int, mac: int, target: int) -> int:
        """An answer, asked for or not: `sender` is at `mac`, told to `target` (0: everybody). The flags."""
        if sender == 0:
            return 0
        asked = self._asked.get((target, sender))
        if sender == target:
            flags = ANNOUNCEMENT
        elif asked is not None and ts_ns - asked <= ASKED_NS:
            flags = 0
        elif target == 0:
            flags = ANNOUNCEMENT
        else:
            flags = UNASKED
            self._put(self._told, (mac, sender, target), ts_ns)
            back = self._told.get((mac, target, sender))
            if back is not None and ts_ns - back <= TWO_WAY_NS:
                flags |= TWO_WAY
        return flags | self._bind(ts_ns, sender, mac, teaches=not flags & UNASKED)

    def _bind(self, ts_ns: int, sender: int, mac: int, *, teaches: bool) -> int:
        """Learn or check that `sender` is at `mac`."""
        known = self._holder.get(sender)
        if known is None:
            if teaches:
                self._put(self._holder, sender, (mac, ts_ns))
            return 0
        holder, last_ns = known
        if holder == mac or (teaches and ts_ns - last_ns > SILENT_NS):
            self._put(self._holder, sender, (mac, ts_ns))
            return 0
        return CONTRADICTION
