"""ARP for IPv4 over Ethernet: who claims which address.

It never reads other hardware or protocol types: those are `BAD_ARP`.

In: a batch and its link layer. Out: `ArpTable`; reasons are written into `Link.reason`.
Raises: nothing. Remembers: nothing.

Source: RFC 826.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from agent.decode.gather import gather, u16, u32, u48, u64
from agent.decode.link import ETH_ARP
from agent.records import ArpTable, Reason

if TYPE_CHECKING:
    from agent.decode.link import Link
    from agent.records import FrameBatch

ETHERNET_IPV4 = 0x0001_0800_0604
"""Hardware type 1, protocol type 0x0800, address lengths 6 and 4."""

PACKET_LEN = 28


def decode_arp(batch: FrameBatch, link: Link) -> ArpTable:
    """One row for each whole ARP packet."""
    row = np.flatnonzero((link.eth_type == ETH_ARP) & (link.reason == 0))
    start = link.start[row]
    room = batch.caplen[row] - start
    rows = gather(batch.buffer, batch.offset[row] + start, 32)  # u48 reads 8 bytes from its column
    cut = room < PACKET_LEN
    foreign = (room >= 6) & (u64(rows, 0) >> np.uint64(16) != ETHERNET_IPV4)
    link.reason[row[cut]] = Reason.TRUNCATED_L3
    link.reason[row[foreign]] = Reason.BAD_ARP
    good = ~cut & ~foreign
    row, rows = row[good], rows[good]
    return ArpTable(
        row=row,
        op=u16(rows, 6),
        sender_mac=u48(rows, 8),
        sender_ip=u32(rows, 14),
        target_mac=u48(rows, 18),
        target_ip=u32(rows, 24),
    )
