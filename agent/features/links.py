"""Who addressed whom, as what: the distinct counts of a slice and of the last 60, and who never answered.

A link code says `src, dst, what, port` (slots, not addresses). From the links of a slice come pairs (who
talks to whom), services (which host and port somebody addressed as a client, or was refused at) and own
ports. Over 60 slices the counts are kept by what enters and leaves, not counted again; those of
claimed MACs are counted again when one does. Exact and bounded; it never looks at a frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from agent.features.frames import ASK, REFUSAL, RESOLVE, SERVICE
from agent.features.sliding import SlidingSet, contains
from agent.features.sums import SLOT_BITS, SLOT_MASK, edges

if TYPE_CHECKING:
    from agent.features.hosts import Slots
    from agent.records import I64

LINK_BITS = 18
MAC_BITS = 48
MAC_MASK = (1 << MAC_BITS) - 1

SERVICE_COUNTS = (
    "out_services",
    "in_services",
    "out_services_one_peer",
    "in_services_one_peer",
    "out_refused_services",
    "in_refused_services",
)
SHORT_COUNTS = (
    "out_peers",
    "in_peers",
    "out_new_peers",
    "in_new_peers",
    "out_new_services",
    "in_new_services",
    "out_arp_targets",
    *SERVICE_COUNTS,
)
"""Distinct counts of a slice, in the order of `ClosedLinks.counts`."""
LONG_COUNTS = (
    "out_peers",
    "in_peers",
    "out_unanswered_peers",
    "in_unanswered_peers",
    "out_arp_targets",
    "out_arp_unanswered",
    *SERVICE_COUNTS,
    "arp_macs",
    "arp_mac_addresses",
)
"""Distinct counts of the last 60 slices, in the order of `Links.long`."""


def ends(codes: I64) -> tuple[I64, I64]:
    """Source and destination slot of link codes."""
    both = codes >> LINK_BITS
    return both >> SLOT_BITS & SLOT_MASK, both & SLOT_MASK


def _count(slots: I64, n: int) -> I64:
    return np.bincount(slots, minlength=n)


class Pairs:
    """Pairs of hosts, coded so that the two halves of an exchange differ in the last bit only.

    `low slot, high slot, what, who asked, answer`: for IP packets the two directions are each other's
    answer; for ARP and ND the answer to a request is a claim told to who asked. What stands above
    (which of several slices) is left alone.
    """

    def __init__(self, codes: I64) -> None:
        """`codes` as made by `code`."""
        both = codes >> 3
        low, high, last = both >> SLOT_BITS & SLOT_MASK, both & SLOT_MASK, codes & 7
        resolve = last >> 2 == 1
        swapped = np.where(resolve, last >> 1 ^ last, last) & 1 == 1
        self.place = both >> 2 * SLOT_BITS << SLOT_BITS
        self.src = np.where(swapped, high, low)
        self.dst = np.where(swapped, low, high)
        self.ip = np.flatnonzero(~resolve)
        self.asks = np.flatnonzero(last & 5 == 4)

    @staticmethod
    def code(links: I64) -> tuple[I64, I64]:
        """Pair codes of links (ascending, unique): each pair once, by source; and where its links start."""
        # Links of a pair lie together: IP of any kind and port, then requests, then claims.
        resolve = links >> 16 & 3 == RESOLVE
        groups = links >> LINK_BITS << 2 | np.where(resolve, links & 3, 0)
        starts = np.flatnonzero(edges(groups))
        groups = groups[starts]
        src, dst = ends(links[starts])
        swapped = src > dst
        answer = groups & 3 != ASK
        last = np.where(resolve[starts], 4 | (swapped ^ answer) << 1 | answer, swapped)
        low, high = np.minimum(src, dst), np.maximum(src, dst)
        above = groups >> 2 * SLOT_BITS + 2
        return ((above << SLOT_BITS | low) << SLOT_BITS | high) << 3 | last, starts


class _PairCounts:
    """Six counts per host over the last 60 slices, kept as pairs enter and leave."""

    def __init__(self, n: int, max_codes: int) -> None:
        self.set = SlidingSet(max_codes)
        self.counts = np.zeros((6, n), np.int64)

    def see(self, slice_no: int, codes: I64) -> I64:
        """Take a slice's pair codes in; those that were not seen in the 59 slices before."""
        left = self.set.expire(slice_no)
        stay = self.set.codes
        entered, evicted = self.set.see(slice_no, codes)
        self._apply(_changes(left, stay, -1), _changes(entered, stay, 1))
        if len(evicted):
            self.leave(evicted)
        return entered

    def leave(self, codes: I64) -> None:
        """These codes (ascending) are no longer in the set."""
        self._apply(_changes(codes, self.set.codes, -1))

    def _apply(self, *changes: tuple[I64, I64, I64]) -> None:
        codes, step, lone = (np.concatenate(column) for column in zip(*changes, strict=True))
        pairs = Pairs(codes)
        counts = self.counts
        for ends_, at, by, lonely in (
            (pairs.src, pairs.ip, 0, 2),
            (pairs.dst, pairs.ip, 1, 3),
            (pairs.src, pairs.asks, 4, 5),
        ):
            hosts = ends_[at]
            np.add.at(counts[by], hosts, step[at])
            np.add.at(counts[lonely], hosts, lone[at])


