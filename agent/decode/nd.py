"""IPv6 neighbour discovery: solicitations and advertisements, and the link-layer address they claim.

It never reads router or redirect messages, and does not judge the hop limit (which must be 255): a
forged message is what a rule wants to see.

In: a batch, its network and transport layers. Out: `NdTable`. Raises: nothing. Remembers: nothing.

Source: RFC 4861 4.3, 4.4, 4.6.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from agent.decode.gather import gather, u48, u64
from agent.decode.ip import PROTO_ICMPV6
from agent.records import NdTable

if TYPE_CHECKING:
    from agent.decode.ip import Ip
    from agent.decode.transport import Transport
    from agent.records import I32, U8, U64, FrameBatch

SOLICITATION = 135
ADVERTISEMENT = 136
FIXED_LEN = 24
SCAN_LEN = 64
"""The fixed part and the first 40 bytes of options: five of the usual 8 bytes."""


def decode_nd(batch: FrameBatch, ip: Ip, transport: Transport) -> NdTable:
    """One row for each whole solicitation or advertisement."""
    kind = transport.icmp_type
    row = np.flatnonzero((kind == SOLICITATION) | (kind == ADVERTISEMENT))
    row = row[(ip.family[row] == 6) & (ip.proto[row] == PROTO_ICMPV6)]
    room = np.minimum(batch.caplen[row], ip.end[row]) - ip.l4[row]
    keep = room >= FIXED_LEN
    row, room = row[keep], room[keep]
    rows = gather(batch.buffer, batch.offset[row] + ip.l4[row], SCAN_LEN + 8)
    advertises = rows[:, 0] == ADVERTISEMENT
    option = np.where(advertises, 2, 1).astype(np.uint8)  # target or source link-layer address
    return NdTable(
        row=row,
        icmp_type=rows[:, 0].copy(),
        target_hi=u64(rows, 8),
        target_lo=u64(rows, 16),
        link_mac=_find_mac(rows, np.minimum(room, SCAN_LEN), option),
        flags=(rows[:, 4] >> 5) * advertises,
    )


def _find_mac(rows: U8, limit: I32, option: U8) -> U64:
    """The address in the first option of the kind asked for, 0 where none; options count units of 8 bytes."""
    m, width = rows.shape
    if not m:
        return np.empty(0, np.uint64)
    flat = rows.reshape(-1)
    mac = np.zeros(m, np.uint64)
    row = np.flatnonzero(limit >= FIXED_LEN + 8)
    at = np.full(len(row), FIXED_LEN, np.int64)
    for _ in range((SCAN_LEN - FIXED_LEN) // 8):
        if not len(row):
            break
        kind, units = flat[row * width + at], flat[row * width + at + 1]
        hit = (kind == option[row]) & (units == 1)
        mac[row[hit]] = u48(gather(flat, row[hit] * width + at[hit] + 2, 8), 0)
        at += units.astype(np.int64) * 8
        on = ~hit & (units > 0) & (at + 8 <= limit[row])
        row, at = row[on], at[on]
    return mac
