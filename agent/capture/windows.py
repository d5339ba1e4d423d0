"""The bytes of a file, plain or gzip, as successive windows; it never knows what they mean.

A plain file is memory-mapped and a window is a view of the map: nothing is copied. A gzip file is
inflated window by window into memory, so that neither a huge file nor a bomb costs more memory or
any disk. The reader consumes what it understood; the next window starts right behind that.

In: an open file. Out: `window()`, (n,) uint8, n below `WINDOW_BYTES` only where the data end.
Raises: CaptureError(UNREADABLE) where the system refuses to read. Damaged gzip data is no error: the data
end there, and `damage` says so.
Remembers: its position. Frames may refer to old windows for as long as they like. A plain file that
somebody shortens while it is read ends the process (SIGBUS), as for every reader that maps files.
Source: RFC 1952 (gzip).
"""

from __future__ import annotations

import mmap
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, Protocol

import numpy as np

from agent.errors import CaptureError, CaptureReason

if TYPE_CHECKING:
    from agent.records import U8

WINDOW_BYTES = 16 << 20
"""Far above the largest record that is read (256 KiB), so that a window without one whole record is
malformed; small enough that the offsets of its records (8 bytes for each 16) stay below 10 MB."""

GZIP_MAGIC = b"\x1f\x8b"
INPUT_BYTES = 1 << 18
MADV_POPULATE_READ = 22
INFLATE_GZIP = 31  # zlib's wbits: the largest window, with a gzip header and its checksum


class Windows(Protocol):
    """What the walks of pcap and pcapng read from."""

    position: int
    """Bytes of data consumed: where the next window starts."""
    damage: str | None
    """Why the data end before their time, in words."""

    def window(self, at_most: int = WINDOW_BYTES) -> U8:
        """The next bytes, without consuming them; fewer than `at_most` only at the end of the data."""
        ...

    def consume(self, n_bytes: int) -> bool:
        """Go on behind the next `n_bytes`, which may reach past the window; False where the data end before."""
        ...

    @property
    def progress(self) -> float:
        """Share of the file consumed, in [0, 1]."""
        ...


class MappedWindows:
    """Windows of a plain file."""

    def __init__(self, file: BinaryIO, n_bytes: int) -> None:
        try:
            self._map = mmap.mmap(file.fileno(), n_bytes, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # ValueError: it has become shorter just now
            raise CaptureError(
                CaptureReason.UNREADABLE, f"{file.name}: cannot be mapped: {error}"
            ) from error
        self._map.madvise(mmap.MADV_SEQUENTIAL)
        self._bytes: U8 = np.frombuffer(self._map, np.uint8)
        self._released = self._fetched = 0
        self.position = 0
        self.damage: str | None = None

    def window(self, at_most: int = WINDOW_BYTES) -> U8:
        """A view of the map, its pages fetched at once and not one fault at a time."""
        end = min(self.position + at_most, len(self._bytes))
        if end > self._fetched:
            with suppress(OSError):  # before Linux 5.14
                self._map.madvise(MADV_POPULATE_READ, self._fetched, end - self._fetched)
            self._fetched = -(-end // mmap.PAGESIZE) * mmap.PAGESIZE
        return self._bytes[self.position : self.position + at_most]

    def consume(self, n_bytes: int) -> bool:
        """Go on; pages well behind are given back to the system (a frame that still needs one reads it again)."""
        enough = self.position + n_bytes <= len(self._bytes)
        self.position = min(self.position + n_bytes, len(self._bytes))
        behind = (self.position - WINDOW_BYTES) // mmap.PAGESIZE * mmap.PAGESIZE
        if behind - self._released >= WINDOW_BYTES:
            self._map.madvise(mmap.MADV_DONTNEED, self._released, behind - self._released)
            self._released = behind
        return enough

    @property
    def progress(self) -> float:
        """Share of the file's bytes."""
        return self.position / len(self._bytes)


class GzipWindows:
    """Windows of the data inside a gzip file (several members are one stream)."""

    def __init__(self, file: BinaryIO, n_bytes: int) -> None:
        self._file = file
        self._n_bytes = n_bytes
        self._inflate = zlib.decompressobj(INFLATE_GZIP)
        self._input = b""
        self._read_bytes = 0
        self._held: U8 = np.empty(0, np.uint8)
        self._ended = False
        self.position = 0
        self.damage: str | None = None

    def window(self, at_most: int = WINDOW_BYTES) -> U8:
        """What is left of the last window and as many new bytes as are missing, in a new array."""
        if len(self._held) < at_most and not self._ended:
            fresh = bytearray(self._held.tobytes())
            while len(fresh) < at_most and not self._ended:
                fresh += self._more(at_most - len(fresh))
            self._held = np.frombuffer(bytes(fresh), np.uint8)
        return self._held[:at_most]

    def consume(self, n_bytes: int) -> bool:
        """Go on; what reaches past the window is inflated and dropped."""
        missing = max(n_bytes - len(self._held), 0)
        self._held = self._held[n_bytes:]
        while missing > 0 and not self._ended:
            missing -= len(self._more(min(missing, WINDOW_BYTES)))
        self.position += n_bytes - missing
        return missing == 0

    @property
    def progress(self) -> float:
        """Share of the compressed bytes."""
        return self._read_bytes / self._n_bytes

    def _more(self, at_most: int) -> bytes:
        """Inflate up to `at_most` bytes; b"" also between two reads of input."""
        if not self._input:
            self._input = self._read()
        if not self._input and not self._inflate.unconsumed_tail:
            return self._end("the gzip stream is cut")
        try:
            out = self._inflate.decompress(self._inflate.unconsumed_tail + self._input, at_most)
        except zlib.error as error:
            return self._end(f"the gzip stream is damaged ({error})")
        self._input = b""
        if self._inflate.eof:
            self._next_member()
        return out

    def _read(self) -> bytes:
        """Compressed bytes; b"" at the end of the file."""
        try:
            read = self._file.read(INPUT_BYTES)
        except OSError as error:
            raise CaptureError(
                CaptureReason.UNREADABLE, f"{self._file.name}: cannot be read: {error}"
            ) from error
        self._read_bytes += len(read)
        return read

    def _next_member(self) -> None:
        """Start on the member behind the one that ended; padding and foreign bytes end the data."""
        rest = self._inflate.unused_data
        if len(rest) < len(GZIP_MAGIC):
            rest += self._read()
        if rest.startswith(GZIP_MAGIC):
            self._inflate = zlib.decompressobj(INFLATE_GZIP)
            self._input = rest
            return
        self._ended = True
        if rest.strip(b"\0"):
            self.damage = "bytes that are not gzip stand behind the gzip stream"

    def _end(self, damage: str) -> bytes:
        self._ended = True
        self.damage = f"{damage} at compressed byte {self._read_bytes} of {self._n_bytes}"
        return b""