def _changes(codes: I64, stay: I64, step: int) -> tuple[I64, I64, I64]:
    """What changes where `codes` come (step 1) or go (-1) beside `stay`: codes, their count, their loneliness."""
    if not len(codes):
        return codes, codes, codes
    twins = codes ^ 1
    beside = contains(stay, twins)
    lone = ~(beside | contains(codes, twins))
    answered = twins[beside]  # a twin that stays is answered from now on, or no more
    steps = np.zeros(len(codes) + len(answered), np.int64)
    steps[: len(codes)] = step
    lonely = np.full(len(steps), -step, np.int64)
    lonely[: len(codes)] = step * lone
    return np.concatenate([codes, answered]), steps, lonely


def _many_ports(codes: I64) -> tuple[I64, I64, I64]:
    """Clients, servers and numbers of ports, where a client addressed several ports of one server.

    `codes`: services (ascending, unique). Clients and servers are slots, below what stands above in the code.
    """
    pairs = codes >> 16
    again = np.flatnonzero(pairs[1:] == pairs[:-1])  # few but in a scan
    if not len(again):
        return again, again, again
    pair = pairs[again]
    starts = np.flatnonzero(edges(pair))
    length = np.append(starts[1:], len(pair)) - starts + 1
    what = pair[starts]
    is_service = what & 3 == SERVICE
    both, length = what[is_service] >> 2, length[is_service]
    above = both >> 2 * SLOT_BITS << SLOT_BITS
    return both >> SLOT_BITS, above | both & SLOT_MASK, length


def _one_peer(many: tuple[I64, I64, I64], served: I64, own: I64) -> tuple[I64, I64]:
    """Per host, the most distinct ports with one peer, as client and as server.

    `served`, `own`: (n,) how many services each host addressed, how many own ports were addressed.
    """
    client, server, length = many
    out, into = (served > 0).astype(np.int64), (own > 0).astype(np.int64)
    np.maximum.at(out, client, length)
    np.maximum.at(into, server, length)
    return out, into


