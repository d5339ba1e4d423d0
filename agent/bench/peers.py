"""What we compare ourselves with in the same run: a struct loop, dpkt and nfstream, where these are installed.

The struct loop and dpkt do the same work, frame by frame, the way a careful script does:

- they read the pcap record, Ethernet with its VLAN tags, IPv4 (options, fragments), IPv6 with its extension
  headers, TCP and UDP ports, TCP flags;
- of a TCP segment to or from port 1883 they walk all control packets that begin in it, by remaining length;
- they keep ten figures in a dictionary by flow (both addresses, protocol, both ports), by source and by
  destination: packets, bytes, payload bytes, SYN, FIN or RST, sum of gaps, last time, CONNECT, PUBLISH, other MQTT.

They do not keep windows or streams: nothing is forgotten or bounded, no control packet that runs over a segment
is put together. They read no ARP, ND, DNS, DHCP or TLS, and tell no new or unanswered hosts.

nfstream does its own work: bidirectional flows with its statistics and nDPI's names of applications, in
processes of its own (their CPU time counts).
"""

from __future__ import annotations

import mmap
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from pathlib import Path

    Buffer = bytes | mmap.mmap

MQTT_PORT = 1883
_NO_MQTT = (0, 0, 0)
_VLAN = (0x8100, 0x88A8)
_EXTENSIONS = (0, 43, 60)
"""IPv6 headers of `next, length`: hop-by-hop, routing, destination options (RFC 8200 4)."""
_FRAGMENT = 44


def _mqtt(data: Buffer, at: int, end: int) -> tuple[int, int, int]:
    """How many CONNECT, PUBLISH and other control packets begin in data[at:end]."""
    connects = publishes = others = 0
    while at + 1 < end:
        kind = data[at] >> 4
        at += 1
        length = shift = 0
        while at < end and shift < 28:
            byte = data[at]
            at += 1
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        at += length
        if kind == 3:
            publishes += 1
        elif kind == 1:
            connects += 1
        else:
            others += 1
    return connects, publishes, others


class Groups:
    """Ten figures by flow, by source, by destination."""

    def __init__(self) -> None:
        self.flows: dict[Hashable, list[int]] = {}
        self.sources: dict[Hashable, list[int]] = {}
        self.destinations: dict[Hashable, list[int]] = {}

    def add(
        self,
        flow: tuple[bytes, bytes, int, int, int],
        now_us: int,
        size: int,
        payload: int,
        flags: int,
        mqtt: tuple[int, int, int],
    ) -> None:
        """Count one packet."""
        rare = flags & 7
        for rows, key in (
            (self.flows, flow),
            (self.sources, flow[0]),
            (self.destinations, flow[1]),
        ):
            try:
                row = rows[key]
            except KeyError:
                row = rows[key] = [0, 0, 0, 0, 0, 0, now_us, 0, 0, 0]
            row[0] += 1
            row[1] += size
            row[2] += payload
            row[5] += now_us - row[6]
            row[6] = now_us
            if rare:
                row[3] += flags >> 1 & 1
                row[4] += (flags | flags >> 2) & 1
            if mqtt is not _NO_MQTT:
                row[7] += mqtt[0]
                row[8] += mqtt[1]
                row[9] += mqtt[2]


def _network(data: Buffer, at: int, end: int) -> tuple[bytes, bytes, int, int, int] | None:
    """Source, destination, protocol (-1: no header of it here), where it begins, where the packet ends."""
    kind = data[at + 12] << 8 | data[at + 13]
    at += 14
    while kind in _VLAN and at + 4 <= end:
        kind = data[at + 2] << 8 | data[at + 3]
        at += 4
    if kind == 0x0800 and at + 20 <= end:
        proto = -1 if (data[at + 6] & 0x1F) | data[at + 7] else data[at + 9]
        stop = min(at + (data[at + 2] << 8 | data[at + 3]), end)
        after = at + ((data[at] & 15) << 2)
        return data[at + 12 : at + 16], data[at + 16 : at + 20], proto, after, stop
    if kind == 0x86DD and at + 40 <= end:
        stop = min(at + 40 + (data[at + 4] << 8 | data[at + 5]), end)
        proto, after = data[at + 6], at + 40
        while proto in _EXTENSIONS and after + 8 <= stop:
            proto, after = data[after], after + 8 + (data[after + 1] << 3)
        if proto == _FRAGMENT and after + 8 <= stop:
            later = data[after + 2] | data[after + 3] >> 3
            proto, after = -1 if later else data[after], after + 8
        return data[at + 8 : at + 24], data[at + 24 : at + 40], proto, after, stop
    return None


