"""One capture source's thread: open, read, push, and open again when the interface went away.

It never blocks on disk or network (findings are handed to a function that only queues), and never
ends silently: an error that waiting cannot mend ends the service, any other is counted and retried.

In: how to open the device, a `Watch`, `deliver`. Out: alerts to `deliver`, with the `Moment` they were
made at. Raises: out of `run`, `CaptureError` where retrying is no use or not wanted.
Remembers: totals over all openings, and the kernel's drops of the last hour (for findings).
"""

import logging
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from typing import Any

from agent import health
from agent.assembly import Watch
from agent.capture.packet_ring import LiveCapture
from agent.config import Source
from agent.errors import CaptureError
from agent.records import Alert

IDLE_ALLOWANCE_NS = 20_000_000
"""An empty ring at time t shows that no frame before t - this is still to come."""
STATS_S = 1.0
BACKOFF_S = (1.0, 30.0)
DROP_SAMPLES = 3600
"""One a second: an hour of finding."""

log = logging.getLogger("wardwatch")


class SourceLoop:
    """The life of one `[[source]]`."""

    def __init__(
        self,
        source: Source,
        watch: Watch,
        *,
        open_device: Callable[[], LiveCapture],
        deliver: Callable[["SourceLoop", list[Alert]], None],
    ) -> None:
        self.source = source
        self.watch = watch
        self.state = "starting"
        """`starting`, `running`, `waiting` (for the interface) or `stopped`."""
        self.problem: str | None = None
        self.wall_offset_ns = time.time_ns() - time.monotonic_ns()
        self.beat_s = time.monotonic()
        """When this thread last showed that it works; for the watchdog."""
        self.lag_ms = 0.0
        """How far behind the newest frame the pipeline was after the last batch."""
        self.method: str | None = None
        self.ring_bytes = 0
        self.n_openings = 0
        self._open_device = open_device
        self._deliver = deliver
        self._before = dict.fromkeys(STATS, 0)  # of captures that are closed
        self._now = dict.fromkeys(STATS, 0)  # of the open one
        self._drops: deque[tuple[int, int]] = deque(maxlen=DROP_SAMPLES)  # event time, total
        self._rate: tuple[float, int, float] = (time.monotonic(), 0, 0.0)

    def run(self, stop: threading.Event) -> None:
        """Until `stop`; then judge what is open and close the findings."""
        delay_s = BACKOFF_S[0]
        try:
            while not stop.is_set():
                began_s = time.monotonic()
                try:
                    with self._open_device() as capture:
                        self._opened(capture)
                        self._read(capture, stop)
                except CaptureError as error:
                    if not self._may_retry(error):
                        raise
                    if self.problem != str(error):
                        log.warning("%s: %s; waiting for it", self.source.name, error)
                    self.state, self.problem = "waiting", str(error)
                    if time.monotonic() - began_s > BACKOFF_S[1]:
                        delay_s = BACKOFF_S[0]
                    self._wait(stop, delay_s)
                    delay_s = min(delay_s * 2, BACKOFF_S[1])
        finally:
            self.state = "stopped"
        self._finish()

    def total(self, name: str) -> int:
        """One of `LiveCapture.stats`, over all openings."""
        return self._before[name] + self._now[name]

    def drops_since(self, event_ns: int) -> int:
        """Frames that the kernel dropped since event time `event_ns`, as far as is remembered."""
        samples = list(self._drops)
        at = bisect_left(samples, (event_ns, -1))
        before = samples[at - 1][1] if at else 0
        return samples[-1][1] - before if samples else 0

    def figures(self) -> dict[str, Any]:
        """For `health`. Any thread."""
        with self.watch.lock:
            pipeline = self.watch.pipeline
            stages = {
                "decode": dict(pipeline.decoder.counters()),
                "features": dict(pipeline.extractor.counters()),
                "findings": dict(self.watch.policy.counters()),
            }
            n_own = pipeline.n_own_frames
        totals, now = health.split_counters(stages)
        return {
            "name": self.source.name,
            "kind": self.source.kind,
            "interface": self.source.interface,
            "placement": str(self.source.placement),
            "state": self.state,
            "problem": self.problem,
            "method": self.method,
            "ring_bytes": self.ring_bytes,
            "openings_total": self.n_openings,
            "frames_total": self.total("frames"),
            "frames_per_s": self._frames_per_s(),
            "kernel_frames_total": self.total("kernel_packets"),
            "kernel_drops_total": self.total("kernel_drops"),
            "interface_drops_total": self.total("interface_drops"),
            "truncated_frames_total": self.total("truncated"),
            "own_frames_total": n_own,
            "shed_share": 0.0,
            "lag_ms": round(self.lag_ms, 1),
            "mqtt_encrypted_share": health.encrypted_share(stages["decode"]),
            "stages_total": totals,
            "stages_now": now,
        }

    def _opened(self, capture: LiveCapture) -> None:
        self.n_openings += 1
        self.state, self.problem = "running", None
        self.method, self.ring_bytes = capture.method, capture.ring_bytes
        how = capture.method
        if capture.fallback_reason:
            how += f" (no ring: {capture.fallback_reason})"
        log.info("%s: listening on %s by %s", self.source.name, self.source.interface, how)

    def _read(self, capture: LiveCapture, stop: threading.Event) -> None:
        pipeline = self.watch.pipeline
        stats_at_s = 0.0
        try:
            while not stop.is_set():
                batch = capture.read()
                self.wall_offset_ns = capture.wall_offset_ns
                now_ns = time.monotonic_ns()
                with self.watch.lock:
                    alerts = (
                        pipeline.advance(now_ns - IDLE_ALLOWANCE_NS)
                        if batch is None
                        else pipeline.push(batch)
                    )
                if batch is not None:
                    self.lag_ms = (time.monotonic_ns() - int(batch.ts_ns[-1])) / 1e6
                self._hand_over(alerts)
                self.beat_s = time.monotonic()
                if self.beat_s >= stats_at_s:
                    stats_at_s = self.beat_s + STATS_S
                    self._sample(capture)
        finally:
            self._sample(capture)
            for name in STATS:
                self._before[name] += self._now[name]
                self._now[name] = 0

    def _sample(self, capture: LiveCapture) -> None:
        self._now = capture.stats()
        self._drops.append((time.monotonic_ns(), self.total("kernel_drops")))

    def _frames_per_s(self) -> float:
        """Since the last call."""
        then_s, then_frames, last = self._rate
        now_s, frames = time.monotonic(), self.total("frames")
        if now_s - then_s < 1.0:
            return last
        rate = round((frames - then_frames) / (now_s - then_s), 1)
        self._rate = (now_s, frames, rate)
        return rate

    def _may_retry(self, error: CaptureError) -> bool:
        """What waiting can mend is retried; at the start only where the settings say so."""
        return error.retriable and (self.n_openings > 0 or self.source.on_start_error == "retry")

    def _wait(self, stop: threading.Event, delay_s: float) -> None:
        """Until the next attempt; findings grow quiet meanwhile, and the watchdog is content."""
        until_s = time.monotonic() + delay_s
        while not stop.is_set() and time.monotonic() < until_s:
            with self.watch.lock:
                alerts = self.watch.pipeline.advance(time.monotonic_ns() - IDLE_ALLOWANCE_NS)
            self._hand_over(alerts)
            self.beat_s = time.monotonic()
            stop.wait(min(1.0, delay_s))

    def _finish(self) -> None:
        with self.watch.lock:
            alerts = self.watch.pipeline.flush()
            alerts += self.watch.policy.close_all(time.monotonic_ns())
        self._hand_over(alerts)

    def _hand_over(self, alerts: list[Alert]) -> None:
        if alerts:
            self._deliver(self, alerts)


STATS = ("frames", "kernel_packets", "kernel_drops", "interface_drops", "truncated")
