"""What is normal for each device: a few of its own recent benign rows, and their median beside the facts.

A row is learned where no detector speaks of its host, nobody has for `HOLD_NS`, and the model (where there is one)
finds it benign. It stands for words only: nothing is detected, or left undetected, by it. It keeps no name, is not
written to disk, and begins anew with each start.

In: each matrix with all its verdicts. Out: the same verdicts, whose reasons (`Verdict.why`) say what is normal.
Time is event time, slice by slice, so the cut of batches changes nothing. Raises: nothing. Remembers: `ROWS` rows of
at most `max_devices` devices (the longest unseen goes, counted): 3.7 MB for 512 devices of `ip-1`.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from agent.records import NOBODY, Endpoint, Fact, FeatureMatrix, Verdict
from agent.score.explain import Reasons, lower_median

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.features.schema import Schema
    from agent.records import F32, I64, BoolArray

SECOND_NS = 10**9
ROWS = 11
"""Odd, so that the median is one of them."""
MIN_ROWS = 5
"""Fewer tell nothing: 5 rows are 16 s or more of a device that is active."""
EVERY_NS = 4 * SECOND_NS
"""One slice in so long is learned from, until a device has `ROWS` rows ..."""
EVERY_FULL_NS = 60 * SECOND_NS
"""... then one a minute: the rows reach about ten minutes back."""
HOLD_NS = 120 * SECOND_NS
"""After a verdict its hosts are not learned from: the long horizon remembers the attack for 60 s."""
MAX_DEVICES = 512
"""A ward's, many times over; what spoofed sources create goes first, for it is not seen again."""
MAX_HELD = 4096
MAX_LEARNED = 256
"""Rows of a slice that are learned: what a flood of made-up hosts may cost."""
MAX_EXPLAINED = 64
"""Verdicts a slice that get normal values: far above the findings that a slice can open."""


