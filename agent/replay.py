"""Capture files through the pipeline: what live traffic goes through, at the speed of the disk.

It never keeps a file's frames, and never lets one file's state reach the next: each is a run of its
own, unless they are merged (interleaved by time, one run).

In: paths, and how to make a `Watch`. Out: `Alert`s, in order, to `on_alert`; a `Report` a run.
Raises: `CaptureError` where a file cannot be read at all. A file that was cut is processed as far as it
is whole, and `Report.truncated` says where it was cut.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from agent.assembly import Watch
from agent.capture.capture_file import CaptureFile, open_capture
from agent.errors import CaptureError, CaptureReason
from agent.records import Alert, FrameBatch

OnAlert = Callable[[Alert], None]
OnProgress = Callable[[int, float], None]
"""Frames so far, share of the bytes in [0, 1]."""


@dataclass(slots=True)
class Report:
    """What one run read and found."""

    name: str
    n_frames: int = 0
    n_alerts: int = 0
    first_ns: int | None = None
    last_ns: int | None = None
    truncated: str | None = None
    """What was cut or malformed in the file, and where; None: it is whole."""
    unread: list[CaptureError] = field(default_factory=list)
    """Merged runs: the files that could not be opened."""
    skipped: dict[str, int] = field(default_factory=dict)
    counters: dict[str, dict[str, int]] = field(default_factory=dict)
    """By stage: `decode`, `features`, `findings`."""

    @property
    def duration_s(self) -> float:
        """Event time from the first to the last frame."""
        if self.first_ns is None or self.last_ns is None:
            return 0.0
        return (self.last_ns - self.first_ns) / 1e9


def replay_file(
    path: Path, watch: Watch, *, on_alert: OnAlert, on_progress: OnProgress, close: bool = False
) -> Report:
    """One file, one run. `close`: findings still open at its end get their close event."""
    with open_capture(path) as capture:
        report = _drive(
            iter(capture), watch, lambda: capture.progress, on_alert, on_progress, close=close
        )
        return _finished(report, [capture])


def replay_merged(
    paths: Sequence[Path],
    watch: Watch,
    *,
    on_alert: OnAlert,
    on_progress: OnProgress,
    close: bool = False,
) -> Report:
    """All files that can be read as one run, frames interleaved by time."""
    unread: list[CaptureError] = []
    with ExitStack() as stack:
        captures: list[CaptureFile] = []
        for path in paths:
            try:
                captures.append(stack.enter_context(open_capture(path)))
            except CaptureError as error:
                unread.append(error)
        if not captures:
            raise unread[0]
        total = sum(capture.n_bytes for capture in captures)

        def progress() -> float:
            return sum(capture.progress * capture.n_bytes for capture in captures) / total

        batches = interleave([iter(capture) for capture in captures])
        report = _drive(batches, watch, progress, on_alert, on_progress, close=close)
        report.unread = unread
        return _finished(report, captures)


def _drive(
    batches: Iterator[FrameBatch],
    watch: Watch,
    progress: Callable[[], float],
    on_alert: OnAlert,
    on_progress: OnProgress,
    *,
    close: bool,
) -> Report:
    report = Report(name=watch.name)

    def tell(alerts: list[Alert]) -> None:
        report.n_alerts += len(alerts)
        for alert in alerts:
            on_alert(alert)

    for batch in batches:
        if len(batch):
            report.n_frames += len(batch)
            first, last = int(batch.ts_ns.min()), int(batch.ts_ns.max())
            report.first_ns = first if report.first_ns is None else min(report.first_ns, first)
            report.last_ns = last if report.last_ns is None else max(report.last_ns, last)
        tell(watch.pipeline.push(batch))
        on_progress(report.n_frames, progress())
    tell(watch.pipeline.flush())
    if close:
        tell(watch.policy.close_all(watch.pipeline.last_ts_ns))
    on_progress(report.n_frames, 1.0)
    report.counters = {
        "decode": dict(watch.pipeline.decoder.counters()),
        "features": dict(watch.pipeline.extractor.counters()),
        "findings": dict(watch.policy.counters()),
    }
    return report


def _finished(report: Report, captures: list[CaptureFile]) -> Report:
    cut = [f"{c.path}: {c.truncated}" for c in captures if c.truncated]
    report.truncated = "; ".join(cut) or None
    for capture in captures:
        for reason, n in capture.skipped.items():
            report.skipped[reason] = report.skipped.get(reason, 0) + n
    if report.truncated and report.n_frames == 0:
        raise CaptureError(CaptureReason.TRUNCATED, f"{report.truncated}; no frame of it is whole")
    return report


def interleave(sources: Sequence[Iterator[FrameBatch]]) -> Iterator[FrameBatch]:
    """Batches of several captures as one sequence of batches in the order of time.

    A frame that goes back in time within its file stays where it stands there. Frames of equal time
    keep the order of the sources. Batches of one link type are joined; others are given in runs.
    """
    heads = [_next(source) for source in sources]
    while any(head is not None for head in heads):
        frontier = min(int(head.ts_ns.max()) for head in heads if head is not None)
        parts: list[FrameBatch] = []
        for i, head in enumerate(heads):
            if head is None:
                continue
            # The latest time so far never goes back, so this is a prefix of the batch.
            reached = np.maximum.accumulate(head.ts_ns)
            n = int(np.searchsorted(reached, frontier, side="right"))
            if n:
                parts.append(_rows(head, 0, n))
            heads[i] = _rows(head, n, len(head)) if n < len(head) else _next(sources[i])
        yield from _merged(parts)


def _next(source: Iterator[FrameBatch]) -> FrameBatch | None:
    return next((batch for batch in source if len(batch)), None)


def _merged(parts: list[FrameBatch]) -> Iterator[FrameBatch]:
    if len(parts) < 2:
        yield from parts
    elif len({part.link_type for part in parts}) == 1:
        yield _joined(parts)
    else:
        # Frame by frame in time; a run is what one part gives before another's turn comes.
        keyed = [_keys(i, part) for i, part in enumerate(parts)]
        run: tuple[int, int, int] | None = None  # part, first row, one past its last
        for _, i, j in heapq.merge(*keyed):
            if run is not None and run[0] == i:
                run = (i, run[1], j + 1)
                continue
            if run is not None:
                yield _rows(parts[run[0]], run[1], run[2])
            run = (i, j, j + 1)
        if run is not None:
            yield _rows(parts[run[0]], run[1], run[2])


def _keys(i: int, part: FrameBatch) -> Iterator[tuple[int, int, int]]:
    """(latest time so far, part, row) of each frame."""
    for row, t in enumerate(np.maximum.accumulate(part.ts_ns).tolist()):
        yield t, i, row


def _joined(parts: list[FrameBatch]) -> FrameBatch:
    """One batch of several of the same link type: their bytes one after the other, rows by time."""
    buffers, offsets, at = [], [], 0
    for part in parts:
        low = int(part.offset.min())
        high = int((part.offset + part.caplen).max())
        buffers.append(part.buffer[low:high])
        offsets.append(part.offset - low + at)
        at += high - low
    order = np.argsort(
        np.concatenate([np.maximum.accumulate(part.ts_ns) for part in parts]), kind="stable"
    )
    buffer = np.concatenate(buffers)
    buffer.flags.writeable = False
    outgoing = None
    if any(part.outgoing is not None for part in parts):
        known = [
            part.outgoing if part.outgoing is not None else np.zeros(len(part), np.bool_)
            for part in parts
        ]
        outgoing = np.concatenate(known)[order]
    return FrameBatch(
        ts_ns=np.concatenate([part.ts_ns for part in parts])[order],
        offset=np.concatenate(offsets)[order],
        caplen=np.concatenate([part.caplen for part in parts])[order],
        wirelen=np.concatenate([part.wirelen for part in parts])[order],
        buffer=buffer,
        link_type=parts[0].link_type,
        outgoing=outgoing,
    )


def _rows(batch: FrameBatch, start: int, stop: int) -> FrameBatch:
    if start == 0 and stop == len(batch):
        return batch
    return replace(
        batch,
        ts_ns=batch.ts_ns[start:stop],
        offset=batch.offset[start:stop],
        caplen=batch.caplen[start:stop],
        wirelen=batch.wirelen[start:stop],
        vlan_tci=batch.vlan_tci[start:stop] if batch.vlan_tci is not None else None,
        outgoing=batch.outgoing[start:stop] if batch.outgoing is not None else None,
    )
