"""The state of one finding while it is open: what has been seen of an attack so far.

It never decides when something is told (that is `policy`) and never makes text. Everything in it is
bounded: an attack of any length or breadth costs the same few kilobytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

from agent.alert.meter import Meter
from agent.alert.severity import lowered, severity
from agent.alert.techniques import DETECTIONS, STORM, Group
from agent.records import NOBODY, Endpoint, Fact, Verdict

RULES = "rules"
BASELINE = "baseline"
PERSIST_SLICES = 3
"""As many hostile slices make a learned detector's own word strong (docs/decisions/0008)."""
PERSIST_NS = 60 * 10**9
"""... within the long horizon: three false rows spread over hours are still three single rows."""
MAX_NAMED = 64
"""Attackers or victims remembered by name in one finding; further ones are not told apart."""
FIRST_MARK = 10


class State(Enum):
    """Where a finding stands with those who are told."""

    PENDING = 0  # made in this slice, nothing told yet
    WITHHELD = 1  # no token was left: counted in the storm, told once there is one
    TOLD = 2
    CLOSED = 3


@dataclass(slots=True, kw_only=True)
class Finding:
    """One attack, open. Times are event time [ns]."""

    number: int
    """Order of opening; breaks ties, so that a replay tells in the same order."""
    kind: str
    attacker: Endpoint
    victim: Endpoint
    start_ns: int
    last_ns: int
    state: State = State.PENDING
    paid: bool = False
    """Whether its token was already taken."""
    uid: str = ""
    previous_uid: str | None = None
    spoofed: bool = False
    distributed: bool = False
    many_attackers: bool = False
    """Verdicts from any attacker on its victim belong here."""
    many_victims: bool = False
    detectors: list[str] = field(default_factory=list)
    ruled: bool = False
    """Whether a rule said this very kind."""
    confident: bool = False
    persisted: bool = False
    critical: bool = False
    """Whether a victim of it is marked critical."""
    lowered_by: str = ""
    """The role that lowers it; empty: none does."""
    unlowered: bool = False
    """Whether any of it is not of a machine that has a role for it."""
    victims: set[Endpoint] = field(default_factory=set)
    recent_ns: list[int] = field(default_factory=list)
    n_slices: int = 0
    own_slices: tuple[int, int] = (0, 0)
    """In how many slices this very kind was said, and the end of the latest."""
    siblings: dict[str, tuple[int, int]] = field(default_factory=dict)
    """The same of each sibling kind that was said of the same hosts."""
    best: Verdict | None = None
    told_severity: str = ""
    highest_severity: str = ""
    next_mark: int = FIRST_MARK
    """The count at which the next update is wanted: 10, 100, 1,000 ..."""
    updated_ns: int | None = None
    created_ns: int = 0
    storm_counts: dict[str, int] = field(default_factory=dict)
    storm_severity: str = "info"
    slice_ns: int = 0
    """End of the slice last seen."""
    meters: dict[tuple[bool, int], Meter] = field(default_factory=dict)
    """By whether the rows are the attackers' own, and by the length of their windows [s]."""

    @property
    def group(self) -> Group:
        """The group of its kind."""
        return DETECTIONS[self.kind].group

    @property
    def count(self) -> int:
        """Hostile packets or messages so far.

        Attacker's and victim's rows see the same packets, over a second and over a minute, and so do
        two detectors: whichever view has seen the most counts.
        """
        if self.kind == STORM:
            return sum(self.storm_counts.values())
        return max((meter.total for meter in self.meters.values()), default=0)

    @property
    def weak(self) -> bool:
        """One detector that learned, alone, and not for long; that the device is unlike itself is no second word."""
        n_learned = len(set(self.detectors) - {BASELINE})
        return RULES not in self.detectors and n_learned <= 1 and not self.persisted

    @property
    def facts(self) -> tuple[Fact, ...]:
        """Those of the best verdict, as they came."""
        return self.best.facts if self.best else ()

    def reasons(self) -> tuple[Fact, ...]:
        """What moved the best verdict, and whose figures they are: worked out, so only for an event that is told."""
        best = self.best
        if best is None:
            return ()
        facts = best.why.facts() if best.why else best.facts
        if self.group is Group.ANOMALY:
            return facts
        about = "victim" if best.subject == best.victim else "attacker"
        return tuple(replace(fact, about=about) for fact in facts)

    def severity(self, *, ongoing: bool = True) -> str:
        """As the table says, by what is known now."""
        if self.kind == STORM:
            return self.storm_severity
        full = severity(
            self.kind,
            low_confidence=not self.confident,
            weak=self.weak,
            criticality="critical" if self.critical else "normal",
            ongoing=ongoing,
        )
        return full if self.unlowered or not self.lowered_by else lowered(full)

    def remarks(self) -> dict[str, str]:
        """What an event of it says besides: the role that lowers it."""
        return {"lowered_by": self.lowered_by} if self.lowered_by and not self.unlowered else {}

    def absorb(
        self, verdict: Verdict, *, confident: bool, critical: bool, lowered_by: str = ""
    ) -> None:
        """Take a verdict in, of this kind or of a sibling's."""
        if verdict.end_ns != self.slice_ns:
            self._next_slice(verdict.end_ns)
        if self.state is not State.TOLD:  # a uid that was told names its start
            self.start_ns = min(self.start_ns, verdict.start_ns)
        self.last_ns = max(self.last_ns, verdict.end_ns)
        own_row = verdict.subject == verdict.attacker
        seen_at = verdict.subject if own_row or verdict.victim == NOBODY else verdict.victim
        view = (own_row, verdict.count_window_s)
        if view not in self.meters:
            self.meters[view] = Meter(verdict.count_window_s)
        self.meters[view].add(seen_at, verdict.count, verdict.end_ns)
        self.confident |= confident
        self.critical |= critical
        if lowered_by:
            self.lowered_by = lowered_by
        else:
            self.unlowered = True
        self.spoofed |= verdict.spoofed
        anomaly = self.group is Group.ANOMALY  # it knows no attackers, so not that they are many
        self.distributed |= verdict.distributed or (self.many_attackers and not anomaly)
        if len(self.victims) < MAX_NAMED and verdict.victim != NOBODY:
            self.victims.add(verdict.victim)
        if verdict.detector not in self.detectors:
            self.detectors.append(verdict.detector)
        if verdict.kind == self.kind:
            self.own_slices = _one_more(self.own_slices, verdict.end_ns)
            self.ruled |= verdict.detector == RULES
            if self.best is None or _weight(verdict) >= _weight(self.best):
                self.best = verdict
        else:
            n_last = self.siblings.get(verdict.kind, (0, 0))
            self.siblings[verdict.kind] = _one_more(n_last, verdict.end_ns)

    def corroborate(self, detector: str) -> None:
        """Another detector says that something is wrong with a host of this finding, not what."""
        if detector not in self.detectors:
            self.detectors.append(detector)

    def _next_slice(self, end_ns: int) -> None:
        self.slice_ns = end_ns
        self.n_slices += 1
        self.recent_ns = [*self.recent_ns, end_ns][-PERSIST_SLICES:]
        if len(self.recent_ns) == PERSIST_SLICES:
            self.persisted |= max(self.recent_ns) - min(self.recent_ns) < PERSIST_NS

    def inherit(self, old: Finding) -> None:
        """Go on with what was known under a sibling kind: it was the same attack."""
        self.start_ns = min(self.start_ns, old.start_ns)
        self.own_slices = old.siblings.get(self.kind, (0, 0))
        self.siblings = {**old.siblings, old.kind: old.own_slices}
        self.siblings.pop(self.kind, None)
        self.n_slices = old.n_slices
        self.recent_ns = list(old.recent_ns)
        self.persisted = old.persisted
        self.detectors = list(old.detectors)
        self.critical = old.critical
        self.lowered_by = old.lowered_by
        self.unlowered = old.unlowered
        self.spoofed = old.spoofed
        self.distributed = old.distributed
        self.many_attackers = old.many_attackers
        self.many_victims = old.many_victims
        self.victims = set(old.victims)
        self.slice_ns = old.slice_ns
        self.meters = old.meters

    def pass_marks(self) -> None:
        """Everything up to the present count has been told."""
        while self.next_mark <= self.count:
            self.next_mark *= 10


def _one_more(slices: tuple[int, int], end_ns: int) -> tuple[int, int]:
    """One slice more, unless it is the one last counted."""
    n, last_ns = slices
    return (n, last_ns) if last_ns == end_ns else (n + 1, end_ns)


def _weight(verdict: Verdict) -> tuple[bool, float]:
    """A rule's figures explain more than a model's; then the surer one."""
    return verdict.detector == RULES, verdict.score
