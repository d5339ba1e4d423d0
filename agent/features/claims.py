"""Who says which MAC an address has: ARP and ND claims, judged against what was asked and what is known.

Frame by frame, in frame order: address resolution is a small part of any ward's traffic, and a loop of a
few microseconds a packet bounds what a storm of it costs. Tables are bounded; what is pushed out is counted.

An unasked claim is one whose receiver did not ask for that address in the last 5 s. It teaches nothing:
an address is bound to a MAC by requests, announcements and asked answers only. A claim of another MAC is
a contradiction; such a MAC becomes the holder when the old holder has been silent for 60 s (a fail-over
contradicts for a moment; an attacker beside a living holder contradicts for ever, and one that only ever
sends unasked claims never becomes the holder). Two-way: one MAC tells A that it is B, and B that it is A,
unasked, within 60 s.

Source: RFC 826, RFC 5227 (probe, announcement), RFC 4861 7.2.
"""

from __future__ import annotations

from collections import OrderedDict

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
        self._asked: OrderedDict[tuple[int, int], int] = OrderedDict()
        self._holder: OrderedDict[int, tuple[int, int]] = OrderedDict()
        self._told: OrderedDict[tuple[int, int, int], int] = OrderedDict()

    def judge(  # noqa: C901, PLR0912  (one loop without calls: it bounds what a storm of ARP costs)
        self,
        ts_ns: list[int],
        ops: list[int],
        macs: list[int],
        senders: list[int],
        targets: list[int],
    ) -> list[int]:
        """The flags of requests (op 1) and answers (any other), in frame order.

        A request's `sender` 0 is a probe. An answer says that `sender` is at `mac`, to `target` (0: everybody).
        """
        asked, holders = self._asked, self._holder
        when_asked, renew_question, renew_holder = (
            asked.get,
            asked.move_to_end,
            holders.move_to_end,
        )
        limit = self.max_entries
        out = []
        for now, op, mac, sender, target in zip(ts_ns, ops, macs, senders, targets, strict=True):
            flags = 0
            if op == 1:
                if sender != target:
                    question = sender, target
                    n = len(asked)
                    asked[question] = now
                    if len(asked) == n:
                        renew_question(question)
                    elif n == limit:
                        asked.popitem(last=False)
                        self.n_evicted += 1
                else:
                    flags = ANNOUNCEMENT
                if not sender:
                    out.append(0)
                    continue
            elif not sender:
                out.append(0)
                continue
            elif sender == target:
                flags = ANNOUNCEMENT
            elif now - when_asked((target, sender), -SILENT_NS) > ASKED_NS:
                flags = UNASKED if target else ANNOUNCEMENT
            known = holders.get(sender)
            if flags == UNASKED:
                flags |= self._two_way(now, mac, sender, target)
                if known is None:
                    out.append(flags)
                    continue
            if known is None:
                if len(holders) >= limit:
                    holders.popitem(last=False)
                    self.n_evicted += 1
                holders[sender] = (mac, now)
                out.append(flags)
                continue
            renew_holder(sender)  # who is under attack is not forgotten
            if known[0] == mac or not (flags & UNASKED or now - known[1] <= SILENT_NS):
                holders[sender] = (mac, now)
            else:
                flags |= CONTRADICTION
            out.append(flags)
        return out

    def _two_way(self, now: int, mac: int, sender: int, target: int) -> int:
        """Remember an unasked claim; TWO_WAY if its MAC lately told the sender that it is the target."""
        told = self._told
        told[mac, sender, target] = now
        told.move_to_end((mac, sender, target))
        if len(told) > self.max_entries:
            told.popitem(last=False)
            self.n_evicted += 1
        lately = now - told.get((mac, target, sender), -2 * TWO_WAY_NS) <= TWO_WAY_NS
        return TWO_WAY if lately else 0

    def ask(self, ts_ns: int, sender: int, mac: int, target: int) -> int:
        """The flags of one request."""
        return self.judge([ts_ns], [1], [mac], [sender], [target])[0]

    def claim(self, ts_ns: int, sender: int, mac: int, target: int) -> int:
        """The flags of one answer."""
        return self.judge([ts_ns], [2], [mac], [sender], [target])[0]
