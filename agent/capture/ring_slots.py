"""Frames from a TPACKET_V2 ring that is shared with the kernel: fixed slots, read as columns.

Headers and bytes are copied out, as wide as the widest frame that is there, then the slots are given
back and never touched again. The outer VLAN tag, which the kernel takes out of the frame, comes from the
slot's header. A frame larger than a slot (jumbo, or merged by GRO) lies whole in the socket's queue, where
the kernel puts a copy while there is room; where there was none, the frame is short and counted.

It never sends, never blocks and never decodes.

In: a packet socket that is not bound yet. Out: `RawFrames` by `take`, as many as `ready` said.
Raises: OSError where the kernel refuses a ring.
Remembers: the slot that comes next.
Source: Linux Documentation/networking/packet_mmap.rst; linux/if_packet.h.
"""

from __future__ import annotations

import mmap
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agent.capture.packet_socket import (
    PACKET_COPY_THRESH,
    PACKET_RX_RING,
    PACKET_VERSION,
    SOL_PACKET,
    widen_receive_buffer,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.records import I32, I64, U8

TPACKET_V2 = 1
TP_STATUS_USER, TP_STATUS_COPY, TP_STATUS_VLAN_VALID = 1, 2, 16

SLOT_BYTES = 2048
"""Holds an MTU frame whole: 66 bytes of the kernel's come before it, so up to 1,982 captured bytes."""

BLOCK_BYTES = 1 << 16
"""What the kernel allocates at once; a multiple of the page and of the slot, so slots lie without gaps."""

SNAPLEN_MAX = 65_600
"""The largest frame that GRO makes (65,535 bytes of IP) with its link header."""

LARGE_FRAMES_BYTES = 4 << 20
"""Receive buffer asked for, for copies of frames larger than a slot."""

SLOT_HEADER = np.dtype(
    {
        # tpacket2_hdr, and from byte 32 on the sockaddr_ll that follows it.
        "names": ["status", "len", "snaplen", "mac", "sec", "nsec", "vlan_tci", "pkttype"],
        "formats": ["u4", "u4", "u4", "u2", "u4", "u4", "u2", "u1"],
        "offsets": [0, 4, 8, 12, 16, 20, 24, 42],
        "itemsize": 48,
    }
)


@dataclass(slots=True, frozen=True, kw_only=True)
class RawFrames:
    """Frames as a reader copied them out; times are the kernel's wall clock."""

    wall_ns: I64
    offset: I64
    caplen: I32
    wirelen: I32
    buffer: U8
    vlan_tci: I32
    pkttype: U8


class RingReader:
    """The ring of one socket."""

    method = "ring"

    def __init__(
        self, sock: socket.socket, *, ring_bytes: int, slot_bytes: int = SLOT_BYTES
    ) -> None:
        self._socket = sock
        block_bytes = max(BLOCK_BYTES, slot_bytes)
        n_blocks = max(ring_bytes // block_bytes, 1)
        self.n_slots = n_blocks * (block_bytes // slot_bytes)
        self.ring_bytes = n_blocks * block_bytes
        sock.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V2)
        sock.setsockopt(SOL_PACKET, PACKET_COPY_THRESH, 1)
        widen_receive_buffer(sock, LARGE_FRAMES_BYTES)
        request = struct.pack("IIII", block_bytes, n_blocks, slot_bytes, self.n_slots)
        sock.setsockopt(SOL_PACKET, PACKET_RX_RING, request)
        self._map = mmap.mmap(sock.fileno(), self.ring_bytes)
        shape = (self.n_slots, slot_bytes)
        self._slots: U8 = np.ndarray(shape, np.uint8, buffer=self._map)
        self._headers: NDArray[np.void] = np.ndarray(
            (self.n_slots,), SLOT_HEADER, buffer=self._map, strides=(slot_bytes,)
        )
        self._next = 0

    def close(self) -> None:
        """Unmap the ring; the views go first, or the map cannot."""
        del self._slots, self._headers
        self._map.close()

    def ready(self, at_most: int) -> tuple[int, bool]:
        """How many slots in a row are filled, up to the ring's end; and whether they should be taken at once.

        At once: where a large frame waits in the socket's small queue, or the ring's end is reached.
        """
        room = min(at_most, self.n_slots - self._next)
        n = 0
        width = 1
        while n < room:
            status = self._headers["status"][self._next + n : self._next + min(n + width, room)]
            empty = np.flatnonzero(status & TP_STATUS_USER == 0)
            filled = int(empty[0]) if len(empty) else len(status)
            n += filled
            if filled < len(status):
                break
            width *= 4
        status = self._headers["status"][self._next : self._next + n]
        return n, n == room or bool((status & TP_STATUS_COPY).any())

    def take(self, n: int) -> RawFrames:
        """The next `n` slots, which `ready` has counted; they are the kernel's again."""
        # Between the read of a status and that of its slot lie thousands of instructions and branches on
        # it: no processor reads the bytes before the kernel has written them.
        rows = slice(self._next, self._next + n)
        header = self._headers[rows].copy()
        mac = header["mac"].astype(np.int64)
        caplen = header["snaplen"].astype(np.int64)
        first, last = int(mac.min()), int((mac + caplen).max())
        block: U8 = self._slots[rows, first:last].copy()
        self._headers["status"][rows] = 0
        self._next = (self._next + n) % self.n_slots
        offset = np.arange(n, dtype=np.int64) * (last - first) + (mac - first)
        buffer = block.reshape(-1)
        large = np.flatnonzero(header["status"] & TP_STATUS_COPY)
        if len(large):
            buffer = self._large_frames(large, buffer, offset, caplen)
        wall_ns = header["sec"].astype(np.int64) * 1_000_000_000
        wall_ns += header["nsec"]
        tagged = header["status"] & TP_STATUS_VLAN_VALID != 0
        return RawFrames(
            wall_ns=wall_ns,
            offset=offset,
            caplen=caplen.astype(np.int32),
            wirelen=header["len"].astype(np.int32),
            buffer=buffer,
            vlan_tci=np.where(tagged, header["vlan_tci"].astype(np.int32), -1).astype(np.int32),
            pkttype=header["pkttype"],
        )

    def _large_frames(self, rows: I64, buffer: U8, offset: I64, caplen: I64) -> U8:
        """The buffer with the whole frames of `rows` behind it; `offset` and `caplen` are set to them."""
        parts = [buffer]
        end = len(buffer)
        for row in rows:
            try:
                frame = self._socket.recv(SNAPLEN_MAX)
            except (
                OSError
            ):  # not there after all: the frame stays as short as its slot, and is counted
                break
            parts.append(np.frombuffer(frame, np.uint8))
            offset[row], caplen[row] = end, len(frame)
            end += len(frame)
        return np.concatenate(parts)
