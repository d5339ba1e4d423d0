"""The site's own baseline: what is unusual for this device on this ward. A detector beside model and rules.

It learns, per device, per device class (from the site file) and for the ward, how high each rate goes, with whom a
device talks, which ports and protocols it uses (`baseline_profiles`). A row's *score* is by how many steps, two to a
doubling, its most unusual rate lies above what is normal, plus `NOVELTY` for each of: a new peer, a new port of
others, a new own port, a new protocol (`baseline_score`). From the threshold of the alarm budget on
(`baseline_budget`) the row is a `device_anomaly`, with the facts and the device's normal values.

It says nothing of a device until it has learned it (`learn_s` of event time and `min_slices` rows); meanwhile the
device's class speaks for it where one is learned, else the ward. It judges no silence: an idle device has no rows.
A slice is learned `hold_s` after it, and of it only rows that were not flagged, of hosts without an open finding: so
neither are the first slices of an attack that shows a minute later.

In: `FeatureMatrix`, a slice never cut over two; which hosts have a finding open (handed in). Out: `Verdict`s, at most
`MAX_VERDICTS` a slice. Raises: `KeyError` at construction where the schema lacks a feature (our own bug). Remembers:
bounded tables and its own time, which is event time without jumps, so that it goes on after a restart.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from agent.records import Endpoint, FeatureMatrix, Verdict
from agent.score.baseline_budget import Budget
from agent.score.baseline_features import Selection
from agent.score.baseline_profiles import EVERY, Profiles
from agent.score.baseline_sample import Sample
from agent.score.baseline_score import Judged, Seen, judge
from agent.score.baseline_verdicts import NAME, verdict

if TYPE_CHECKING:
    from agent.features.schema import Schema
    from agent.records import F32, I64, U64, BoolArray, Subjects

MAX_VERDICTS = 64
"""A slice: a ward's devices that misbehave at once; a flood's made-up hosts say nothing new."""
MAX_STEP_NS = 3600 * 10**9
"""A longer gap in event time counts as this: a clock that jumps neither ripens nor forgets anything."""
FADE_NS = 3600 * 10**9
SECOND_NS = 10**9

ClassOf = Callable[[Endpoint], str | None]
OpenHosts = Callable[[], Mapping[Endpoint, bool]]
"""Hosts with an open finding; True where another detector than the baseline says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How it learns; times are event time."""

    learn_s: float = 86_400.0
    min_slices: int = 600
    """Rows that a device must have shown, too: ten minutes of activity."""
    half_life_s: float = 14 * 86_400.0
    findings_per_day: float = 1.0
    merge_s: float = 120.0
    """What lies closer together is one finding: `alert.quiet_s`."""
    hold_s: float = 60.0
    """The long horizon: what the other detectors find of an attack, they find within it."""
    max_devices: int = 1024
    max_sample_rows: int = 4096

    def compressed(self, span_s: float) -> Settings:
        """The same with `span_s` in the place of the learning time: for tests and for short recordings.

        A day is as short as the learning time is, so that figures a day are those of a very busy day.
        """
        scale = self.learn_s / span_s
        return replace(
            self,
            learn_s=span_s,
            min_slices=min(self.min_slices, max(1, int(span_s / 4))),
            half_life_s=self.half_life_s / scale,
            findings_per_day=self.findings_per_day * scale,
        )


DEFAULTS = Settings()


@dataclass(slots=True, kw_only=True)
class _Held:
    """A slice that waits to be learned."""

    end_ns: int
    now_ns: int
    elapsed_ns: int
    seen: Seen
    tenant: I64
    score: I64
    judged: BoolArray
    own: BoolArray
    """Whether the device's own, learned profile judged the row."""
    flagged: BoolArray
    sample: tuple[I64, F32, U64]


def nobody_open() -> Mapping[Endpoint, bool]:
    """No finding is open."""
    return {}


def no_class(_device: Endpoint) -> str | None:
    """The site file lists nobody."""
    return None


