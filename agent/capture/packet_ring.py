"""Live capture of one interface: frames as they come, in batches, re-based to the monotonic clock.

From a ring shared with the kernel where there is one (`ring_slots`), else by plain recv, and it says
which. It waits a few milliseconds for a batch to fill instead of waking for each frame.

It never sends, and never decodes. Where the capture stands decides what is seen: on a tap our own
outgoing frames are ignored; on a gateway they are half of each conversation, captured and marked.

In: an interface's name. Out: FrameBatch with `ts_ns` on the monotonic clock; add `wall_offset_ns` for wall time.
Raises: CaptureError (NO_INTERFACE, INTERFACE_DOWN: retriable; PERMISSION, LINK_TYPE, RING_REFUSED, UNREADABLE) from
`open_live` and, once what came before has been read, from `read`.
Remembers: counters since it was opened.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from typing import TYPE_CHECKING, Literal, Protocol, Self

import numpy as np

from agent.capture.packet_recv import RecvReader
from agent.capture.packet_socket import (
    PACKET_OUTGOING,
    Interface,
    bind,
    find_interface,
    interface_drops,
    is_up,
    open_packet_socket,
    read_statistics,
    reading_failed,
)
from agent.capture.ring_slots import SLOT_BYTES, RawFrames, RingReader
from agent.errors import CaptureError, CaptureReason
from agent.records import FrameBatch, Placement

if TYPE_CHECKING:
    from agent.records import I64

BATCH_FRAMES = 16_384
ENOUGH_FRAMES = 2048
"""A batch this large is taken at once: numpy's cost of a call is shared by enough frames."""
NAP_S = 0.005
"""Between two looks at a batch that is filling: a ring of 8,192 slots fills in 40 ms at 200,000 frames/s."""
CLOCK_STEP_NS = 50_000_000
"""A change of the wall clock's offset between two batches that is a step and not a slew."""


class Reader(Protocol):
    """What `RingReader` and `RecvReader` have in common."""

    method: str
    ring_bytes: int

    def ready(self, at_most: int) -> tuple[int, bool]: ...  # noqa: D102 - told in ring_slots
    def take(self, n: int) -> RawFrames: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


