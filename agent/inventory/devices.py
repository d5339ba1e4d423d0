"""The book of devices: who counts as one, what is known of each, and how many there can be.

A device is a MAC address (an IP address where a capture has no MACs). It never counts a sender because it sent
something: made-up sources would fill the book. A candidate becomes a device when

- it **sent and was sent to**, by unicast, in two different periods of 10 s: nobody goes on answering a
  made-up sender; or
- it **claimed one address by ARP or ND for 60 s**, and no other MAC claimed that address meanwhile: a quiet
  device behind a switch shows little else.

Both tables are bounded. Full of candidates: the one that was silent longest goes. Full of devices: the one that was
known for the shortest time goes, so that a crowd of new ones cannot push an old one out.

In: sightings (who, to whom, with which address, when [ns, event time]), in any order. Out: `Known` devices.
Remembers: at most `max_candidates` and `max_devices`, 16 addresses and 32 ports each; what goes is counted.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from agent.records import MAC_HI, NOBODY, Endpoint

PERIOD_NS = 10_000_000_000
"""How finely times are kept; above any round trip, below the keep-alive of most devices."""
ANSWERED_PERIODS = 2
CLAIM_NS = 60_000_000_000
"""Hosts ask again within a minute (RFC 1122 2.3.2.1: a cache entry lives about that long)."""
MAX_ADDRESSES = 16
"""Of one device: IPv4, link-local and a few temporary IPv6 addresses."""
MAX_CARRIED = 8
"""More addresses than this that it never claimed: it is a router, and they are of hosts behind it."""
MAX_PORTS = 16
LATER_MS = 1 << 62
"""Seen in this run, too: after any wall time of an earlier one."""

PROTOCOLS = (
    "arp", "nd", "ipv4", "ipv6", "icmp", "igmp", "tcp", "udp", "dns_client", "dns_server", "mdns",
    "dhcp_client", "dhcp_server", "tls_client", "tls_server", "mqtt_client", "mqtt_broker",
)  # fmt: skip
"""By fact of the decoder: a device sent such a packet. The place of a name is its bit."""
BIT = {name: 1 << i for i, name in enumerate(PROTOCOLS)}


@dataclass(slots=True)
class Held:
    """An address that a device has, or had."""

    first_ns: int
    last_ns: int
    claimed: bool
    """By ARP or ND; else it only sent with it."""
    first_ms: int | None = None
    """Wall time of an earlier run's first sight; None: `first_ns` is of this run."""
    last_ms: int | None = None
    """Wall time of an earlier run's last sight; None: `last_ns` is of this run."""


@dataclass(slots=True)
class Known:
    """One device or candidate; times are event time [ns]."""

    key: Endpoint
    first_ns: int
    last_ns: int
    first_ms: int | None = None
    """Wall time of an earlier run's first sight; None: `first_ns` is of this run."""
    last_ms: int | None = None
    """Wall time of an earlier run's last sight; None: `last_ns` is of this run."""
    protocols: int = 0
    """Bits of `PROTOCOLS`."""
    addresses: OrderedDict[Endpoint, Held] = field(default_factory=OrderedDict)
    """The one seen latest last."""
    serves: set[int] = field(default_factory=set)
    """TCP ports on which it accepted a connection (SYN and ACK sent)."""
    uses: set[int] = field(default_factory=set)
    """TCP ports of others that accepted its connection."""
    carries: bool = False
    """It sends for hosts behind it: a router."""
    sent_period: int = -1
    got_period: int = -1
    both_period: int = -1
    n_both: int = 0


