"""Labels of captures: what an episode is, its JSONL file, and which frames of a capture are hostile.

In: `NAME.labels.jsonl` (a line an episode), `PacketTable`s of the same capture. Out: `Episode`s; per frame
hostile or not. Raises `DatasetError` with file and line where a label file is wrong. Remembers nothing.

**The rule** (`hostile_frames`): a frame is hostile when it lies in [start_ns, end_ns], its Ethernet source is
one of the attackers' MACs, and it has the kind's shape (`_SHAPES`): a flood's protocol toward a victim, a
scan's IP toward a victim, a sweep's probes and ARP requests (over IPv6 its solicitations), an MQTT attack's
TCP toward a victim's port, a forged ARP claim or a relayed packet. Attackers do nothing else while they attack,
so the MAC and the time decide; the shape leaves out what their kernel says by itself (neighbour discovery, ARP
replies). What victims answer is not hostile. A link without MAC addresses cannot be labelled this way.
"""

import ipaddress
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from agent.errors import AgentError
from agent.records import V4_MAPPED_LO

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.records import U64, BoolArray, PacketTable


class DatasetError(AgentError):
    """A data set, capture or label file that cannot be used; one line with the file."""


class Episode(msgspec.Struct, frozen=True, kw_only=True):
    """One attack: first to last hostile frame seen in the capture."""

    run: str
    kind: str
    """A detection id."""
    variant: str
    """Tool and settings, by the testbed's name."""
    tool: str
    start_ns: int
    end_ns: int
    """Time of the first and of the last hostile frame, both inclusive."""
    attackers: list[str]
    """IP addresses that attackers own (spoofed ones are not listed)."""
    victims: list[str]
    """IP addresses; a sweep's are the hosts that exist in the swept range."""
    spoofed: bool = False
    distributed: bool = False
    ports: list[int] = []
    attacker_macs: list[str] = []
    frames: int = 0
    """Hostile frames in the capture."""


def read_labels(path: Path) -> list[Episode]:
    """The episodes of a label file, in its order; an empty file is a run without attacks."""
    out = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as e:
        raise DatasetError(f"{path}: cannot be read ({e.strerror})") from e
    for number, line in enumerate(lines, 1):
        try:
            out.append(msgspec.json.decode(line, type=Episode))
        except msgspec.DecodeError as e:
            raise DatasetError(f"{path}:{number}: no label: {e}") from e
    return out


def write_labels(path: Path, episodes: Iterable[Episode]) -> None:
    """Write a label file, ordered by start."""
    rows = sorted(episodes, key=lambda e: e.start_ns)
    path.write_bytes(b"".join(msgspec.json.encode(e) + b"\n" for e in rows))


def hostile_frames(table: "PacketTable", episode: Episode) -> "BoolArray":
    """(n,) True for the episode's hostile frames, by the rule on top of this file."""
    inside = (table.ts_ns >= episode.start_ns) & (table.ts_ns <= episode.end_ns)
    sent: BoolArray = inside & np.isin(table.src_mac, _macs(episode.attacker_macs))
    if not sent.any():
        return sent
    return np.asarray(sent & _SHAPES[episode.kind](table, episode))


def hostile_any(table: "PacketTable", episodes: Iterable[Episode]) -> "BoolArray":
    """(n,) True for frames that are hostile by any of the episodes."""
    out = np.zeros(len(table), dtype=np.bool_)
    for episode in episodes:
        out |= hostile_frames(table, episode)
    return out


def _macs(texts: list[str]) -> "U64":
    return np.array([int(t.replace(":", ""), 16) for t in texts], dtype=np.uint64)


def _v4(texts: list[str]) -> "NDArray[np.uint64]":
    """IPv4 addresses as `lo` of an address pair; others are left out."""
    found = [ipaddress.ip_address(t) for t in texts]
    return np.array([V4_MAPPED_LO | int(a) for a in found if a.version == 4], dtype=np.uint64)


def _v6(texts: list[str]) -> list[tuple[np.uint64, np.uint64]]:
    """IPv6 addresses as (hi, lo); others are left out."""
    found = [int(a) for t in texts if (a := ipaddress.ip_address(t)).version == 6]
    return [(np.uint64(a >> 64), np.uint64(a & (2**64 - 1))) for a in found]


