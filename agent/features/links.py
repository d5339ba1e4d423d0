"""Who addressed whom, as what: the distinct counts of a slice and of the last 60, and who never answered.

A link code says `src, dst, what, port` (slots, not addresses). From the links of a slice come pairs (who
talks to whom), services (which host and port somebody addressed as a client, or was refused at) and own
ports. Over 60 slices the counts are kept by what enters and leaves, not counted again; `ClaimedMacs` is
small and counted each time. Exact and bounded; it never looks at a frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from agent.features.frames import ASK, REFUSAL, RESOLVE, SERVICE
from agent.features.sliding import SlidingSet, contains

if TYPE_CHECKING:
    from agent.features.hosts import Slots
    from agent.records import I64, BoolArray

SLOT_BITS = 13
LINK_BITS = 18
MAC_BITS = 48
SLOT_MASK = (1 << SLOT_BITS) - 1

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
"""Distinct counts of a slice, in the order of `Links.close`."""
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
    return both >> SLOT_BITS, both & SLOT_MASK


def _unique(codes: I64) -> I64:
    """Ascending codes without repeats."""
    if len(codes) < 2:
        return codes
    return codes[np.flatnonzero(np.append(True, codes[1:] != codes[:-1]))]


def _count(slots: I64, n: int) -> I64:
    return np.bincount(slots, minlength=n)


class Pairs:
    """Pairs of hosts, coded so that the two halves of an exchange differ in the last bit only.

    `low slot, high slot, what, who asked, answer`: for IP packets the two directions are each other's
    answer; for ARP and ND the answer to a request is a claim told to who asked.
    """

    def __init__(self, codes: I64) -> None:
        """`codes` as made by `code`."""
        both = codes >> 3
        low, high, last = both >> SLOT_BITS, both & SLOT_MASK, codes & 7
        resolve = last >> 2 == 1
        swapped = np.where(resolve, last >> 1 ^ last, last) & 1 == 1
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
        starts = (
            np.flatnonzero(np.append(True, groups[1:] != groups[:-1])) if len(links) else groups
        )
        src, dst = ends(links[starts])
        swapped = src > dst
        answer = groups[starts] & 3 != ASK
        last = np.where(resolve[starts], 4 | (swapped ^ answer) << 1 | answer, swapped)
        low, high = np.minimum(src, dst), np.maximum(src, dst)
        return (low << SLOT_BITS | high) << 3 | last, starts


class _PairCounts:
    """Six counts per host over the last 60 slices, kept as pairs enter and leave."""

    def __init__(self, n: int, max_codes: int) -> None:
        self.set = SlidingSet(max_codes)
        self.counts = np.zeros((6, n), np.int64)

    def see(self, slice_no: int, codes: I64) -> I64:
        """Take a slice's pair codes in; those that were not seen in the 59 slices before."""
        self.leave(self.set.expire(slice_no))
        before = self.set.codes
        entered, evicted = self.set.see(slice_no, codes)
        self._change(entered, before, 1)
        self.leave(evicted)
        return entered

    def leave(self, codes: I64) -> None:
        """These codes (ascending) are no longer in the set."""
        self._change(codes, self.set.codes, -1)

    def _change(self, codes: I64, others: I64, step: int) -> None:
        """Add (or take away) `codes` beside `others`, which were there before and stay."""
        if not len(codes):
            return
        twins = codes ^ 1
        beside = contains(others, twins)
        self._add(codes, ~(beside | contains(codes, twins)), step)
        # A twin that stays is answered from now on, or no more.
        self._add(twins[beside], np.ones(int(beside.sum()), np.bool_), -step, only_lone=True)

    def _add(self, codes: I64, lone: BoolArray, step: int, *, only_lone: bool = False) -> None:
        pairs = Pairs(codes)
        ip, asks = pairs.ip, pairs.asks
        if not only_lone:
            np.add.at(self.counts[0], pairs.src[ip], step)
            np.add.at(self.counts[1], pairs.dst[ip], step)
            np.add.at(self.counts[4], pairs.src[asks], step)
        ip, asks = ip[lone[ip]], asks[lone[asks]]
        np.add.at(self.counts[2], pairs.src[ip], step)
        np.add.at(self.counts[3], pairs.dst[ip], step)
        np.add.at(self.counts[5], pairs.src[asks], step)