class DeviceTable:
    """Devices and candidates."""

    def __init__(self, *, max_devices: int = 1024, max_candidates: int = 2048) -> None:
        self.max_devices = max_devices
        self.max_candidates = max_candidates
        self.devices: dict[Endpoint, Known] = {}
        self.candidates: OrderedDict[Endpoint, Known] = OrderedDict()
        self.n_evicted_devices = 0
        self.n_evicted_candidates = 0
        self.n_evicted_addresses = 0
        self.n_admitted = 0
        self.changes = 0
        """Grows when a key comes or goes, or turns out to be a router."""
        self._holders: dict[Endpoint, Endpoint] = {}
        """By address, the device that has it."""
        self._claims: OrderedDict[Endpoint, tuple[Endpoint, int]] = OrderedDict()
        """By address, who claims it and since when nobody else has."""

    def find(self, key: Endpoint) -> Known | None:
        """A device or a candidate."""
        return self.devices.get(key) or self.candidates.get(key)

    def holder(self, address: Endpoint) -> Known | None:
        """The device that has this IP address."""
        key = self._holders.get(address)
        return self.devices.get(key) if key is not None else None

    def sent(self, key: Endpoint, address: Endpoint, ts_ns: int, bits: int) -> Known | None:
        """A frame of `key`, with that source address; the device that it has just become."""
        known = self._touch(key, ts_ns)
        known.protocols |= bits
        if address != NOBODY:
            self._hold(known, address, ts_ns, claimed=False)
        known.sent_period = max(known.sent_period, ts_ns // PERIOD_NS)
        return self._both(known)

    def got(self, key: Endpoint, ts_ns: int) -> Known | None:
        """A frame to `key`, which is known only if it has sent one; the device that it has just become."""
        known = self.find(key)
        if known is None:
            return None
        known.got_period = max(known.got_period, ts_ns // PERIOD_NS)
        return self._both(known)

    def claim(self, key: Endpoint, address: Endpoint, ts_ns: int) -> Known | None:
        """`key` says by ARP or ND that it has `address`; the device that it has just become."""
        known = self._touch(key, ts_ns)
        self._hold(known, address, ts_ns, claimed=True)
        claimer, since_ns = self._claims.pop(address, (key, ts_ns))
        if claimer != key or ts_ns < since_ns:
            since_ns = ts_ns
        self._claims[address] = key, since_ns
        if len(self._claims) > self.max_candidates:
            self._claims.popitem(last=False)
        return self._admit(known) if ts_ns - since_ns >= CLAIM_NS else None

    def restore(self, known: Known) -> None:
        """A device of an earlier run."""
        if len(self.devices) < self.max_devices:
            self.devices[known.key] = known
            self.changes += 1
            for address in known.addresses:
                self._holders[address] = known.key

    def _touch(self, key: Endpoint, ts_ns: int) -> Known:
        known = self.devices.get(key)
        if known is None:
            known = self.candidates.get(key)
            if known is None:
                if len(self.candidates) >= self.max_candidates:
                    self.candidates.popitem(last=False)
                    self.n_evicted_candidates += 1
                known = self.candidates[key] = Known(key, ts_ns, ts_ns)
                self.changes += 1
            else:
                self.candidates.move_to_end(key)
        known.last_ns = ts_ns if known.last_ms is not None else max(known.last_ns, ts_ns)
        known.last_ms = None
        return known

    def _hold(self, known: Known, address: Endpoint, ts_ns: int, *, claimed: bool) -> None:
        held = known.addresses.get(address)
        if held is not None:
            known.addresses.move_to_end(address)
            held.last_ns = ts_ns if held.last_ms is not None else max(held.last_ns, ts_ns)
            held.last_ms = None
            held.claimed |= claimed
            if known.key in self.devices:
                self._holders[address] = known.key
            return
        if known.carries and not claimed:
            return
        known.addresses[address] = Held(ts_ns, ts_ns, claimed)
        if known.key in self.devices:
            self._holders[address] = known.key
        carried = [a for a, h in known.addresses.items() if not h.claimed]
        if len(carried) > MAX_CARRIED:
            known.carries = True
            self.changes += 1
            for each in carried:
                self._drop(known, each)
        if len(known.addresses) > MAX_ADDRESSES:
            self.n_evicted_addresses += 1
            self._drop(known, next(iter(known.addresses)))

    def _drop(self, known: Known, address: Endpoint) -> None:
        del known.addresses[address]
        if self._holders.get(address) == known.key:
            del self._holders[address]

    def _both(self, known: Known) -> Known | None:
        period = known.sent_period
        if known.got_period != period or known.both_period == period:
            return None
        known.both_period = period
        known.n_both += 1
        return self._admit(known) if known.n_both >= ANSWERED_PERIODS else None

    def _admit(self, known: Known) -> Known | None:
        if known.key in self.devices:
            return None
        self.candidates.pop(known.key, None)
        if len(self.devices) >= self.max_devices:
            shortest = min(self.devices.values(), key=_known_for)
            for address in list(shortest.addresses):
                self._drop(shortest, address)
            del self.devices[shortest.key]
            self.n_evicted_devices += 1
        self.devices[known.key] = known
        self.changes += 1
        self.n_admitted += 1
        for address in known.addresses:
            self._holders[address] = known.key
        return known


def _known_for(known: Known) -> tuple[bool, int, Endpoint]:
    """Grows with the time for which a device is known: those of an earlier run are the older ones."""
    if known.first_ms is None:
        return False, known.last_ns - known.first_ns, known.key
    return True, (known.last_ms or LATER_MS) - known.first_ms, known.key


def is_group(key: Endpoint) -> bool:
    """Whether a MAC is a group's (IEEE 802: the lowest bit of the first byte): never a device."""
    return key.hi == MAC_HI and bool(key.lo >> 40 & 1)
