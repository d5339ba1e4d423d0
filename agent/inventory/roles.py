"""Whether the machines that have a role are themselves, whom an NMS asks for, and who does what only they may.

Columnar, per source; it looks only at frames that name an address with a role. It never decides what a role
allows (`alert.tuning`). What it finds by itself, as the site has said who the machines are:

- a claim, by ARP or ND, to the address of a gateway by a MAC that is not the gateway's: `arp_spoofing`;
- a DHCP answer of a machine that is neither DHCP server nor gateway (a relay): `device_anomaly`.

In: `PacketTable`. Out: answers to `alert.tuning.Witness`, and `Offence`s. Remembers, bounded: 128 slices with an
impostor by address; 4,096 hosts an NMS asked for, and who answered it; 256 offences not yet told.
Source: RFC 826, RFC 4861 7.2 (claims), RFC 2131 2 (who answers), RFC 1542 4 (relays).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agent.records import MAC_HI, NOBODY, V4_MAPPED_LO, Endpoint, PacketTable

if TYPE_CHECKING:
    from agent.records import I64, U64

SECOND_NS = 1_000_000_000
MAX_SLICES = 128
MAX_HOSTS = 4096
MAX_NEW = 256
"""Hosts noted one by one in a batch; a sweep of more is a sweep already."""
MAX_OFFENCES = 256

GATEWAY_CLAIM = "claims_to_gateway"
DHCP_ANSWER = "dhcp_answers_not_by_server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A machine with a role, as the wire can know it."""

    role: str
    address: Endpoint
    macs: frozenset[int]


@dataclass(frozen=True, slots=True)
class Offence:
    """What only a machine with a role may do, and another did."""

    fact: str
    mac: int
    address: Endpoint
    """Of the gateway that was claimed; of the sender of the DHCP answer."""
    slice_no: int


class _Asked:
    """Hosts that one NMS asked for, and that answered it."""

    def __init__(self) -> None:
        self.strangers: OrderedDict[Endpoint, deque[int]] = OrderedDict()
        self.answered: OrderedDict[Endpoint, None] = OrderedDict()