def struct_loop(path: Path, groups: Groups | None = None) -> int:
    """The plain way: one record at a time with `struct`, headers by offset; frames read, counted in `groups`."""
    groups = groups or Groups()
    add = groups.add
    record = struct.Struct("<IIII").unpack_from
    head = struct.Struct("!12xHBxH2xHxB2x4s4s").unpack_from  # Ethernet and IPv4
    tcp = struct.Struct("!HH8xBB").unpack_from
    udp = struct.Struct("!HH").unpack_from
    n = 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at, size = 24, len(data)
        while at + 16 <= size:
            sec, usec, caplen, wirelen = record(data, at)
            at += 16
            end = at + caplen
            kind = 0
            if caplen >= 34:
                kind, length, total, fragment, proto, src, dst = head(data, at)
            if kind == 0x0800:
                if fragment & 0x1FFF:
                    proto = -1
                body = at + 14 + ((length & 15) << 2)
                stop = at + 14 + total
                stop = min(stop, end)
            else:
                found = _network(data, at, end) if caplen >= 14 else None
                if found is None:
                    at = end
                    n += 1
                    continue
                src, dst, proto, body, stop = found
            at = end
            n += 1
            sport = dport = flags = 0
            mqtt = _NO_MQTT
            if proto == 6 and body + 20 <= stop:
                sport, dport, length, flags = tcp(data, body)
                body += length >> 4 << 2
                if body < stop and (dport == MQTT_PORT or sport == MQTT_PORT):  # noqa: PLR1714  (quicker than a tuple)
                    mqtt = _mqtt(data, body, stop)
            elif proto == 17 and body + 8 <= stop:
                sport, dport = udp(data, body)
                body += 8
            payload = stop - body if stop > body else 0
            now_us = sec * 1_000_000 + usec
            add((src, dst, proto, sport, dport), now_us, wirelen, payload, flags, mqtt)
    return n


def dpkt_loop(path: Path, groups: Groups | None = None) -> int:
    """Dpkt's reader and parsers; frames read, counted in `groups`. Raises ImportError without dpkt."""
    import dpkt  # noqa: PLC0415 - a peer in benchmarks, not a dependency

    groups = groups or Groups()
    n = 0
    with path.open("rb") as file:
        for ts, frame in dpkt.pcap.Reader(file):
            n += 1
            try:
                ip = dpkt.ethernet.Ethernet(frame).data
            except dpkt.UnpackError:
                continue
            if not isinstance(ip, dpkt.ip.IP | dpkt.ip6.IP6):
                continue
            sport = dport = flags = 0
            mqtt = _NO_MQTT
            segment = ip.data
            payload = segment if isinstance(segment, bytes) else segment.data
            if isinstance(segment, dpkt.tcp.TCP):
                sport, dport, flags = segment.sport, segment.dport, segment.flags
                if payload and MQTT_PORT in (sport, dport):
                    mqtt = _mqtt(payload, 0, len(payload))
            elif isinstance(segment, dpkt.udp.UDP):
                sport, dport = segment.sport, segment.dport
            flow = (ip.src, ip.dst, ip.p, sport, dport)
            groups.add(flow, int(ts * 1e6), len(frame), len(payload), flags, mqtt)
    return n


def nfstream_flows(path: Path) -> int:
    """Nfstream's flows with statistics, one meter; packets in them (IP only). Raises ImportError without it."""
    from nfstream import NFStreamer  # noqa: PLC0415 - a peer in benchmarks, not a dependency

    flows = NFStreamer(source=str(path), statistical_analysis=True, n_meters=1)
    return sum(flow.bidirectional_packets for flow in flows)


PEERS: dict[str, Callable[[Path], int]] = {
    "struct loop": struct_loop,
    "dpkt": dpkt_loop,
    "nfstream": nfstream_flows,
}
"""Peer by name; each reads a capture and returns the number of frames that it has counted."""
