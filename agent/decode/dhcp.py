"""DHCPv4 by its header and the message type option.

It never reads a name, a vendor string or an address that is offered.

In: a batch and its transport layer. Out: `DhcpTable`. Raises: nothing. Remembers: nothing.

Source: RFC 2131 2, RFC 2132 9.6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from agent.decode.gather import gather, u32
from agent.records import DhcpTable

if TYPE_CHECKING:
    from agent.decode.transport import Transport
    from agent.records import I32, U8, FrameBatch

SERVER_PORT = 67
CLIENT_PORT = 68
FIXED_LEN = 236
COOKIE = 0x63825363
SCAN_LEN = 80
"""Bytes from the cookie on in which the message type is looked for; it nearly always comes first."""
MAX_OPTIONS = 8
MESSAGE_TYPE = 53


def decode_dhcp(batch: FrameBatch, transport: Transport) -> DhcpTable:
    """One row for each UDP payload from or to a DHCP port whose fixed part was captured whole."""
    speaks = np.zeros(len(batch), np.bool_)
    for port in (SERVER_PORT, CLIENT_PORT):
        speaks |= transport.src_port == port
        speaks |= transport.dst_port == port
    speaks &= transport.is_udp
    speaks &= transport.payload_caplen >= FIXED_LEN
    row = np.flatnonzero(speaks)
    start = transport.payload_off[row]
    options = gather(batch.buffer, start + FIXED_LEN, SCAN_LEN + 4)
    limit = np.minimum(transport.payload_caplen[row] - FIXED_LEN, SCAN_LEN)
    return DhcpTable(
        row=row,
        op=gather(batch.buffer, start, 1)[:, 0].copy(),
        message_type=_find_type(options, limit),
    )


def _find_type(options: U8, limit: I32) -> U8:
    """The value of option 53, 0 where it is absent or not among the first options; (m,)."""
    m, width = options.shape
    if not m:
        return np.empty(0, np.uint8)
    flat = options.reshape(-1)
    found = np.zeros(m, np.uint8)
    row = np.flatnonzero((limit >= 4) & (u32(options, 0) == COOKIE))
    at = np.full(len(row), 4, np.int64)
    for _ in range(MAX_OPTIONS):
        on = at + 3 <= limit[row]  # kind, length and one byte of value
        row, at = row[on], at[on]
        if not len(row):
            break
        kind, length = flat[row * width + at], flat[row * width + at + 1]
        hit = (kind == MESSAGE_TYPE) & (length == 1)
        found[row[hit]] = flat[(row * width + at + 2)[hit]]
        at += np.where(kind == 0, 1, length.astype(np.int64) + 2)  # kind 0 pads with one byte
        on = ~hit & (kind != 255)
        row, at = row[on], at[on]
    return found