class _ServiceCounts:
    """Six counts per host over the last 60 slices: services addressed, own ports, refusals."""

    def __init__(self, n: int, max_codes: int) -> None:
        self.set = SlidingSet(max_codes)
        self.own = SlidingSet(max_codes)
        self._n = n
        self._counts = np.zeros((4, n), np.int64)

    def see(self, slice_no: int, codes: I64, own: I64) -> I64:
        """Take a slice's services and refusals, and its own ports (`dst, port`), in; the services new to it."""
        self.leave(self.set.expire(slice_no), self.own.expire(slice_no))
        entered, evicted = self.set.see(slice_no, codes)
        entered_own, evicted_own = self.own.see(slice_no, own)
        self._change(entered, entered_own, 1)
        self.leave(evicted, evicted_own)
        new: I64 = entered[entered >> 16 & 3 == SERVICE]
        return new

    def leave(self, codes: I64, own: I64) -> None:
        """These are no longer in the sets."""
        self._change(codes, own, -1)

    def _change(self, codes: I64, own: I64, step: int) -> None:
        served = codes >> 16 & 3 == SERVICE
        src, dst = ends(codes)
        np.add.at(self._counts[0], src[served], step)
        np.add.at(self._counts[1], own >> 16, step)
        np.add.at(self._counts[2], src[~served], step)
        np.add.at(self._counts[3], dst[~served], step)

    def fill(self, here: Slots, out: I64) -> tuple[I64, I64, I64]:
        """The SERVICE_COUNTS of some hosts into `out`; what `_many_ports` says."""
        many = _many_ports(self.set.codes)
        served, own = self._counts[0], self._counts[1]
        one = _one_peer(many, served, own)
        counts = self._counts.take(here, axis=1)
        out[:2] = counts[:2]
        out[2], out[3] = one[0][here], one[1][here]
        out[4:6] = counts[2:]
        return many


class ClosedLinks:
    """The links of slices that close together: codes (ascending) under the number of their slice.

    `code = slice's place among those closed << 44 | link`; a host of a slice is `place << 13 | slot`.
    """

    def __init__(self, parts: list[tuple[I64, I64]]) -> None:
        """Codes and packets of each slice."""
        self.n = len(parts) << SLOT_BITS
        shift = 2 * SLOT_BITS + LINK_BITS
        self.codes = np.concatenate([codes | i << shift for i, (codes, _) in enumerate(parts)])
        self.packets = np.concatenate([packets for _, packets in parts])
        self.pair_codes, self.pair_starts = Pairs.code(self.codes)
        places = np.arange(len(parts) + 1)
        codes = np.sort(self.pair_codes)
        self._pairs = Pairs(codes)
        self.pair_parts = _split(codes, places << 2 * SLOT_BITS + 3)
        what = self.codes >> 16 & 3
        self.service_at = np.flatnonzero(what == SERVICE)
        self.services = self.codes[(what == SERVICE) | (what == REFUSAL)]
        self.service_parts = _split(self.services, places << shift)
        own = self.codes[self.service_at]
        server = (own >> shift) << SLOT_BITS | ends(own)[1]
        own = np.sort(server << 16 | own & 0xFFFF)
        self.own = own[edges(own)]
        self.own_parts = _split(self.own, places << SLOT_BITS + 16)

    def counts(self, new_pairs: list[I64], new_services: list[I64]) -> list[I64]:
        """(n,) each of the SHORT_COUNTS; what is new in each slice as `Links.see` said."""
        n, pairs, place = self.n, self._pairs, self._pairs.place
        ip, asks = pairs.ip, pairs.asks
        fresh = Pairs(_joined(new_pairs, 2 * SLOT_BITS + 3))
        fresh_place = fresh.place[fresh.ip]
        opened = _joined(new_services, 2 * SLOT_BITS + LINK_BITS)
        opener, opened_at = ends(opened)
        opened_place = opened >> 2 * SLOT_BITS + LINK_BITS << SLOT_BITS
        src, dst = ends(self.services)
        above = self.services >> 2 * SLOT_BITS + LINK_BITS << SLOT_BITS
        src, dst = src | above, dst | above
        refusals = self.services >> 16 & 3 == REFUSAL
        served, own = _count(src[~refusals], n), _count(self.own >> 16, n)
        return [
            _count((pairs.src | place)[ip], n),
            _count((pairs.dst | place)[ip], n),
            _count(fresh.src[fresh.ip] | fresh_place, n),
            _count(fresh.dst[fresh.ip] | fresh_place, n),
            _count(opener | opened_place, n),
            _count(opened_at | opened_place, n),
            _count((pairs.src | place)[asks], n),
            served,
            own,
            *_one_peer(_many_ports(self.services), served, own),
            _count(src[refusals], n),
            _count(dst[refusals], n),
        ]