def _many_ports(codes: I64) -> tuple[I64, I64, I64]:
    """Clients, servers and numbers of ports, where a client addressed several ports of one server.

    `codes`: services (ascending, unique).
    """
    same = codes[1:] >> 16 == codes[:-1] >> 16
    again = np.flatnonzero(same)  # few but in a scan
    pair = codes[again] >> 16
    if not len(again):
        return again, again, again
    starts = np.flatnonzero(np.append(True, pair[1:] != pair[:-1]))
    length = np.diff(starts, append=len(pair)) + 1
    what = pair[starts]
    is_service = what & 3 == SERVICE
    both, length = what[is_service] >> 2, length[is_service]
    return both >> SLOT_BITS, both & SLOT_MASK, length


def _one_peer(codes: I64, served: I64, n: int) -> tuple[I64, I64]:
    """Per host, the most distinct ports with one peer, as client and as server.

    `codes`: services (ascending, unique); `served`: (n,) how many each host addressed.
    """
    out, into = np.zeros(n, np.int64), np.zeros(n, np.int64)
    client, server, length = _many_ports(codes)
    np.maximum.at(out, client, length)
    np.maximum.at(into, server, length)
    return np.maximum(out, served[0] > 0), np.maximum(into, served[1] > 0)


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

    def counts(self) -> list[I64]:
        """The counts of SERVICE_COUNTS."""
        served, own, refuser, refused = self._counts
        # in_services > 0 wherever somebody addressed it, so it serves as `served` of the other side.
        return [
            served,
            own,
            *_one_peer(self.set.codes, np.stack([served, own]), self._n),
            refuser,
            refused,
        ]


class Links:
    """What the last 60 slices know of who addressed whom."""

    def __init__(self, n: int, max_codes: int) -> None:
        self._n = n
        self._pairs = _PairCounts(n, max_codes)
        self._services = _ServiceCounts(n, max_codes)
        self._macs = SlidingSet(max_codes)

    @property
    def n_evicted(self) -> int:
        """Codes that went for want of room."""
        sets = (self._pairs.set, self._services.set, self._services.own, self._macs)
        return sum(s.n_evicted for s in sets)

    def close(self, slice_no: int, links: I64, claimed: list[int]) -> list[I64]:
        """Take a closed slice in: its links (ascending, unique) and `slot, MAC` claims; its SHORT_COUNTS."""
        n = self._n
        codes = np.sort(Pairs.code(links)[0])
        entered = Pairs(self._pairs.see(slice_no, codes))
        pairs = Pairs(codes)
        what = links >> 16 & 3
        services = links[(what == SERVICE) | (what == REFUSAL)]
        served = services >> 16 & 3 == SERVICE
        src, dst = ends(services)
        own = _unique(np.sort((dst << 16 | services & 0xFFFF)[served]))
        prober, probed = ends(self._services.see(slice_no, services, own))
        macs = np.unique(np.array(claimed, np.int64))
        self._macs.expire(slice_no)
        self._macs.see(slice_no, macs)
        n_served, n_own = _count(src[served], n), _count(own >> 16, n)
        return [
            _count(pairs.src[pairs.ip], n),
            _count(pairs.dst[pairs.ip], n),
            _count(entered.src[entered.ip], n),
            _count(entered.dst[entered.ip], n),
            _count(prober, n),
            _count(probed, n),
            _count(pairs.src[pairs.asks], n),
            n_served,
            n_own,
            *_one_peer(services, np.stack([n_served, n_own]), n),
            _count(src[~served], n),
            _count(dst[~served], n),
        ]

    def probed(self) -> tuple[I64, I64, I64]:
        """Clients, servers and numbers of ports of the last 60 slices, where there were several."""
        return _many_ports(self._services.set.codes)

    def long(self) -> list[I64]:
        """Per host the LONG_COUNTS, the slice that was closed last included."""
        codes = self._macs.codes
        slot = codes >> MAC_BITS
        addresses = np.zeros(self._n, np.int64)
        if len(codes):
            mac = codes & ((1 << MAC_BITS) - 1)
            _, at, counts = np.unique(mac, return_inverse=True, return_counts=True)
            np.maximum.at(addresses, slot, counts[at])
        return [
            *self._pairs.counts,
            *self._services.counts(),
            _count(slot, self._n),
            addresses,
        ]

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
        self._macs.forget(dead[self._macs.codes >> MAC_BITS])
