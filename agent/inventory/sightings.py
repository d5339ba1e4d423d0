"""Decoded batches to sightings: which combinations of sender, address and receiver are new in these 10 s.

Columnar: each frame becomes a 64-bit code; only codes that this period of 10 s has not had yet are looked at one
by one, at most `MAX_SIGHTINGS` at a time, known devices first. So steady traffic costs one look-up a frame, and a
flood of made-up senders has a bound; what is left out is counted. It never reads a payload, and knows no clock but
the frames' own.

In: `PacketTable` in capture order. Out: the devices that these frames established. Thread-safe: the sources of
a gateway share one book. Remembers: `DeviceTable`, and a table of the codes of the present period.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from agent.inventory.devices import BIT, MAX_PORTS, PERIOD_NS, DeviceTable, Known, is_group
from agent.records import MAC_HI, NOBODY, V4_MAPPED_LO, Endpoint, PacketTable, TlsRecord

if TYPE_CHECKING:
    from agent.records import I64, U64, BoolArray

MAX_SIGHTINGS = 128
"""Looked at one by one in a pass; a few microseconds each, so below a millisecond a batch."""
MAX_SORTED = 2048
"""Frames of combinations not seen before that are looked at in one pass, evenly spaced."""
MAX_PASSES = 8
"""The first takes in what is frequent; further ones go on while there are enough known devices in them."""
SEEN_BITS = 15
ROW_BITS = 16
MAX_ROWS = 1 << ROW_BITS
"""A code and its row share 64 bits when they are sorted."""
_K = np.uint64(0x9E37_79B9_7F4A_7C15)
_SHIFT = np.uint64(29)
_TOP = np.uint64(64 - SEEN_BITS)
_LOW = np.uint64(MAX_ROWS - 1)
FAR_NS = 60_000_000_000
"""A frame so far back is of a clock that was set back; time begins anew there."""

_PROTO: U64 = np.zeros(256, np.uint64)
for _number, _name in ((1, "icmp"), (58, "icmp"), (2, "igmp"), (6, "tcp"), (17, "udp")):
    _PROTO[_number] = BIT[_name]
_FAMILY = {0: 0, 4: BIT["ipv4"], 6: BIT["ipv6"]}
_SYN_ACK = 18
_MDNS = 5353
_PORTS = 1 << 40
"""Keeps the codes of ports apart from those of protocols."""


class Sightings:
    """What a gateway's sources have seen."""

    def __init__(self, table: DeviceTable | None = None, *, salt: int = 0) -> None:
        self.table = table or DeviceTable()
        self.n_left_out = 0
        self._salt = np.uint64(salt)
        self._period = -1
        self._seen: U64 = np.zeros(1 << SEEN_BITS, np.uint64)
        self._lock = threading.Lock()
        self._keys: tuple[int, U64] = (-1, np.zeros(0, np.uint64))

    def add(self, table: PacketTable) -> list[tuple[Known, int]]:
        """Take a batch in; the devices that it established, each with the time [ns] of that."""
        if not len(table):
            return []
        with self._lock:
            found: list[tuple[Known, int]] = []
            for start in range(0, len(table), MAX_ROWS):
                stop = min(start + MAX_ROWS, len(table))
                codes = self._coded(table, start, stop)
                rows = np.arange(start, stop)
                periods = table.ts_ns[start:stop] // PERIOD_NS
                if periods[0] == periods[-1] and (periods == periods[0]).all():
                    found += self._look(table, codes, rows, int(periods[0]))
                    continue
                for period in np.unique(periods).tolist():
                    of = np.flatnonzero(periods == period)
                    found += self._look(table, codes[of], rows[of], period)
            self._claims(table, found)
            self._marks(table)
            return found

    def counters(self) -> Mapping[str, int]:
        """Running totals, and how many there are now."""
        table = self.table
        return {
            "devices": len(table.devices),
            "candidates": len(table.candidates),
            "evicted_devices": table.n_evicted_devices,
            "evicted_candidates": table.n_evicted_candidates,
            "evicted_addresses": table.n_evicted_addresses,
            "left_out_sightings": self.n_left_out,
        }

    def knows(self, address: Endpoint) -> bool:
        """Whether a device has this address."""
        return self.table.holder(address) is not None

    def read(self, work: Callable[[DeviceTable], None]) -> None:
        """Look at the book while nobody writes in it."""
        with self._lock:
            work(self.table)

    def _coded(self, table: PacketTable, start: int, stop: int) -> U64:
        """(n,) a hash of who sends what with which address to whom."""
        dst_mac = table.dst_mac[start:stop]
        columns = [
            table.src_mac[start:stop],
            dst_mac,
            table.src_lo[start:stop],
            table.src_hi[start:stop],
            table.proto[start:stop].astype(np.uint64),
        ]
        if not dst_mac.all():  # no receiver's MAC on this link: its address stands for it
            columns.append(np.where(dst_mac == 0, table.dst_lo[start:stop], np.uint64(0)))
        code: U64 = np.full(stop - start, self._salt)
        for column in columns:
            code ^= column
            code *= _K
            code ^= code >> _SHIFT
        return code

    def _look(
        self, table: PacketTable, codes: U64, rows: I64, period: int
    ) -> list[tuple[Known, int]]:
        """The frames of one period: each combination that it has not had yet."""
        if period > self._period or period < self._period - FAR_NS // PERIOD_NS:
            self._period = period
            self._seen.fill(0)
        found: list[tuple[Known, int]] = []
        unseen = np.flatnonzero(self._seen[codes >> _TOP] != codes)
        for n_pass in range(MAX_PASSES):
            if not len(unseen):
                return found
            spaced = _spaced(unseen)
            picked = spaced[_first(codes[spaced])]
            if len(picked) > MAX_SIGHTINGS:
                foreign = ~self._is_known(table, rows[picked])
                picked = np.sort(picked[np.argsort(foreign, kind="stable")[:MAX_SIGHTINGS]])
                if n_pass and np.count_nonzero(~foreign) < MAX_SIGHTINGS:
                    break  # what is left is of nobody that is known
            self._note(codes[picked])
            found += self._take(table, rows[picked])
            unseen = unseen[self._seen[codes[unseen] >> _TOP] != codes[unseen]]
        self.n_left_out += len(unseen)
        return found

    def _unseen(self, codes: U64) -> I64:
        """Indices of codes that this period has not had, at most `MAX_SORTED`, evenly spaced."""
        return _spaced(np.flatnonzero(self._seen[codes >> _TOP] != codes))

    def _note(self, codes: U64) -> None:
        """These were looked at; two codes of one place push each other out, and are looked at again."""
        self._seen[codes >> _TOP] = codes

    def _is_known(self, table: PacketTable, rows: I64) -> BoolArray:
        """(m,) whether the sender is a device already, and none that sends with others' addresses."""
        if self._keys[0] != self.table.changes:
            macs = sorted(
                key.lo
                for key, known in self.table.devices.items()
                if key.hi == MAC_HI and not known.carries
            )
            self._keys = self.table.changes, np.array(macs, np.uint64)
        macs_known = self._keys[1]
        if not len(macs_known):
            return np.zeros(len(rows), np.bool_)
        mac = table.src_mac[rows]
        at = np.minimum(np.searchsorted(macs_known, mac), len(macs_known) - 1)
        known: BoolArray = macs_known[at] == mac
        return known

    def _take(self, table: PacketTable, rows: I64) -> list[tuple[Known, int]]:
        """Note these frames one by one, in frame order."""
        found = []
        book = self.table
        bits = _PROTO[table.proto[rows]]
        columns = (
            table.ts_ns,
            table.src_mac,
            table.dst_mac,
            table.src_hi,
            table.src_lo,
            table.dst_hi,
            table.dst_lo,
            table.family,
        )
        values = zip(*(c[rows].tolist() for c in columns), bits.tolist(), strict=True)
        for ts_ns, src_mac, dst_mac, src_hi, src_lo, dst_hi, dst_lo, family, bit in values:
            address = Endpoint(src_hi, src_lo) if _is_host(src_hi, src_lo) else NOBODY
            sender = Endpoint(MAC_HI, src_mac) if src_mac else address
            if sender == NOBODY or is_group(sender):
                continue
            became = book.sent(sender, address, ts_ns, bit | _FAMILY.get(family, 0))
            if became is not None:
                found.append((became, ts_ns))
            receiver = Endpoint(MAC_HI, dst_mac) if dst_mac else Endpoint(dst_hi, dst_lo)
            if not dst_mac and book.find(receiver) is None:
                holder = book.holder(receiver)
                receiver = holder.key if holder is not None else receiver
            if receiver not in {sender, NOBODY} and not is_group(receiver):
                became = book.got(receiver, ts_ns)
                if became is not None:
                    found.append((became, ts_ns))
        return found

    def _claims(self, table: PacketTable, found: list[tuple[Known, int]]) -> None:
        """ARP and ND: who says that it has which address. The frame must come from who is named in it."""
        arp, nd = table.arp, table.nd
        if len(arp.row):
            own = (arp.sender_ip != 0) & (arp.sender_mac == table.src_mac[arp.row])
            lo = arp.sender_ip.astype(np.uint64) | np.uint64(V4_MAPPED_LO)
            self._claim(table, arp.row, arp.sender_mac, np.zeros_like(lo), lo, own, found)
            self._mark(BIT["arp"], table, arp.row)
        if len(nd.row):
            own = (
                (nd.icmp_type == 136) & (nd.link_mac == table.src_mac[nd.row]) & (nd.link_mac != 0)
            )
            self._claim(table, nd.row, nd.link_mac, nd.target_hi, nd.target_lo, own, found)
            self._mark(BIT["nd"], table, nd.row)

    def _claim(
        self,
        table: PacketTable,
        row: I64,
        mac: U64,
        hi: U64,
        lo: U64,
        own: BoolArray,
        found: list[tuple[Known, int]],
    ) -> None:
        at = np.flatnonzero(own)
        if not len(at):
            return
        who = (_who(mac[at], lo[at]) ^ hi[at]) * _K ^ lo[at]
        ends = np.concatenate([_first(who), _first(who, latest=True)])
        at = at[np.unique(ends)]  # how long a claim has stood shows at its ends
        if len(at) > MAX_SIGHTINGS:
            known = self._is_known(table, row[at])
            self.n_left_out += len(at) - MAX_SIGHTINGS
            at = np.sort(at[np.argsort(~known, kind="stable")][:MAX_SIGHTINGS])
        columns = (table.ts_ns[row[at]], mac[at], hi[at], lo[at])
        for ts_ns, m, h, low in zip(*(c.tolist() for c in columns), strict=True):
            key = Endpoint(MAC_HI, m)
            if is_group(key) or not _is_host(h, low):
                continue
            became = self.table.claim(key, Endpoint(h, low), ts_ns)
            if became is not None:
                found.append((became, ts_ns))

    def _marks(self, table: PacketTable) -> None:
        """Protocols and ports, of those who are devices or candidates already."""
        dns, dhcp, mqtt = table.dns, table.dhcp, table.mqtt
        if len(dns.row):
            mdns = table.src_port[dns.row] == _MDNS
            self._mark(BIT["mdns"], table, dns.row[mdns])
            self._mark(BIT["dns_server"], table, dns.row[~mdns & dns.response])
            self._mark(BIT["dns_client"], table, dns.row[~mdns & ~dns.response])
        if len(dhcp.row):
            self._mark(BIT["dhcp_client"], table, dhcp.row[dhcp.op == 1])
            self._mark(BIT["dhcp_server"], table, dhcp.row[dhcp.op == 2])
        if len(mqtt.row):
            plain = mqtt.synchronised & (mqtt.violation == 0)
            self._mark(BIT["mqtt_client"], table, mqtt.row[plain & mqtt.to_server])
            self._mark(BIT["mqtt_broker"], table, mqtt.row[plain & ~mqtt.to_server])
        if table.tls.any():
            hello = np.flatnonzero(table.tls == TlsRecord.CLIENT_HELLO)
            self._mark(BIT["tls_client"], table, hello)
            hello = np.flatnonzero(table.tls == TlsRecord.SERVER_HELLO)
            self._mark(BIT["tls_server"], table, hello)
        accepted = np.flatnonzero((table.tcp_flags & 0x3F == _SYN_ACK) & (table.proto == 6))
        if len(accepted):
            self._ports(table, accepted, table.src_mac, table.src_lo, serves=True)
            self._ports(table, accepted, table.dst_mac, table.dst_lo, serves=False)

    def _mark(self, bit: int, table: PacketTable, rows: I64) -> None:
        """The senders of these frames speak a protocol."""
        if not len(rows):
            return
        who = _who(table.src_mac[rows], table.src_lo[rows])
        codes = (who ^ np.uint64(bit)) * _K
        picked = self._unseen(codes)
        picked = picked[_first(codes[picked])][:MAX_SIGHTINGS]
        self._note(codes[picked])
        for known in self._owners(table, rows[picked]):
            if known is not None:
                known.protocols |= bit

    def _ports(self, table: PacketTable, rows: I64, mac: U64, lo: U64, *, serves: bool) -> None:
        """Connections accepted: `rows` are SYN-ACKs, their source port is the service's."""
        who = _who(mac[rows], lo[rows])
        codes = ((who ^ table.src_port[rows]) * _K ^ np.uint64(_PORTS + serves)) * _K
        picked = self._unseen(codes)
        picked = picked[_first(codes[picked])][:MAX_SIGHTINGS]
        self._note(codes[picked])
        rows = rows[picked]
        owners = self._owners(table, rows, receiver=not serves)
        for known, port in zip(owners, table.src_port[rows].tolist(), strict=True):
            if known is None:
                continue
            ports = known.serves if serves else known.uses
            if len(ports) < MAX_PORTS:
                ports.add(port)

    def _owners(
        self, table: PacketTable, rows: I64, *, receiver: bool = False
    ) -> list[Known | None]:
        side = "dst" if receiver else "src"
        columns = (getattr(table, f"{side}_{part}")[rows].tolist() for part in ("mac", "hi", "lo"))
        keys = zip(*columns, strict=True)
        return [
            self.table.find(Endpoint(MAC_HI, mac) if mac else Endpoint(hi, lo))
            for mac, hi, lo in keys
        ]