def _joined(parts: list[I64], shift: int) -> I64:
    """Codes of each slice, under its place."""
    return np.concatenate([codes | i << shift for i, codes in enumerate(parts)])


def _split(codes: I64, bounds: I64) -> list[I64]:
    """Ascending codes cut at bounds, each part without what its bound adds."""
    at = np.searchsorted(codes, bounds).tolist()
    return [codes[a:b] - low for a, b, low in zip(at, at[1:], bounds.tolist(), strict=False)]


class Links:
    """What the last 60 slices know of who addressed whom."""

    def __init__(self, n: int, max_codes: int) -> None:
        self._n = n
        self._pairs = _PairCounts(n, max_codes)
        self._services = _ServiceCounts(n, max_codes)
        self._macs = SlidingSet(max_codes)
        self._mac_counts: I64 | None = None
        """Counted again when the set changes: few MACs come and go."""

    @property
    def n_evicted(self) -> int:
        """Codes that went for want of room."""
        sets = (self._pairs.set, self._services.set, self._services.own, self._macs)
        return sum(s.n_evicted for s in sets)

    def see(
        self, slice_no: int, pairs: I64, services: I64, own: I64, claimed: I64
    ) -> tuple[I64, I64]:
        """Take a closed slice in; its pairs and its services that were not seen in the 59 slices before.

        `claimed`: `slot << 48 | MAC` of claims; all four ascending and unique.
        """
        left = self._macs.expire(slice_no)
        entered, evicted = self._macs.see(slice_no, claimed)
        if len(left) or len(entered) or len(evicted):
            self._mac_counts = None
        return self._pairs.see(slice_no, pairs), self._services.see(slice_no, services, own)

    def long(self, here: Slots, out: I64) -> tuple[I64, I64, I64]:
        """The LONG_COUNTS of some hosts into `out`; clients, servers, numbers of ports where several."""
        out[:6] = self._pairs.counts.take(here, axis=1)
        many = self._services.fill(here, out[6:12])
        if self._mac_counts is None:
            self._mac_counts = self._count_macs()
        out[12:] = self._mac_counts.take(here, axis=1)
        return many

    def _count_macs(self) -> I64:
        """(2, n) of each host how many MACs claimed it, and how many hosts the busiest of these claimed."""
        counts = np.zeros((2, self._n), np.int64)
        codes = self._macs.codes
        if len(codes):
            slot = codes >> MAC_BITS
            order = np.argsort(codes & MAC_MASK, kind="stable")
            mac = codes[order] & MAC_MASK
            starts = np.flatnonzero(edges(mac))
            lengths = np.append(starts[1:], len(mac)) - starts
            np.maximum.at(counts[1], slot[order], np.repeat(lengths, lengths))
            counts[0] = _count(slot, self._n)
        return counts

    def forget(self, gone: Slots) -> None:
        """Forget the hosts whose slots were freed."""
        dead = np.zeros(1 << SLOT_BITS, np.bool_)
        dead[gone] = True
        pairs, services = self._pairs, self._services
        both = pairs.set.codes >> 3
        pairs.leave(pairs.set.forget(dead[both >> SLOT_BITS] | dead[both & SLOT_MASK]))
        src, dst = ends(services.set.codes)
        services.leave(
            services.set.forget(dead[src] | dead[dst]),
            services.own.forget(dead[services.own.codes >> 16]),
        )
        self._mac_counts = None
        self._macs.forget(dead[self._macs.codes >> MAC_BITS])
