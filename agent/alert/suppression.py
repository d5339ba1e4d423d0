"""Suppressions: what a site has decided not to be told, by whom, why, where and until when.

A suppression never outlives its expiry, never hides that it was used (each use is counted, for
`health`) and never stops a detector: the verdicts are made, and left out here.

In: wall-clock times, handed in as nanoseconds since the epoch (event time plus the offset that the
service knows). Raises: `ConfigError` for one that names nothing, has no reason, author or expiry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Network, ip_network

from agent.alert.endpoints import parse
from agent.alert.techniques import DETECTIONS
from agent.errors import ConfigError
from agent.records import NOBODY, V4_MAPPED_LO, Device, Endpoint, Verdict

DeviceLookup = Callable[[Endpoint], Device | None]
"""What the site file says of an address; None where it does not list it."""

DAY_S = 86_400
ANY = "*"


def no_devices(_endpoint: Endpoint) -> Device | None:
    """The lookup of a site without a devices file."""
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppression:
    """One decision. It applies where the attacker or the victim is the device or in the subnet."""

    name: str
    """Under which its uses are counted; unique at a site."""
    detection: str
    """A detection id, or `*`."""
    where: str
    """An asset tag of the devices file, an IP or MAC address, or a subnet in CIDR form."""
    expires_s: int
    """Seconds since the epoch; from then on it does nothing. There is no suppression for ever."""
    reason: str
    author: str
    starts_s: int = 0
    daily_s: tuple[int, int] | None = None
    """Seconds of the day in UTC, from and to (to may be the smaller one: over midnight); None: all day."""
    window: str | None = None
    """Name of a maintenance window (`tuning.Window`); None: at any time."""

    def __post_init__(self) -> None:
        path = f"suppression[{self.name}]"
        for field in ("name", "where", "reason", "author"):
            if not getattr(self, field).strip():
                raise ConfigError(f"{path}.{field}", "must not be empty")
        if self.detection != ANY and self.detection not in DETECTIONS:
            raise ConfigError(f"{path}.detection", f"no such detection: {self.detection}")
        if self.expires_s <= self.starts_s:
            raise ConfigError(f"{path}.expires_s", "must be later than its start")
        if self.daily_s is not None and not all(0 <= s <= DAY_S for s in self.daily_s):
            raise ConfigError(f"{path}.daily_s", f"must be seconds of a day, 0 to {DAY_S}")


@dataclass(frozen=True, slots=True)
class Placed:
    """`where`, parsed: a subnet of 128-bit addresses, or an asset tag."""

    network: IPv6Network | None
    asset_tag: str

    def holds(self, endpoint: Endpoint, device_of: DeviceLookup) -> bool:
        """Whether a host is there; nobody is nowhere."""
        if endpoint == NOBODY:
            return False
        if self.network is None:
            device = device_of(endpoint)
            return device is not None and device.asset_tag == self.asset_tag
        value = endpoint.hi << 64 | endpoint.lo
        return value & int(self.network.netmask) == int(self.network.network_address)


def place(where: str) -> Placed:
    """An address or subnet as an IPv6 network (IPv4 mapped), anything else as an asset tag."""
    try:
        endpoint = parse(where)
    except ValueError:
        pass
    else:
        return Placed(IPv6Network((endpoint.hi << 64 | endpoint.lo, 128)), "")
    try:
        network = ip_network(where.strip(), strict=False)
    except ValueError:
        return Placed(None, where)
    if network.version == 4:
        mapped = V4_MAPPED_LO | int(network.network_address)
        return Placed(IPv6Network((mapped, 96 + network.prefixlen)), "")
    return Placed(network, "")


class Suppressions:
    """The site's decisions, and how often each was used."""

    def __init__(self, rows: Sequence[Suppression], *, device_of: DeviceLookup) -> None:
        names = [row.name for row in rows]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"suppression[{name}].name", "is used twice")
        self._rows = [(row, place(row.where)) for row in rows]
        self._device_of = device_of
        self._uses = dict.fromkeys(names, 0)

    def covers(self, verdict: Verdict, *, wall_ns: int) -> bool:
        """Whether one of them covers the verdict at that time; its use is counted."""
        row = self.matching(verdict, wall_ns // 1_000_000_000, _always)
        if row is None:
            return False
        self._uses[row.name] += 1
        return True

    def matching(
        self, verdict: Verdict, wall_s: int, inside: Callable[[str | None], bool]
    ) -> Suppression | None:
        """The first that covers the verdict; `inside` says whether a window is now."""
        for row, placed in self._rows:
            if (
                self._active(row, verdict.kind, wall_s)
                and inside(row.window)
                and (
                    placed.holds(verdict.victim, self._device_of)
                    or placed.holds(verdict.attacker, self._device_of)
                )
            ):
                return row
        return None

    @staticmethod
    def _active(row: Suppression, kind: str, wall_s: int) -> bool:
        if row.detection not in {ANY, kind} or not row.starts_s <= wall_s < row.expires_s:
            return False
        if row.daily_s is None:
            return True
        begin, end = row.daily_s
        second = wall_s % DAY_S
        return begin <= second < end if begin <= end else second >= begin or second < end

    def uses(self) -> Mapping[str, int]:
        """By name, how many verdicts each has covered."""
        return dict(self._uses)


def _always(_window: str | None) -> bool:
    """Every window is now."""
    return True