def _spaced(rows: I64) -> I64:
    """At most `MAX_SORTED` of them, evenly spaced."""
    if len(rows) <= MAX_SORTED:
        return rows
    return rows[np.linspace(0, len(rows) - 1, MAX_SORTED).astype(np.int64)]


def _who(mac: U64, lo: U64) -> U64:
    """(n,) a hash of a machine: by its MAC, or by its address where the link has none."""
    who: U64 = np.where(mac == 0, ~lo, mac) * _K
    return who ^ who >> _SHIFT


def _first(codes: U64, *, latest: bool = False) -> I64:
    """Indices, ascending, of the first (or the latest) of each code."""
    if len(codes) > MAX_ROWS:
        codes = codes[:MAX_ROWS]
    mixed = codes * _K  # the low bits make room for the row
    keyed = np.sort((mixed & ~_LOW) | np.arange(len(codes), dtype=np.uint64))
    code = keyed & ~_LOW
    edge = np.ones(len(code), np.bool_)
    if latest:
        edge[:-1] = code[1:] != code[:-1]
    else:
        edge[1:] = code[1:] != code[:-1]
    return np.sort((keyed[edge] & _LOW).astype(np.int64))


def _is_host(hi: int, lo: int) -> bool:
    """Whether an address can be one machine's: not nobody, multicast or broadcast."""
    if hi == 0 and lo >> 32 == V4_MAPPED_LO >> 32:
        first = lo >> 24 & 0xFF
        return 0 < first < 224
    return (hi != 0 or lo != 0) and hi >> 56 != 0xFF
