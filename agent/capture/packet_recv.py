"""Frames by plain recv, one call a frame: where the kernel (or an emulator) gives no ring.

Slower than the ring, and the kernel holds few frames between two reads (a receive buffer of some
hundred kB unless the process may ask for more), so more is dropped under load; it is counted the same.

It never sends, never blocks and never decodes.

In: a packet socket that is not bound yet. Out: `RawFrames` by `take`, as many as `ready` said.
Raises: OSError from reading.
Remembers: the frames that were read and not yet taken.
Source: packet(7) (PACKET_AUXDATA), socket(7) (SO_TIMESTAMPNS).
"""

from __future__ import annotations

import socket
import struct
import time
from typing import TYPE_CHECKING

import numpy as np

from agent.capture.packet_socket import PACKET_AUXDATA, SOL_PACKET, widen_receive_buffer
from agent.capture.ring_slots import SNAPLEN_MAX, RawFrames

if TYPE_CHECKING:
    from collections.abc import Iterable

SO_TIMESTAMPNS = 35
TP_STATUS_VLAN_VALID = 16
AUXDATA = struct.Struct("IIIHHHH")  # tpacket_auxdata: status len snaplen mac net vlan_tci vlan_tpid
TIMESPEC = struct.Struct("qq")
ANCILLARY_BYTES = socket.CMSG_SPACE(AUXDATA.size) + socket.CMSG_SPACE(TIMESPEC.size)
HELD_BYTES = 2 << 20
"""Frames held between two takes; beyond that they wait in the kernel."""


class RecvReader:
    """The frames of one socket."""

    method = "recv"
    ring_bytes = 0

    def __init__(self, sock: socket.socket, *, buffer_bytes: int) -> None:
        self._socket = sock
        widen_receive_buffer(sock, buffer_bytes)
        sock.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._bytes = bytearray(HELD_BYTES)
        self._end = 0
        self._rows: list[tuple[int, int, int, int, int, int]] = []

    def close(self) -> None:
        """Nothing is held in the kernel but the socket."""

    def ready(self, at_most: int) -> tuple[int, bool]:
        """How many frames are held, after reading all that wait; and whether they should be taken at once."""
        view = memoryview(self._bytes)
        full = False
        while not full:
            full = len(self._rows) >= at_most or self._end + SNAPLEN_MAX > HELD_BYTES
            if full or not self._read_one(view[self._end : self._end + SNAPLEN_MAX]):
                break
        return len(self._rows), full

    def take(self, n: int) -> RawFrames:
        """The `n` frames that are held."""
        assert n == len(self._rows)
        wall_ns, offset, caplen, wirelen, tci, pkttype = np.array(self._rows, np.int64).T
        buffer = np.frombuffer(bytes(memoryview(self._bytes)[: self._end]), np.uint8)
        self._rows, self._end = [], 0
        return RawFrames(
            wall_ns=wall_ns,
            offset=offset,
            caplen=caplen.astype(np.int32),
            wirelen=wirelen.astype(np.int32),
            buffer=buffer,
            vlan_tci=tci.astype(np.int32),
            pkttype=pkttype.astype(np.uint8),
        )

    def _read_one(self, room: memoryview) -> bool:
        try:
            n, ancillary, _, address = self._socket.recvmsg_into([room], ANCILLARY_BYTES)
        except BlockingIOError:
            return False
        wall_ns, wirelen, tci = _ancillary(ancillary)
        row = (wall_ns or time.time_ns(), self._end, n, max(wirelen, n), tci, address[2])
        self._rows.append(row)
        self._end += n
        return True


def _ancillary(items: Iterable[tuple[int, int, bytes]]) -> tuple[int, int, int]:
    """(kernel time [ns] or 0, length on the wire or 0, VLAN TCI or -1)."""
    wall_ns, wirelen, tci = 0, 0, -1
    for level, kind, data in items:
        if level == SOL_PACKET and kind == PACKET_AUXDATA and len(data) >= AUXDATA.size:
            status, wirelen, _, _, _, vlan_tci, _ = AUXDATA.unpack_from(data)
            tci = vlan_tci if status & TP_STATUS_VLAN_VALID else -1
        elif level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(data) >= TIMESPEC.size:
            seconds, nanoseconds = TIMESPEC.unpack_from(data)
            wall_ns = seconds * 1_000_000_000 + nanoseconds
    return wall_ns, wirelen, tci