class DeviceNormals:
    """The benign rows of each device (implements `pipeline.Explainer`)."""

    def __init__(
        self,
        schema: Schema,
        *,
        benign: Callable[[FeatureMatrix], BoolArray] | None = None,
        training: F32 | None = None,
        max_devices: int = MAX_DEVICES,
    ) -> None:
        """`benign`: which rows (n,) the model finds so; None: all are of which no detector speaks.

        `training`: the median benign training row, said of devices that are not known yet.
        """
        self._column = schema.index
        self._benign = benign
        self._training = training
        self._max_devices = max_devices
        self._rows = np.zeros((max_devices, ROWS, len(schema)), np.float32)  # pages come with use
        self._n = np.zeros(max_devices, np.int64)
        self._last_ns = np.zeros(max_devices, np.int64)
        self._slots: OrderedDict[tuple[int, int], int] = OrderedDict()
        self._held: dict[tuple[int, int], int] = {}
        self._due_ns: int | None = None
        self._counts: Counter[str] = Counter()

    def counters(self) -> Mapping[str, int]:
        """Running totals: rows learned, devices forgotten for want of room."""
        return dict(self._counts)

    @property
    def n_devices(self) -> int:
        """How many devices are known now."""
        return len(self._slots)

    def history(self, host: Endpoint) -> F32 | None:
        """(k, n_features) benign rows of a device; None where fewer than `MIN_ROWS` are known."""
        slot = self._slots.get(host)
        if slot is None or self._n[slot] < MIN_ROWS:
            return None
        return self._rows[slot, : self._n[slot]].copy()

    def explain(self, matrix: FeatureMatrix, verdicts: Sequence[Verdict]) -> list[Verdict]:
        """As `pipeline.Explainer`; `verdicts` ordered by `end_ns`."""
        if not len(matrix):
            return list(verdicts)
        spoken = {end: list(group) for end, group in groupby(verdicts, key=lambda v: v.end_ns)}
        ends, starts = np.unique(matrix.end_ns, return_index=True)
        stops = [*starts[1:].tolist(), len(matrix)]
        out: list[Verdict] = []
        for end_ns, start, stop in zip(ends.tolist(), starts.tolist(), stops, strict=True):
            here = spoken.pop(end_ns, [])
            if here:
                out += [self._beside(v) for v in here[:MAX_EXPLAINED]] + here[MAX_EXPLAINED:]
                self._hold(here, end_ns)
            if self._due_ns is None or end_ns >= self._due_ns:
                self._due_ns = end_ns + EVERY_NS
                self._learn(matrix, np.arange(start, stop), end_ns)
        return out + [v for rest in spoken.values() for v in rest]

    def _beside(self, verdict: Verdict) -> Verdict:
        """The verdict, with reasons that know what is normal for its subject."""
        history = self.history(verdict.subject)
        if isinstance(verdict.why, Reasons):
            verdict.why.history = history
            return verdict
        if verdict.why is not None or (history is None and self._training is None):
            return verdict
        beside = Beside(verdict.facts, self._column, history=history, training=self._training)
        return replace(verdict, why=beside)

    def _hold(self, verdicts: Sequence[Verdict], end_ns: int) -> None:
        for verdict in verdicts:
            for host in (verdict.subject, verdict.attacker, verdict.victim):
                self._held[host] = end_ns + HOLD_NS
        if len(self._held) > MAX_HELD:  # most are spoofed; those held longest are free again
            ordered = sorted(self._held.items(), key=lambda item: item[1])
            self._held = dict(ordered[-MAX_HELD // 2 :])

    def _learn(self, matrix: FeatureMatrix, rows: I64, end_ns: int) -> None:
        self._held = {host: until for host, until in self._held.items() if until > end_ns}
        if self._benign is not None:
            rows = rows[self._benign(matrix)[rows]]
        wanted = self._wanted(matrix, rows, end_ns)[:MAX_LEARNED]
        for row, host in wanted:
            slot = self._slot(host)
            n = int(self._n[slot])
            if n == ROWS:  # the oldest goes
                self._rows[slot, :-1] = self._rows[slot, 1:]
                n -= 1
            self._rows[slot, n] = matrix.values[row]
            self._n[slot] = n + 1
            self._last_ns[slot] = end_ns
            self._counts["rows_learned"] += 1

    def _wanted(self, matrix: FeatureMatrix, rows: I64, end_ns: int) -> list[tuple[int, Endpoint]]:
        """Rows of hosts that nobody speaks of and of which a row is due; devices that are known come first."""
        subjects = matrix.subjects
        known: list[tuple[int, Endpoint]] = []
        new: list[tuple[int, Endpoint]] = []
        hosts = zip(subjects.hi[rows].tolist(), subjects.lo[rows].tolist(), strict=True)
        for row, host in zip(rows.tolist(), hosts, strict=True):  # a plain pair is as good a key
            if host in self._held or host == NOBODY:
                continue
            slot = self._slots.get(host)
            if slot is None:
                if len(new) < MAX_LEARNED:
                    new.append((row, Endpoint(*host)))
                continue
            self._slots.move_to_end(host)
            if self._n[slot] < ROWS or end_ns - self._last_ns[slot] >= EVERY_FULL_NS:
                known.append((row, Endpoint(*host)))
        return known + new

    def _slot(self, host: Endpoint) -> int:
        """Where a device's rows stand; of a new one an empty place, or that of the device longest unseen."""
        slot = self._slots.get(host)
        if slot is not None:
            self._slots.move_to_end(host)
            return slot
        if len(self._slots) < self._max_devices:
            slot = len(self._slots)
        else:
            _, slot = self._slots.popitem(last=False)
            self._counts["devices_forgotten"] += 1
        self._slots[host] = slot
        self._n[slot] = 0
        return slot


@dataclass(frozen=True, slots=True)
class Beside:
    """A verdict's own facts, each with what is normal (`records.Why`); looked up when somebody is told."""

    given: tuple[Fact, ...]
    column: Mapping[str, int]
    history: F32 | None
    """(k, n_features) benign rows of the device itself; None: it is not known."""
    training: F32 | None
    """(n_features,) the median benign training row."""

    def facts(self) -> tuple[Fact, ...]:
        """As `records.Why`. What a detector has said of normal itself stays."""
        columns = [self.column[f.feature] for f in self.given if f.feature in self.column]
        if self.history is not None:
            found, whose = lower_median(self.history[:, columns]), "device"
        elif self.training is not None:
            found, whose = self.training[columns], "training"
        else:
            return self.given
        normal = dict(zip(columns, found.tolist(), strict=True))
        return tuple(
            replace(f, normal=normal[self.column[f.feature]], normal_of=whose)
            if f.normal is None and f.feature in self.column
            else f
            for f in self.given
        )
