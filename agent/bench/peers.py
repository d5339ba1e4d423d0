"""What we compare ourselves with in the same run: a struct loop, and dpkt where it is installed; each with a dict.

Both read the same capture and keep per-source counts, a small part of what the pipeline does.
"""

from __future__ import annotations

import mmap
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def struct_loop(path: Path) -> int:
    """The plain way: one record at a time with `struct`, headers by offset, a dict of counters; frames read."""
    hosts: dict[bytes, list[int]] = {}
    record = struct.Struct("<IIII").unpack_from
    transport = struct.Struct("!HHII").unpack_from
    n = 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at, end = 24, len(data)
        while at + 16 <= end:
            sec, usec, caplen, wirelen = record(data, at)
            at += 16
            kind = data[at + 12] << 8 | data[at + 13]
            if kind == 0x0800:
                offset = at + 14 + ((data[at + 14] & 15) << 2)
                source = data[at + 26 : at + 30]
                row = hosts.get(source)
                if row is None:
                    row = hosts[source] = [0] * 8
                row[0] += 1
                row[1] += wirelen
                row[2] = sec * 1_000_000 + usec
                proto = data[at + 23]
                if proto == 6:
                    _sport, dport, _seq, _ack = transport(data, offset)
                    flags = data[offset + 13]
                    row[3] += flags & 1
                    row[4] += flags >> 1 & 1
                    row[5] += flags >> 2 & 1
                    body = offset + (data[offset + 12] >> 4 << 2)
                    if dport == 1883 and body < at + caplen:
                        row[6] += data[body] >> 4 == 3
                elif proto == 17:
                    row[7] += 1
            n += 1
            at += caplen
    return n


def dpkt_loop(path: Path) -> int:
    """Dpkt's reader and Ethernet parser, a dict of counters; frames read. Raises ImportError without dpkt."""
    import dpkt  # noqa: PLC0415 - a peer in benchmarks, not a dependency

    hosts: dict[bytes, list[int]] = {}
    n = 0
    with path.open("rb") as file:
        for ts, frame in dpkt.pcap.Reader(file):
            ip = dpkt.ethernet.Ethernet(frame).data
            n += 1
            if not isinstance(ip, dpkt.ip.IP):
                continue
            row = hosts.setdefault(ip.src, [0] * 8)
            row[0] += 1
            row[1] += len(frame)
            row[2] = int(ts * 1e6)
            if isinstance(ip.data, dpkt.tcp.TCP):
                row[3] += ip.data.flags & 1
                row[4] += ip.data.flags >> 1 & 1
                row[5] += ip.data.flags >> 2 & 1
                if ip.data.dport == 1883 and ip.data.data:
                    row[6] += ip.data.data[0] >> 4 == 3
            elif isinstance(ip.data, dpkt.udp.UDP):
                row[7] += 1
    return n


PEERS = {"struct loop": struct_loop, "dpkt": dpkt_loop}
"""Peer by name; each reads a capture and returns the number of frames."""
