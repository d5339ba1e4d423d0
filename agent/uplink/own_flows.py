"""Which frames are our own broker connection: its exact 5-tuple, kept a while after it closed.

It exempts nothing else: another connection to the same broker, from this machine too, is looked at.

In: `opened` and `closed` from the uplink's thread. Out: called by the pipeline's threads with a
`PacketTable`, (n,) bool, True for the frames to leave out; None where there are none.
Remembers: at most 64 connections; a closed one for `LINGER_S`, since its last frames may still wait
in a ring.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import numpy as np

from agent.records import V4_MAPPED_LO, Endpoint

if TYPE_CHECKING:
    from agent.records import BoolArray, PacketTable

LINGER_S = 60.0
"""Longer than frames wait in a ring, and than a FIN is retransmitted; a port is reused much later."""
MAX_FLOWS = 64
TCP = 6

Flow = tuple[Endpoint, int, Endpoint, int]
"""Local address and port, remote address and port."""


class OwnFlows:
    """The broker connections of this process, as a filter over packet tables."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until_s: dict[Flow, float] = {}

    def opened(self, flow: Flow) -> None:
        """About to connect: from now on its frames are our own."""
        with self._lock:
            self._until_s.pop(flow, None)
            self._until_s[flow] = float("inf")
            while len(self._until_s) > MAX_FLOWS:
                self._until_s.pop(next(iter(self._until_s)))

    def closed(self, flow: Flow) -> None:
        """The connection is gone; frames of it may still arrive."""
        with self._lock:
            if flow in self._until_s:
                self._until_s[flow] = time.monotonic() + LINGER_S

    def flows(self) -> list[Flow]:
        """The connections of now and of the last `LINGER_S`."""
        now_s = time.monotonic()
        with self._lock:
            for flow in [f for f, until_s in self._until_s.items() if until_s < now_s]:
                del self._until_s[flow]
            return list(self._until_s)

    def __call__(self, table: PacketTable) -> BoolArray | None:
        """(n,) True for frames of our own connections; None where there are none."""
        own = np.zeros(len(table), dtype=np.bool_)
        for local, local_port, remote, remote_port in self.flows():
            sent = _one_way(table, local, local_port, remote, remote_port)
            received = _one_way(table, remote, remote_port, local, local_port)
            own |= sent | received
        return own if own.any() else None


def _one_way(
    table: PacketTable, source: Endpoint, source_port: int, target: Endpoint, target_port: int
) -> BoolArray:
    mask: BoolArray = (table.src_port == source_port) & (table.dst_port == target_port)
    if mask.any():
        mask &= table.proto == TCP
        mask &= (table.src_lo == np.uint64(source.lo)) & (table.src_hi == np.uint64(source.hi))
        mask &= (table.dst_lo == np.uint64(target.lo)) & (table.dst_hi == np.uint64(target.hi))
    return mask


def endpoint_of(packed: bytes) -> Endpoint:
    """An address of 4 or 16 bytes in network order, as the records hold it."""
    if len(packed) == 4:
        return Endpoint(0, V4_MAPPED_LO | int.from_bytes(packed, "big"))
    return Endpoint(int.from_bytes(packed[:8], "big"), int.from_bytes(packed[8:], "big"))