class LiveCapture:
    """An open interface. Made by `open_live`; one thread reads it."""

    def __init__(
        self,
        interface: Interface,
        sock: socket.socket,
        reader: Reader,
        *,
        mark_outgoing: bool,
        drop_outgoing: bool,
        batch_frames: int,
        max_wait_s: float,
    ) -> None:
        self.interface = interface.name
        self.link_type = interface.link_type
        self.method = reader.method
        """`ring` or `recv`."""
        self.fallback_reason: str | None = None
        """Why there is no ring, where one was wanted."""
        self.ring_bytes = reader.ring_bytes
        """Memory of the ring, shared with the kernel."""
        self.wall_offset_ns = _wall_offset_ns()
        """Wall clock minus monotonic clock when the last batch was read."""
        self.n_frames = 0
        """Frames given so far."""
        self._socket, self._reader = sock, reader
        self._mark_outgoing, self._drop_outgoing = mark_outgoing, drop_outgoing
        self._batch_frames, self._max_wait_s = batch_frames, max_wait_s
        self._last_read_ns = time.monotonic_ns()
        self._kernel_packets = self._kernel_drops = self._truncated = 0
        self._first_drops = self._last_drops = interface_drops(interface.name) or 0
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the interface as it was (the kernel ends promiscuous mode). Twice is once."""
        if not self._closed:
            self._closed = True
            self._reader.close()
            self._socket.close()

    @property
    def interface_up(self) -> bool:
        """Whether the interface exists and is up now."""
        return is_up(self.interface)

    def read(self) -> FrameBatch | None:
        """The next batch, after at most `max_wait_s`; None where nothing came."""
        deadline_s = time.monotonic() + self._max_wait_s
        try:
            while True:
                n, at_once = self._reader.ready(self._batch_frames)
                left_s = deadline_s - time.monotonic()
                if n and (at_once or n >= ENOUGH_FRAMES or left_s <= 0):
                    return self._batch(self._reader.take(n))
                if n:
                    time.sleep(min(left_s, NAP_S))
                elif not self._wait(left_s):
                    return None
        except OSError as error:
            raise reading_failed(error, self.interface) from error

    def stats(self) -> dict[str, int]:
        """Counts since the capture was opened.

        `frames` given · `kernel_packets` seen by the kernel, drops included · `kernel_drops` for want of
        room in the ring · `interface_drops` by the device or its driver · `truncated` frames given short.
        """
        if not self._closed:
            packets, drops = read_statistics(self._socket)
            self._kernel_packets += packets
            self._kernel_drops += drops
            now = interface_drops(self.interface)
            self._last_drops = self._last_drops if now is None else now
        return {
            "frames": self.n_frames,
            "kernel_packets": self._kernel_packets,
            "kernel_drops": self._kernel_drops,
            "interface_drops": max(self._last_drops - self._first_drops, 0),
            "truncated": self._truncated,
        }

    def _wait(self, left_s: float) -> bool:
        """Sleep until a frame comes; False where none did, and the interface is there and up."""
        events = self._poll.poll(max(left_s, 0) * 1000)
        pending = 0
        if not events and not self.interface_up:
            pending = errno.ENETDOWN
        elif any(event & ~select.POLLIN for _, event in events):
            pending = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if pending:
            raise OSError(pending, os.strerror(pending))
        return bool(events)

    def _batch(self, raw: RawFrames) -> FrameBatch | None:
        before_ns, self._last_read_ns = self._last_read_ns, time.monotonic_ns()
        old_ns, self.wall_offset_ns = self.wall_offset_ns, _wall_offset_ns()
        ts_ns = rebase(
            raw.wall_ns,
            offsets_ns=(old_ns, self.wall_offset_ns),
            between_ns=(before_ns, self._last_read_ns),
        )
        outgoing = raw.pkttype == PACKET_OUTGOING
        keep: slice | np.ndarray[tuple[int], np.dtype[np.bool_]] = slice(None)
        if self._drop_outgoing and outgoing.any():
            keep = ~outgoing
        batch = FrameBatch(
            ts_ns=ts_ns[keep],
            offset=raw.offset[keep],
            caplen=raw.caplen[keep],
            wirelen=raw.wirelen[keep],
            buffer=raw.buffer,
            link_type=self.link_type,
            vlan_tci=raw.vlan_tci[keep],
            outgoing=outgoing[keep] if self._mark_outgoing else None,
        )
        self.n_frames += len(batch)
        self._truncated += int(np.count_nonzero(batch.caplen < batch.wirelen))
        return batch if len(batch) else None


def rebase(wall_ns: I64, *, offsets_ns: tuple[int, int], between_ns: tuple[int, int]) -> I64:
    """Kernel times on the monotonic clock; (n,) ns, none in the future.

    `offsets_ns`: wall minus monotonic clock, at the last batch and now; `between_ns`: the monotonic times of
    the two. Where the wall clock was stepped between them, some frames were stamped before the step: those
    that the new offset does not place between the two.
    """
    old_ns, new_ns = offsets_ns
    before_ns, now_ns = between_ns
    ts_ns = wall_ns - new_ns
    if abs(new_ns - old_ns) > CLOCK_STEP_NS:
        misplaced = (ts_ns > now_ns) | (ts_ns < before_ns)
        ts_ns = np.where(misplaced, wall_ns - old_ns, ts_ns)
        ts_ns = np.maximum(ts_ns, before_ns)
    return np.minimum(ts_ns, now_ns)


def open_live(  # noqa: PLR0913 - settings of one device, by keyword
    interface: str,
    *,
    placement: Placement,
    ring_mib: int = 16,
    slot_bytes: int = SLOT_BYTES,
    batch_frames: int = BATCH_FRAMES,
    max_wait_s: float = 0.1,
    promiscuous: bool = True,
    ignore_outgoing: bool | None = None,
    method: Literal["auto", "ring", "recv"] = "auto",
) -> LiveCapture:
    """Listen on an interface.

    `ring_mib` [MiB] of `slot_bytes` slots: 16 MiB is 8,192 frames, 40 ms at 200,000 frames/s. `ignore_outgoing`
    defaults to what the placement means; set it on each of several ports of one bridge (`packet_socket.bridge_of`).
    """
    found = find_interface(interface)
    if ignore_outgoing is None:
        ignore_outgoing = placement is Placement.TAP
    # On the loopback each frame is outgoing first and then incoming: one of them is enough.
    ignore_outgoing = ignore_outgoing or found.loopback
    refused: OSError | None = None
    if method != "recv":
        sock, ignored = open_packet_socket(ignore_outgoing=ignore_outgoing)
        try:
            reader: Reader = RingReader(sock, ring_bytes=ring_mib << 20, slot_bytes=slot_bytes)
        except (OSError, ValueError) as error:
            sock.close()
            refused = error if isinstance(error, OSError) else OSError(0, str(error))
    if method == "ring" and refused:
        problem = f"{interface}: no packet ring from this system: {refused.strerror}"
        raise CaptureError(CaptureReason.RING_REFUSED, problem) from refused
    if method == "recv" or refused:
        sock, ignored = open_packet_socket(ignore_outgoing=ignore_outgoing)
        reader = RecvReader(sock, buffer_bytes=ring_mib << 20)
    capture = LiveCapture(
        found,
        sock,
        reader,
        mark_outgoing=not ignore_outgoing,
        drop_outgoing=ignore_outgoing and not ignored,
        batch_frames=batch_frames,
        max_wait_s=max_wait_s,
    )
    capture.fallback_reason = refused.strerror if refused else None
    try:
        bind(sock, found, promiscuous=promiscuous)
    except CaptureError:
        capture.close()
        raise
    return capture


def _wall_offset_ns() -> int:
    return time.time_ns() - time.monotonic_ns()