def _speaks_v6(e: Episode) -> bool:
    return any(":" in text for text in e.attackers)


def _is_any(hi: "U64", lo: "U64", texts: list[str]) -> "BoolArray":
    out: BoolArray = np.zeros(len(hi), dtype=np.bool_)
    for high, low in _v6(texts):
        out |= (hi == high) & (lo == low)
    return out


def _nd(t: "PacketTable") -> "BoolArray":
    """What a kernel says by itself over IPv6: router and neighbour discovery, redirects."""
    return np.asarray((t.proto == 58) & (t.icmp_type >= 133) & (t.icmp_type <= 137))


def _to_victim(t: "PacketTable", e: Episode) -> "BoolArray":
    v4 = (t.family == 4) & np.isin(t.dst_lo, _v4(e.victims))
    v6 = (t.family == 6) & _is_any(t.dst_hi, t.dst_lo, e.victims) & ~_nd(t)
    return np.asarray(v4 | v6)


def _protocol(*numbers: int) -> Callable[["PacketTable", Episode], "BoolArray"]:
    return lambda t, e: np.asarray(_to_victim(t, e) & np.isin(t.proto, numbers))


def _syn(t: "PacketTable", e: Episode) -> "BoolArray":
    return np.asarray(_protocol(6)(t, e) & ((t.tcp_flags & 0x12) == 0x02))


def _mqtt(t: "PacketTable", e: Episode) -> "BoolArray":
    ports = np.array(e.ports, dtype=np.uint16)
    return np.asarray(_protocol(6)(t, e) & np.isin(t.dst_port, ports))


def _sweep(t: "PacketTable", e: Episode) -> "BoolArray":
    """Probes by any protocol to unicast addresses, and ARP requests; victims need not exist.

    Over IPv6: solicitations instead of ARP, and echo requests to a multicast address.
    """
    unicast = (t.dst_mac >> np.uint64(40)) & np.uint64(1) == 0
    if _speaks_v6(e):
        asks = (t.proto == 58) & ((t.icmp_type == 135) | (t.icmp_type == 128))
        return np.asarray((t.family == 6) & ((unicast & ~_nd(t)) | asks))
    out = (t.family == 4) & unicast
    out[t.arp.row[t.arp.op == 1]] = True
    return np.asarray(out)


def _spoofing(t: "PacketTable", e: Episode) -> "BoolArray":
    """ARP that claims an address which is not the attacker's, packets relayed, ICMP redirects.

    Over IPv6: neighbour discovery sent under another's address, and packets relayed.
    """
    if _speaks_v6(e):
        link_local = (t.src_hi >> np.uint64(54)) == np.uint64(0xFE80 >> 6)
        nobody = (t.src_hi == 0) & (t.src_lo == 0)
        own6 = link_local | nobody | _is_any(t.src_hi, t.src_lo, e.attackers)
        return np.asarray((t.family == 6) & ~own6)
    own = _v4(e.attackers)
    out = (t.family == 4) & (~np.isin(t.src_lo, own) | ((t.proto == 1) & (t.icmp_type == 5)))
    claims = np.isin(t.arp.sender_mac, _macs(e.attacker_macs))
    claims &= ~np.isin(t.arp.sender_ip.astype(np.uint64) | np.uint64(V4_MAPPED_LO), own)
    claims &= t.arp.sender_ip != 0
    out[t.arp.row[claims]] = True
    return np.asarray(out)


_SHAPES: dict[str, Callable[["PacketTable", Episode], "BoolArray"]] = {
    "tcp_syn_flood": _syn,
    "tcp_flood": _protocol(6),
    "udp_flood": _protocol(17),
    "icmp_flood": _protocol(1, 58),
    "ping_sweep": _sweep,
    "port_scan": _to_victim,
    "os_scan": _to_victim,
    "vulnerability_scan": _to_victim,
    "arp_spoofing": _spoofing,
    "mqtt_connect_flood": _mqtt,
    "mqtt_publish_flood": _mqtt,
    "mqtt_malformed": _mqtt,
}