class RoleWatch:
    """One source's view of the machines with a role."""

    def __init__(self, bound: Iterable[Bound] = (), *, knows: Callable[[Endpoint], bool]) -> None:
        self._knows = knows
        self._impostors: dict[Endpoint, deque[int]] = {}
        self._asked: dict[Endpoint, _Asked] = {}
        self._offences: dict[Offence, int] = {}
        self.n_lost_offences = 0
        self.set(bound)

    def set(self, bound: Iterable[Bound]) -> None:
        """From now on these; what was seen of an address that stays is kept."""
        self._bound = tuple(bound)
        macs: dict[Endpoint, set[int]] = {}
        for row in self._bound:
            if row.macs:
                macs.setdefault(row.address, set()).update(row.macs)
        self._macs = {a: np.array(sorted(m), np.uint64) for a, m in macs.items()}
        self._gateways = {r.address for r in self._bound if r.role == "gateway" and r.macs}
        self._nms = {r.address for r in self._bound if r.role == "nms"}
        self._dhcp = any(r.role == "dhcp_server" for r in self._bound)
        self._impostors = {a: self._impostors.get(a, deque(maxlen=MAX_SLICES)) for a in self._macs}
        self._asked = {a: self._asked.get(a) or _Asked() for a in self._nms}

    def add(self, table: PacketTable) -> None:
        """Take a batch in."""
        if not self._bound or not len(table):
            return
        for address, macs in self._macs.items():
            self._check(table, address, macs)
        for address in self._nms:
            self._note_asked(table, address, self._asked[address])
        if self._dhcp and len(table.dhcp.row):
            self._check_dhcp(table)

    def impostor(self, address: Endpoint, start_ns: int, end_ns: int) -> bool:
        """As `alert.tuning.Witness`."""
        first, last = start_ns // SECOND_NS, (end_ns - 1) // SECOND_NS
        return any(first <= n <= last for n in self._impostors.get(address, ()))

    def strangers(self, address: Endpoint, start_ns: int, end_ns: int) -> int:
        """As `alert.tuning.Witness`; asked for by IP or ARP, known by the inventory or by its answer."""
        asked = self._asked.get(address)
        if asked is None:
            return 0
        first, last = start_ns // SECOND_NS, (end_ns - 1) // SECOND_NS
        return sum(
            any(first <= n <= last for n in slices)
            and host not in asked.answered
            and not self._knows(host)
            for host, slices in asked.strangers.items()
        )

    def offences(self, before_slice: int) -> list[tuple[Offence, int]]:
        """What was found in slices below `before_slice`, each with how often; told once."""
        out = [(o, n) for o, n in self._offences.items() if o.slice_no < before_slice]
        for offence, _ in out:
            del self._offences[offence]
        return out

    def _check(self, table: PacketTable, address: Endpoint, macs: U64) -> None:
        """Frames and claims of an address that do not come from its MACs."""
        rows = np.flatnonzero((table.src_lo == address.lo) & (table.src_hi == address.hi))
        if len(rows):
            mac = table.src_mac[rows]
            bad = rows[(mac != 0) & ~np.isin(mac, macs)]
            self._note_impostors(address, table.ts_ns[bad])
        arp, nd = table.arp, table.nd
        if len(arp.row) and address.hi == 0 and address.lo >> 32 == V4_MAPPED_LO >> 32:
            ip = np.uint32(address.lo & 0xFFFF_FFFF)
            bad = np.flatnonzero((arp.sender_ip == ip) & ~np.isin(arp.sender_mac, macs))
            self._claimed(address, table.ts_ns[arp.row[bad]], arp.sender_mac[bad])
        if len(nd.row):
            mine = (nd.target_lo == address.lo) & (nd.target_hi == address.hi)
            bad = np.flatnonzero(
                mine & (nd.icmp_type == 136) & (nd.link_mac != 0) & ~np.isin(nd.link_mac, macs)
            )
            self._claimed(address, table.ts_ns[nd.row[bad]], nd.link_mac[bad])

    def _claimed(self, address: Endpoint, ts_ns: I64, macs: U64) -> None:
        self._note_impostors(address, ts_ns)
        if address in self._gateways:
            for ts, mac in zip(ts_ns[:MAX_NEW].tolist(), macs[:MAX_NEW].tolist(), strict=True):
                self._offend(Offence(GATEWAY_CLAIM, mac, address, ts // SECOND_NS))

    def _note_impostors(self, address: Endpoint, ts_ns: I64) -> None:
        if len(ts_ns):
            slices = self._impostors[address]
            slices.extend(n for n in np.unique(ts_ns // SECOND_NS).tolist() if n not in slices)

    def _note_asked(self, table: PacketTable, address: Endpoint, asked: _Asked) -> None:
        to_it = (table.dst_lo == address.lo) & (table.dst_hi == address.hi)
        rows = np.flatnonzero(to_it)
        for hi, lo, _ in _distinct(table.src_hi[rows], table.src_lo[rows], table.ts_ns[rows]):
            asked.answered[Endpoint(hi, lo)] = None
            asked.answered.move_to_end(Endpoint(hi, lo))
            if len(asked.answered) > MAX_HOSTS:
                asked.answered.popitem(last=False)
        rows = np.flatnonzero((table.src_lo == address.lo) & (table.src_hi == address.hi))
        found = _distinct(table.dst_hi[rows], table.dst_lo[rows], table.ts_ns[rows])
        arp = table.arp
        if len(arp.row) and address.hi == 0:
            ip = np.uint32(address.lo & 0xFFFF_FFFF)
            own = np.flatnonzero((arp.op == 1) & (arp.sender_ip == ip))
            target = arp.target_ip[own].astype(np.uint64) | np.uint64(V4_MAPPED_LO)
            found += _distinct(np.zeros_like(target), target, table.ts_ns[arp.row[own]])
        for hi, lo, slice_no in found:
            host = Endpoint(hi, lo)
            slices = asked.strangers.pop(host, None)
            if slices is None:
                slices = deque(maxlen=MAX_SLICES)
                if len(asked.strangers) >= MAX_HOSTS:
                    asked.strangers.popitem(last=False)
            asked.strangers[host] = slices
            slices.append(slice_no)

    def _check_dhcp(self, table: PacketTable) -> None:
        rows = table.dhcp.row[table.dhcp.op == 2][:MAX_NEW]
        may = [row for row in self._bound if row.role in {"dhcp_server", "gateway"}]
        columns = (table.src_mac, table.src_hi, table.src_lo, table.ts_ns)
        for mac, hi, lo, ts in zip(*(c[rows].tolist() for c in columns), strict=True):
            address = Endpoint(hi, lo)
            if not any(r.address == address and (not r.macs or mac in r.macs) for r in may):
                self._offend(Offence(DHCP_ANSWER, mac, address, ts // SECOND_NS))

    def _offend(self, offence: Offence) -> None:
        if offence not in self._offences and len(self._offences) >= MAX_OFFENCES:
            self.n_lost_offences += 1
            return
        self._offences[offence] = self._offences.get(offence, 0) + 1


def _distinct(hi: U64, lo: U64, ts_ns: I64) -> list[tuple[int, int, int]]:
    """(hi, lo, slice) of the first `MAX_NEW` distinct hosts and slices, in order; nobody left out."""
    if not len(lo):
        return []
    slices = ts_ns // SECOND_NS
    keyed = np.stack([hi, lo, slices.astype(np.uint64)], axis=1)
    keyed = np.unique(keyed, axis=0) if len(keyed) < 64 or not _one(keyed) else keyed[:1]
    return [(h, low, n) for h, low, n in keyed[:MAX_NEW].tolist() if Endpoint(h, low) != NOBODY]


def _one(keyed: U64) -> bool:
    """Whether all rows are one."""
    return bool((keyed == keyed[0]).all())


def mac_or(address: Endpoint, mac: int) -> Endpoint:
    """A machine by its MAC, where the link shows one."""
    return Endpoint(MAC_HI, mac) if mac else address
