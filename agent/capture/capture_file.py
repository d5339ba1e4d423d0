"""Opens a capture file (pcap, pcapng, gzip of either) and yields FrameBatch, in file order.

Frames are not copied: a batch refers to the mapped file, or to the inflated window it stands in.
Whatever is whole is given; what was cut or malformed is then reported in one line, never raised.

It never decodes a frame, writes, or reads pipes.

In: a path. Out: batches of at most `batch_frames` frames of one link type; `ts_ns` since the epoch.
Raises: CaptureError (NOT_FOUND, PERMISSION, UNREADABLE, EMPTY, FOREIGN, TRUNCATED, LINK_TYPE) from
`open_capture`; from iterating: TRUNCATED and FOREIGN (inside gzip), LINK_TYPE where no frame of the file was
of a link type that is read.
Remembers: what the attributes of `CaptureFile` tell.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

import numpy as np

from agent.capture.link_types import refusal
from agent.capture.pcap import MAGIC as PCAP_MAGIC
from agent.capture.pcap import Frames, Walk, read_file_header, walk_pcap
from agent.capture.pcapng import MAGIC as PCAPNG_MAGIC
from agent.capture.pcapng import walk_pcapng
from agent.capture.windows import GZIP_MAGIC, GzipWindows, MappedWindows, Windows
from agent.errors import CaptureError, CaptureReason
from agent.records import FrameBatch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BATCH_FRAMES = 16_384
"""Above about 4,096 numpy's cost of a call is hidden; beyond this, a batch no longer fits a small cache."""

OTHER_MAGIC = {
    b"btsnoop\0": (
        CaptureReason.LINK_TYPE,
        "radio capture (btsnoop, Bluetooth HCI): not read by this version",
    ),
    bytes.fromhex("34cdb2a1"): (
        CaptureReason.FOREIGN,
        "a modified pcap: not read; convert it with `editcap -F pcap IN OUT`",
    ),
    b"snoop\0\0\0": (
        CaptureReason.FOREIGN,
        "a Solaris snoop capture: not read; convert it with `editcap -F pcap IN OUT`",
    ),
}
"""First bytes of files that we know and do not read, with what to say."""


class CaptureFile:
    """An open capture file. Use it in a `with`; iterate once or again, each time from its start."""

    def __init__(self, path: Path, file: BinaryIO, n_bytes: int, batch_frames: int) -> None:
        self.path = path
        self.n_bytes = n_bytes
        """Bytes of the file on disk."""
        self.n_frames = 0
        """Frames given so far."""
        self.truncated: str | None = None
        """After iteration: what was cut or malformed, and where, in one line; None: the file is whole."""
        self._file = file
        self._batch_frames = batch_frames
        self._gzip = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        self._source: Windows | None = None
        self._walk = Walk(link_types=[], skipped=Counter())
        self.format = ("gzip " if self._gzip else "") + self._start()
        """`pcap`, `pcapng`, `gzip pcap` or `gzip pcapng`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; batches that are still held stay valid."""
        self._source = None
        self._file.close()

    @property
    def link_types(self) -> tuple[int, ...]:
        """Link types met so far, in order; a pcap's is known from the start."""
        return tuple(self._walk.link_types)

    @property
    def skipped(self) -> Mapping[str, int]:
        """Frames left out, by reason: `unknown_interface`, `link_type_N`."""
        return self._walk.skipped

    @property
    def progress(self) -> float:
        """Share of the file read, in [0, 1]."""
        return self._source.progress if self._source else 0.0

    def __iter__(self) -> Iterator[FrameBatch]:
        self._start()
        for frames in self._frames:
            for batch in _batches(frames, self._batch_frames):
                self.n_frames += len(batch)
                yield batch
        assert self._source is not None
        problems = [self._walk.problem, self._source.damage]
        self.truncated = "; ".join(p for p in problems if p) or None
        self._refuse_unread()

    def _start(self) -> str:
        """Go to the file's start and read its header; the format's name."""
        self._file.seek(0)
        windows = GzipWindows if self._gzip else MappedWindows
        self._source = source = windows(self._file, self.n_bytes)
        self._walk = walk = Walk(link_types=[], skipped=Counter())
        self.n_frames, self.truncated = 0, None
        magic = source.window(8).tobytes()
        if magic[:4] in PCAP_MAGIC:
            header = read_file_header(source, str(self.path))
            walk.link_types.append(header.link_type)
            self._frames: Iterator[Frames] = walk_pcap(source, header, walk)
            return "pcap"
        if magic[:4] == PCAPNG_MAGIC:
            self._frames = walk_pcapng(source, walk, str(self.path))
            return "pcapng"
        raise _foreign(self.path, magic, source.damage)

    def _refuse_unread(self) -> None:
        unread = [kind for kind in self._walk.link_types if f"link_type_{kind}" in self.skipped]
        if self.n_frames == 0 and unread:
            raise CaptureError(CaptureReason.LINK_TYPE, f"{self.path}: {refusal(unread[0])}")


