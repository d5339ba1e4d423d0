"""The page to read first: how a batch of frames becomes alerts.

    capture -> FrameBatch -> decode -> PacketTable -> features -> FeatureMatrix
            -> score -> Verdicts -> alert -> Alert -> uplink

`Pipeline` is pure and synchronous: it is handed its stages, opens nothing, and knows no clock but the
event time that comes with the frames. The live service, `replay`, training, the tests and the
benchmarks all drive this one object, so what was trained is what runs.

In: `FrameBatch` (capture order), and `advance(now_ns)` when event time moves on without frames.
Out: `Alert` events. Remembered: the decoder's streams, the open windows, the open findings; all bounded.
Raises: nothing on what a frame contains; `DecodeError` where a batch breaks its contract.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent.features.schema import Schema
    from agent.records import (
        Alert,
        BoolArray,
        Detector,
        FeatureMatrix,
        FrameBatch,
        PacketTable,
        Verdict,
    )


class Decoder(Protocol):
    """Bytes to columns; keeps the bounded state of streams."""

    def decode(self, batch: FrameBatch) -> PacketTable:
        """One row a frame, in the batch's order."""
        ...

    def counters(self) -> Mapping[str, int]:
        """Frames by reason, evictions ...: running totals, for `health`."""
        ...


class Extractor(Protocol):
    """Columns to windowed features; keeps the bounded state of hosts and windows."""

    schema: Schema

    def add(self, table: PacketTable, *, ignore: BoolArray | None = None) -> FeatureMatrix:
        """Take a batch in, leaving out rows where `ignore`; the rows of the slices that it closed."""
        ...

    def advance(self, now_ns: int) -> FeatureMatrix:
        """The rows of the slices that ended (grace included) before `now_ns`."""
        ...

    def flush(self) -> FeatureMatrix:
        """The rows of every open slice; what comes later for those slices is late."""
        ...

    def counters(self) -> Mapping[str, int]:
        """Late frames, evictions, folded sources ...: running totals, for `health`."""
        ...


class Policy(Protocol):
    """Verdicts to findings with a life."""

    def consider(self, verdicts: Sequence[Verdict], now_ns: int) -> list[Alert]:
        """Create and update findings; `now_ns` is the end of the latest slice judged."""
        ...

    def advance(self, now_ns: int) -> list[Alert]:
        """Close what has been quiet for long enough, send what was held back."""
        ...


class Explainer(Protocol):
    """What is normal for each device, put beside the facts of verdicts."""

    def explain(self, matrix: FeatureMatrix, verdicts: Sequence[Verdict]) -> list[Verdict]:
        """The same verdicts (by `end_ns`) in the same order; learns from rows that nobody speaks of."""
        ...


class FlowFilter(Protocol):
    """Which frames are our own broker connection."""

    def __call__(self, table: PacketTable) -> BoolArray | None:
        """(n,) True for frames to leave out of features; None where there are none."""
        ...


class Pipeline:
    """One capture source's way from frames to alerts."""

    def __init__(
        self,
        *,
        decoder: Decoder,
        extractor: Extractor,
        detectors: Sequence[Detector],
        policy: Policy,
        own_flows: FlowFilter | None = None,
        explainer: Explainer | None = None,
    ) -> None:
        self.decoder = decoder
        self.extractor = extractor
        self.detectors = tuple(detectors)
        self.policy = policy
        self.own_flows = own_flows
        self.explainer = explainer
        self.n_frames = 0
        self.n_own_frames = 0
        self.n_rows = 0
        self.last_ts_ns = 0

    def extract(self, batch: FrameBatch) -> FeatureMatrix:
        """Decode a batch, add it to the windows, and return the rows of the slices that it closed."""
        table = self.decoder.decode(batch)
        ignore = self.own_flows(table) if self.own_flows is not None else None
        if ignore is not None:
            self.n_own_frames += int(np.count_nonzero(ignore))
        if len(table):
            self.n_frames += len(table)
            self.last_ts_ns = max(self.last_ts_ns, int(table.ts_ns.max()))
        return self.extractor.add(table, ignore=ignore)

    def judge(self, matrix: FeatureMatrix) -> list[Alert]:
        """Ask every detector about the rows, and turn their verdicts into events of findings."""
        if not len(matrix):
            return []
        self.n_rows += len(matrix)
        verdicts = [v for detector in self.detectors for v in detector.judge(matrix)]
        verdicts.sort(key=lambda v: v.end_ns)  # stable: within a slice the detectors' order stays
        if self.explainer is not None:
            verdicts = self.explainer.explain(matrix, verdicts)
        return self.policy.consider(verdicts, int(matrix.end_ns.max()))

    def push(self, batch: FrameBatch) -> list[Alert]:
        """`extract`, then `judge`, then let quiet findings close."""
        alerts = self.judge(self.extract(batch))
        return alerts + self.policy.advance(self.last_ts_ns)

    def advance(self, now_ns: int) -> list[Alert]:
        """Event time has reached `now_ns` without a frame: close windows, then quiet findings."""
        self.last_ts_ns = max(self.last_ts_ns, now_ns)
        return self.judge(self.extractor.advance(now_ns)) + self.policy.advance(now_ns)

    def flush(self) -> list[Alert]:
        """The source has ended: judge what is still open. Findings stay open; no close is made up."""
        return self.judge(self.extractor.flush())
