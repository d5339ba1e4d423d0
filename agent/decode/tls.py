"""TLS by what a TCP payload opens with, on any port, and ClientHellos by their shape.

It never reads a server name, a cipher's identity, a session id or a certificate: counts and lengths
only, so nothing here is a fingerprint of a person's software. It never joins segments.

In: a batch and its transport layer. Out: the `tls` column and `TlsTable`. Raises: nothing. Remembers: nothing.

Source: RFC 8446 4.1.2, 5.1, RFC 5246 6.2.1, 7.4.1.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from agent.decode.gather import gather, u16, u32
from agent.records import TlsRecord, TlsTable

if TYPE_CHECKING:
    from agent.decode.transport import Transport
    from agent.records import I32, I64, U8, U16, FrameBatch

RECORD_HEADER_LEN = 5
HELLO_MIN_LEN = 11
"""Record header, handshake header and version: a hello cut before is an unnamed handshake record."""
MAX_RECORD_LEN = (1 << 14) + 2048
"""What TLS 1.2 allows for a protected record; 1.3 allows less."""

CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA = 20, 21, 22, 23

SESSION_ID_AT = 43
"""From the record's start: 5 record header, 4 handshake header, 2 version, 32 random."""

MAX_EXTENSIONS = 64
"""Real hellos have about 20; a hello with more counts as this many."""


def decode_tls(batch: FrameBatch, transport: Transport) -> tuple[U8, TlsTable]:
    """The record that each frame's payload opens with, (n,) `TlsRecord`, and the ClientHellos."""
    tls = np.zeros(len(batch), np.uint8)
    row = np.flatnonzero(transport.is_tcp & (transport.payload_caplen >= RECORD_HEADER_LEN))
    # The first byte alone tells most of what is not TLS.
    kind = batch.buffer.take(transport.payload_off.take(row))
    row = row[kind - np.uint8(CHANGE_CIPHER_SPEC) < np.uint8(4)]
    rows = gather(batch.buffer, transport.payload_off[row], 12)
    word = u32(rows, 0)
    plausible = (word & 0x00FF_FF00) - np.uint32(0x0003_0000) <= np.uint32(
        0x0400
    )  # version 3.0 to 3.4
    row, rows = row[plausible], rows[plausible]
    length = u16(rows, 3)
    kind = rows[:, 0]
    fits = (length >= 1) & (length <= MAX_RECORD_LEN)
    fits &= (kind != CHANGE_CIPHER_SPEC) | (length == 1)
    fits &= (kind != ALERT) | (length >= 2)
    row, rows = row[fits], rows[fits]
    name = _name(rows, transport.payload_caplen[row])
    tls[row] = name
    hello = name == TlsRecord.CLIENT_HELLO
    row, rows = row[hello], rows[hello]
    start = transport.payload_off[row]
    n_ciphers, n_extensions = _count(batch.buffer, start, transport.payload_caplen[row])
    return tls, TlsTable(
        row=row,
        record_version=u16(rows, 1),
        hello_version=u16(rows, 9),
        n_ciphers=n_ciphers,
        n_extensions=n_extensions,
        hello_len=(u32(rows, 5) & 0x00FF_FFFF).astype(np.int32),
    )


def _name(rows: U8, caplen: I32) -> U8:
    """`TlsRecord` of each plausible record; (m,)."""
    table = np.zeros(256, np.uint8)
    table[CHANGE_CIPHER_SPEC] = TlsRecord.CHANGE_CIPHER_SPEC
    table[ALERT] = TlsRecord.ALERT
    table[HANDSHAKE] = TlsRecord.HANDSHAKE_OTHER
    table[APPLICATION_DATA] = TlsRecord.APPLICATION_DATA
    name: U8 = table[rows[:, 0]]
    # A hello's own version starts with 3, and its length fits 24 bits' lower half: else it is ciphertext.
    hello = (rows[:, 0] == HANDSHAKE) & (caplen >= HELLO_MIN_LEN)
    hello &= (rows[:, 9] == 3) & (rows[:, 6] == 0)
    name[hello & (rows[:, 5] == 1)] = TlsRecord.CLIENT_HELLO
    name[hello & (rows[:, 5] == 2)] = TlsRecord.SERVER_HELLO
    return name


def _count(buffer: U8, start: I64, caplen: I32) -> tuple[U16, U16]:
    """Cipher suites and extensions of ClientHellos; 0 where the segment ends before they are counted.

    Each list is found by the length of the one before; a field counts only if captured whole.
    """
    if not len(start):
        return np.empty(0, np.uint16), np.empty(0, np.uint16)
    at = np.full(len(start), SESSION_ID_AT, np.int64)
    seen = at + 1 <= caplen
    at += 1 + gather(buffer, start + at * seen, 1)[:, 0]
    seen &= at + 2 <= caplen
    length = u16(gather(buffer, start + at * seen, 2), 0)
    n_ciphers = length // np.uint16(2) * seen
    at += length.astype(np.int64) + 2
    seen &= at + 1 <= caplen
    at += gather(buffer, start + at * seen, 1)[:, 0].astype(np.int64) + 1  # compression methods
    seen &= at + 2 <= caplen
    end = at + 2 + u16(gather(buffer, start + at * seen, 2), 0)
    seen &= end <= caplen
    n_extensions = np.zeros(len(start), np.uint16)
    row = np.flatnonzero(seen)
    at = at[row] + 2
    for _ in range(MAX_EXTENSIONS):
        on = at + 4 <= end[row]
        row, at = row[on], at[on]
        if not len(row):
            break
        at += 4 + u16(gather(buffer, start[row] + at + 2, 2), 0).astype(np.int64)
        n_extensions[row] += 1
    return n_ciphers, n_extensions
