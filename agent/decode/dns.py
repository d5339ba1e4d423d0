"""DNS, multicast DNS and LLMNR over UDP, by the 12-byte header only.

It never reads a name, a question or an answer, and nothing over TCP or TLS.

In: a batch and its transport layer. Out: `DnsTable`. Raises: nothing. Remembers: nothing.

Source: RFC 1035 4.1.1, RFC 6762 (5353), RFC 4795 (5355).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from agent.decode.gather import gather, u16
from agent.records import DnsTable

if TYPE_CHECKING:
    from agent.decode.transport import Transport
    from agent.records import FrameBatch

PORTS = (53, 5353, 5355)
HEADER_LEN = 12


def decode_dns(batch: FrameBatch, transport: Transport) -> DnsTable:
    """One row for each UDP payload from or to a DNS port whose header was captured whole."""
    speaks = np.zeros(len(batch), np.bool_)
    for port in PORTS:
        speaks |= transport.src_port == port
        speaks |= transport.dst_port == port
    speaks &= transport.is_udp
    speaks &= transport.payload_caplen >= HEADER_LEN
    row = np.flatnonzero(speaks)
    rows = gather(batch.buffer, transport.payload_off[row], HEADER_LEN)
    return DnsTable(
        row=row,
        response=rows[:, 2] >= 0x80,
        opcode=rows[:, 2] >> np.uint8(3) & np.uint8(15),
        rcode=rows[:, 3] & np.uint8(15),
        n_questions=u16(rows, 4),
        n_answers=u16(rows, 6),
    )