class BaselineDetector:
    """The baseline of one capture source, as one of the pipeline's detectors."""

    name = NAME

    def __init__(
        self,
        schema: Schema,
        settings: Settings = DEFAULTS,
        *,
        class_of: ClassOf = no_class,
        open_hosts: OpenHosts = nobody_open,
    ) -> None:
        """With nothing learned. `class_of`: what the site file says of a device."""
        self.schema = schema
        self.settings = settings
        self.class_of = class_of
        self.open_hosts = open_hosts
        self.frozen = False
        """True: it judges, and learns nothing."""
        self.selection = Selection(schema)
        self.reset()

    def reset(self) -> None:
        """Forget everything, and begin to learn."""
        s = self.settings
        self.profiles = Profiles(s.max_devices)
        self.budget = Budget(
            s.max_devices,
            per_day=s.findings_per_day,
            merge_ns=round(s.merge_s * SECOND_NS),
            enough_ns=s.learn_s / 2 * SECOND_NS,
            half_life_ns=s.half_life_s * SECOND_NS,
        )
        self.sample = Sample(s.max_sample_rows, len(self.schema))
        self.counts: Counter[str] = Counter()
        self.now_ns = 0
        """The baseline's own time: event time since it began, without jumps."""
        self.faded_ns = 0
        self._last_end_ns: int | None = None
        self._held: deque[_Held] = deque()

    # -- what the pipeline, training and evaluation call

    def judge(self, matrix: FeatureMatrix) -> list[Verdict]:
        """Verdicts in the order of rows; what is quiet is learned `hold_s` later."""
        verdicts: list[Verdict] = []
        for rows in _slices(matrix):
            held, judged, at = self._see(matrix, rows)
            flagged = np.flatnonzero(judged.tells & (judged.score >= self.budget.threshold))
            held.flagged[flagged] = True
            verdicts += self._verdicts(matrix, judged, at, flagged)
            self._held.append(held)
            before_ns = held.end_ns - round(self.settings.hold_s * SECOND_NS)
            while self._held and self._held[0].end_ns <= before_ns:
                self._release(self._held.popleft())
        return verdicts

    def learn(self, matrix: FeatureMatrix) -> None:
        """Learn rows as quiet traffic, at once, whatever they show."""
        for rows in _slices(matrix):
            self._release(self._see(matrix, rows)[0])

    def new_ward(self, class_of: ClassOf = no_class) -> None:
        """Forget the devices, and keep what is known of classes and of the ward as a whole.

        For recordings of several wards, which use the same addresses for other devices.
        """
        self._held.clear()
        self._last_end_ns = None
        self.class_of = class_of
        self._drop(np.array(self.profiles.devices(), np.int64))

    def counters(self) -> Mapping[str, int]:
        """Running totals: rows, flagged, not learned (and why), devices evicted, refused and forgotten."""
        return {
            **self.counts,
            "evicted_devices": self.profiles.n_evicted,
            "refused_devices": self.profiles.n_refused,
            "forgotten_devices": self.profiles.n_forgotten,
        }

    # -- what people do

    def accept(self, device: Endpoint) -> bool:
        """What the device does now is right: learn it, findings or not. False: it is not known."""
        numbers = self.profiles.numbers_of(device)
        self.profiles.learn_again(numbers, self.now_ns)
        return len(numbers) > 0

    def forget(self, device: Endpoint) -> bool:
        """Forget one device. False: it is not known."""
        numbers = self.profiles.numbers_of(device)
        self._drop(numbers)
        return len(numbers) > 0

    # -- one slice

    def _see(self, matrix: FeatureMatrix, rows: slice) -> tuple[_Held, Judged, I64]:
        """What a slice shows, how it is judged, and which rows of the matrix it is about."""
        end_ns, elapsed_ns = int(matrix.end_ns[rows.start]), 0
        if self._last_end_ns is not None:
            elapsed_ns = min(max(end_ns - self._last_end_ns, 0), MAX_STEP_NS)
        self._last_end_ns = end_ns
        self.now_ns += elapsed_ns
        numbers = self._numbers(matrix, rows)
        known = np.flatnonzero(numbers >= 0)
        numbers, at = numbers[known], known + rows.start
        self.counts["rows"] += len(at)
        values, subjects = matrix.values[at], matrix.subjects
        seen = Seen(
            numbers=numbers,
            steps=self.selection.bins(values),
            spoken=self.selection.spoken(values),
            ids=_keys(subjects, at),
        )
        judged = judge(
            self.profiles,
            seen,
            self.now_ns,
            learn_ns=self.settings.learn_s * SECOND_NS,
            min_slices=self.settings.min_slices,
        )
        picked, priority = self.sample.candidates(0 if self.frozen else len(at))
        held = _Held(
            end_ns=end_ns,
            now_ns=self.now_ns,
            elapsed_ns=elapsed_ns,
            seen=seen,
            tenant=self.profiles.tenant[numbers],
            score=judged.score,
            judged=judged.by >= 0,
            own=(judged.by == numbers) & judged.tells,
            flagged=np.zeros(len(at), np.bool_),
            sample=(picked, values[picked], priority),
        )
        return held, judged, at

    def _numbers(self, matrix: FeatureMatrix, rows: slice) -> I64:
        """(n,) profiles of a slice's hosts, -1 for none; who sends for the first time gets one, if there is room."""
        profiles, subjects = self.profiles, matrix.subjects
        hi, lo = subjects.hi[rows], subjects.lo[rows]
        numbers = profiles.lookup(hi, lo)
        sends = matrix.values[rows, self.selection.sent] > 0
        new = np.flatnonzero((numbers < 0) & sends)
        profiles.last_ns[numbers[numbers >= 0]] = self.now_ns
        if len(new):
            keys = list(zip(hi[new].tolist(), lo[new].tolist(), strict=True))
            numbers[new], gone = profiles.admit(keys, self.now_ns)
            self.budget.forget(gone)
            self._classify(numbers[new])
        known = numbers >= 0
        profiles.seen[numbers[known]] += 1
        mac = subjects.mac[rows][known]
        profiles.mac[numbers[known]] = np.where(mac, mac, profiles.mac[numbers[known]])
        return numbers

    def _classify(self, numbers: Iterable[int]) -> None:
        """Note the classes of devices; a device that is listed by its MAC may be known a little later."""
        for number in numbers:
            name = self.class_of(self.profiles.device(number)) if number >= 0 else None
            if name is not None:
                self.profiles.class_of[number] = self.profiles.class_number(name, self.now_ns)

    def _verdicts(
        self, matrix: FeatureMatrix, judged: Judged, at: I64, flagged: I64
    ) -> list[Verdict]:
        worst = flagged[np.argsort(-judged.score[flagged], kind="stable")[:MAX_VERDICTS]]
        self.counts["flagged"] += len(flagged)
        self.counts["over_limit"] += len(flagged) - len(worst)
        threshold = self.budget.threshold
        return [
            verdict(self.profiles, matrix, int(at[row]), judged, row, threshold=threshold)
            for row in np.sort(worst).tolist()
        ]

    # -- learning

    def _release(self, held: _Held) -> None:
        """Learn a slice that was held."""
        if self.frozen:
            return
        profiles, seen = self.profiles, held.seen
        same = profiles.tenant[seen.numbers] == held.tenant
        found, others_say = self._in_findings(seen.numbers)
        reached = np.flatnonzero(same & held.judged & ~others_say & (held.score > 0))
        if len(reached):
            self.budget.count(seen.numbers[reached], held.score[reached], held.now_ns)
        if held.judged.any():
            self.budget.pass_time(held.elapsed_ns)
        calm = same & ((~found & ~held.flagged) | profiles.accepting[seen.numbers])
        self.counts["learned_rows"] += int(np.count_nonzero(calm))
        self.counts["flagged_rows_not_learned"] += int(np.count_nonzero(held.flagged & ~calm))
        self.counts["finding_rows_not_learned"] += int(
            np.count_nonzero(same & ~held.flagged & ~calm)
        )
        if calm.any():
            self._learn(held, calm)
        picked, values, priority = held.sample
        self.sample.keep(values[calm[picked]], priority[calm[picked]])
        self._fade()

    def _learn(self, held: _Held, calm: BoolArray) -> None:
        """Learn the rows that are calm: one slice in `EVERY` whole, of the others what is not known yet."""
        profiles, seen = self.profiles, held.seen
        whole = held.end_ns // SECOND_NS % EVERY == 0
        rows = np.flatnonzero(calm & (whole | (held.score > 0) | ~held.own))
        weights = np.full(len(rows), EVERY if whole else 1, np.float32)
        unsure = np.flatnonzero(~held.own[rows]) if not whole else rows[:0]
        if len(unsure):  # its score was by another's measure
            at = rows[unsure]
            beyond = profiles.is_beyond(
                seen.numbers[at], seen.steps[at], seen.spoken[at], seen.ids[at]
            )
            kept = np.delete(np.arange(len(rows)), unsure[~beyond])
            rows, weights = rows[kept], weights[kept]
        numbers = seen.numbers if calm.all() else seen.numbers[calm]
        profiles.count(numbers)
        if len(rows):
            learned = seen.numbers[rows]
            profiles.learn_rates(learned, seen.steps[rows], seen.spoken[rows], weights)
            profiles.learn_ids(learned, seen.ids[rows], held.now_ns)
        profiles.ripen(
            numbers,
            held.now_ns,
            learn_ns=self.settings.learn_s * SECOND_NS,
            min_slices=self.settings.min_slices,
        )

    def _in_findings(self, numbers: I64) -> tuple[BoolArray, BoolArray]:
        """(n,) whether a finding is open about the device, and whether another detector says so."""
        found = np.zeros(len(numbers), np.bool_)
        others = found.copy()
        for host, corroborated in self.open_hosts().items():
            number = self.profiles.number_of(host)
            if number is not None:
                found |= numbers == number
                others |= (numbers == number) & corroborated
        return found, others

    def _fade(self) -> None:
        """Forget a little, every hour."""
        half_life_ns = self.settings.half_life_s * SECOND_NS
        elapsed_ns = self.now_ns - self.faded_ns
        if elapsed_ns < min(FADE_NS, half_life_ns / 100):
            return
        self.faded_ns = self.now_ns
        self.profiles.fade(elapsed_ns, half_life_ns, self.now_ns)
        self._classify(self.profiles.devices())

    def _drop(self, numbers: I64) -> None:
        self.budget.forget(numbers)
        self.profiles.drop(numbers)


def _slices(matrix: FeatureMatrix) -> list[slice]:
    """The rows of each slice of a matrix, in order."""
    if not len(matrix):
        return []
    cuts = [0, *(np.flatnonzero(np.diff(matrix.end_ns)) + 1).tolist(), len(matrix)]
    return [slice(a, b) for a, b in pairwise(cuts)]


def _keys(subjects: Subjects, at: I64) -> U64:
    """(n, 4) as `Seen.ids`: 64 bits of an address (an IPv4 address keeps all of its own), a port plus one."""
    keys = np.empty((len(at), 4), np.uint64)
    for which, (hi, lo) in enumerate(
        ((subjects.out_peer_hi, subjects.out_peer_lo), (subjects.in_peer_hi, subjects.in_peer_lo))
    ):
        np.multiply(hi[at], np.uint64(0x9E37_79B9_7F4A_7C15), out=keys[:, which])
        keys[:, which] ^= lo[at]
    keys[:, 2] = subjects.out_port[at] + 1
    keys[:, 3] = subjects.in_port[at] + 1
    return keys