def open_capture(path: str | Path, *, batch_frames: int = BATCH_FRAMES) -> CaptureFile:
    """Open a capture file by its content, whatever its name; see the module's contract for errors."""
    path = Path(path)
    try:
        if not path.is_file():
            raise _not_a_file(path)
        n_bytes = path.stat().st_size
        if n_bytes == 0:
            raise CaptureError(CaptureReason.EMPTY, f"{path}: the file is empty")
        file = path.open("rb")
    except OSError as error:
        raise _os_error(path, error) from error
    try:
        return CaptureFile(path, file, n_bytes, batch_frames)
    except BaseException:
        file.close()
        raise


def _batches(frames: Frames, batch_frames: int) -> Iterator[FrameBatch]:
    """Runs of one link type, in file order, cut at `batch_frames`."""
    n = len(frames.ts_ns)
    if isinstance(frames.link_type, int):
        runs = [(0, n, frames.link_type)]
    else:
        change = np.flatnonzero(np.diff(frames.link_type)) + 1
        edges = [0, *change.tolist(), n]
        runs = [(a, b, int(frames.link_type[a])) for a, b in pairwise(edges) if a < b]
    for first, last, link_type in runs:
        for begin in range(first, last, batch_frames):
            rows = slice(begin, min(begin + batch_frames, last))
            yield FrameBatch(
                ts_ns=frames.ts_ns[rows],
                offset=frames.offset[rows],
                caplen=frames.caplen[rows],
                wirelen=frames.wirelen[rows],
                buffer=frames.buffer,
                link_type=link_type,
            )


def _foreign(path: Path, magic: bytes, damage: str | None) -> CaptureError:
    for start, (reason, problem) in OTHER_MAGIC.items():
        if magic.startswith(start):
            return CaptureError(reason, f"{path}: {problem}")
    if damage:
        return CaptureError(CaptureReason.TRUNCATED, f"{path}: {damage}")
    known = [*PCAP_MAGIC, PCAPNG_MAGIC]
    if any(m.startswith(magic) for m in known if magic):
        problem = f"the file ends inside its header, after {len(magic)} bytes"
        return CaptureError(CaptureReason.TRUNCATED, f"{path}: {problem}")
    if not magic:
        return CaptureError(CaptureReason.EMPTY, f"{path}: nothing in the gzip file")
    problem = (
        f"not a capture file (pcap, pcapng or gzip of either): it starts with {magic.hex(' ')}"
    )
    return CaptureError(CaptureReason.FOREIGN, f"{path}: {problem}")


def _not_a_file(path: Path) -> CaptureError:
    if path.is_dir():
        return CaptureError(CaptureReason.UNREADABLE, f"{path}: a directory, not a capture file")
    if path.exists():
        problem = "not a regular file: write the capture to a file first"
        return CaptureError(CaptureReason.UNREADABLE, f"{path}: {problem}")
    return CaptureError(CaptureReason.NOT_FOUND, f"{path}: no such file")


def _os_error(path: Path, error: OSError) -> CaptureError:
    if isinstance(error, PermissionError):
        return CaptureError(CaptureReason.PERMISSION, f"{path}: no permission to read it")
    return CaptureError(CaptureReason.UNREADABLE, f"{path}: {error.strerror or error}")
