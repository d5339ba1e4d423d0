"""Which verdicts are one attack: the rules by which a verdict finds its finding.

It never tells anything and knows no time but whether a finding is open. In: a verdict and where it
stands (`place`). Out: the open finding that it belongs to and what to do (`Outcome`), or none.

In order (docs/decisions/0008):
0. an anomaly of a device that a finding of another group is about: that finding is why;
1. the same kind on the same attacker and victim, or on a finding that is wide on that side;
2. a sibling kind on the same hosts: folded in, or it takes the finding over if its evidence is better;
3. a learned verdict that only mirrors an open finding: its victim's answers, or the TCP segments that
   carry an MQTT flood that a rule has named;
4. more than a set number of attackers of one victim (or victims of one attacker): the eldest finding
   becomes wide and takes the rest in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from agent.alert.endpoints import is_mac
from agent.alert.open_finding import PERSIST_SLICES, RULES, Finding, State
from agent.alert.techniques import DETECTIONS, Group, Scope
from agent.records import NOBODY, Endpoint, Verdict

MANY_ATTACKERS = 3
"""More hosts than this against one victim are one attack from many sources (spoofed or distributed)."""
MANY_VICTIMS = {Group.SPOOFING: 1}
"""More victims than this of one attacker are one attack on many; poisoning stands between two at least."""
MANY_VICTIMS_ELSE = 3
CARRIED_BY_TCP = frozenset({"tcp_flood", "tcp_syn_flood"})

Side = tuple[Group, Endpoint]


class Outcome(Enum):
    """What a verdict does to the finding it belongs to."""

    SAME = 0
    FOLD = 1
    """It is counted there; the finding keeps its kind."""
    RENAME = 2
    """Its kind takes the finding over."""


@dataclass(frozen=True, slots=True)
class Place:
    """The two hosts of a dedupe key; NOBODY on the side that is many or not known."""

    attacker: Endpoint
    victim: Endpoint
    many_attackers: bool = False
    many_victims: bool = False


@dataclass(frozen=True, slots=True)
class Crowds:
    """Victims with too many attackers in one slice, and attackers with too many victims."""

    victims: frozenset[tuple[str, Endpoint]]
    attackers: frozenset[tuple[str, Endpoint]]


def max_victims(group: Group) -> int:
    """How many victims of one attacker are still told apart."""
    return MANY_VICTIMS.get(group, MANY_VICTIMS_ELSE)


def crowded(verdicts: Iterable[Verdict]) -> Crowds:
    """Who has too many on the other side, among the verdicts of one slice."""
    against: defaultdict[tuple[str, Endpoint], set[Endpoint]] = defaultdict(set)
    by: defaultdict[tuple[str, Endpoint], set[Endpoint]] = defaultdict(set)
    for v in verdicts:
        if NOBODY not in {v.attacker, v.victim}:
            against[v.kind, v.victim].add(v.attacker)
            by[v.kind, v.attacker].add(v.victim)
    return Crowds(
        frozenset(k for k, hosts in against.items() if len(hosts) > MANY_ATTACKERS),
        frozenset(k for k, hosts in by.items() if len(hosts) > max_victims(DETECTIONS[k[0]].group)),
    )


def place(verdict: Verdict, crowds: Crowds) -> Place:
    """Where a verdict stands: sweeps on the attacker alone, spoofed and distributed on the victim alone."""
    attacker, victim = verdict.attacker, verdict.victim
    if attacker == NOBODY and victim == NOBODY:
        victim = verdict.subject
    if attacker != NOBODY and (
        DETECTIONS[verdict.kind].scope is Scope.ATTACKER
        or victim == NOBODY
        or (verdict.kind, attacker) in crowds.attackers
    ):
        return Place(attacker, NOBODY, many_victims=True)
    if victim != NOBODY and (
        attacker == NOBODY
        or verdict.spoofed
        or verdict.distributed
        or (verdict.kind, victim) in crowds.victims
    ):
        return Place(NOBODY, victim, many_attackers=True)
    return Place(attacker, victim)


class Table:
    """The open findings, by attacker and by victim; at most `max_findings`."""

    def __init__(self, max_findings: int) -> None:
        self._max = max_findings
        self._all: dict[int, Finding] = {}
        self._by_attacker: defaultdict[Side, list[Finding]] = defaultdict(list)
        self._by_victim: defaultdict[Side, list[Finding]] = defaultdict(list)

    def __iter__(self) -> Iterator[Finding]:
        return iter(list(self._all.values()))

    def __len__(self) -> int:
        return len(self._all)

    def add(self, finding: Finding) -> bool:
        """Whether there was room."""
        if len(self._all) >= self._max:
            return False
        self._all[finding.number] = finding
        if finding.attacker != NOBODY:
            self._by_attacker[finding.group, finding.attacker].append(finding)
        if finding.victim != NOBODY:
            self._by_victim[finding.group, finding.victim].append(finding)
        return True

    def remove(self, finding: Finding) -> None:
        """Forget it."""
        del self._all[finding.number]
        for index, host in (
            (self._by_attacker, finding.attacker),
            (self._by_victim, finding.victim),
        ):
            side = (finding.group, host)
            if side in index:
                index[side].remove(finding)
                if not index[side]:
                    del index[side]

    def match(self, verdict: Verdict, where: Place) -> tuple[Finding | None, Outcome]:
        """The finding that the verdict belongs to and what to do with it; None: it is a new attack."""
        group = DETECTIONS[verdict.kind].group
        why = self._explained(verdict.subject) if group is Group.ANOMALY else None
        if why is not None and verdict.detector != RULES:
            return why, Outcome.FOLD
        near = self._near(group, where)
        same = next((f for f in near if f.kind == verdict.kind), None)
        same = same or self._same_poisoner(verdict)
        if same is not None:
            self._widen(same, where)
            return same, Outcome.SAME
        scope = DETECTIONS[verdict.kind].scope
        for finding in near:
            if DETECTIONS[finding.kind].scope is scope:
                outcome = _sibling(finding, verdict)
                if outcome is not None:
                    self._widen(finding, where)
                    return finding, outcome
        mirrored = self._mirrored(verdict, where)
        if mirrored is not None:
            return mirrored, Outcome.FOLD
        return self._too_many(verdict.kind, where), Outcome.SAME

    def _side(
        self, index: dict[Side, list[Finding]], group: Group, host: Endpoint
    ) -> list[Finding]:
        return index.get((group, host), []) if host != NOBODY else []

    def _near(self, group: Group, where: Place) -> list[Finding]:
        """Open findings of the group on the same hosts: the exact ones first, then the eldest."""
        on_victim = [
            f
            for f in self._side(self._by_victim, group, where.victim)
            if f.attacker == where.attacker or f.many_attackers or where.many_attackers
        ]
        by_attacker = [
            f
            for f in self._side(self._by_attacker, group, where.attacker)
            if f.victim == where.victim or f.many_victims or where.many_victims
        ]
        found = {f.number: f for f in on_victim + by_attacker}
        hosts = where.attacker, where.victim
        return sorted(found.values(), key=lambda f: ((f.attacker, f.victim) != hosts, f.number))

    @staticmethod
    def _widen(finding: Finding, where: Place) -> None:
        finding.many_attackers |= where.many_attackers
        finding.many_victims |= where.many_victims

    def _same_poisoner(self, verdict: Verdict) -> Finding | None:
        """The poisoning of the same hosts, whose sender one row knows by MAC and another by address."""
        if DETECTIONS[verdict.kind].group is not Group.SPOOFING or verdict.attacker == NOBODY:
            return None
        hosts = {verdict.victim, verdict.subject} - {NOBODY, verdict.attacker}
        for finding in self._all.values():
            if finding.kind == verdict.kind and hosts & finding.victims:
                known_by_mac = is_mac(finding.attacker) != is_mac(verdict.attacker)
                if known_by_mac or finding.attacker == NOBODY:
                    return finding
        return None

    def _mirrored(self, verdict: Verdict, where: Place) -> Finding | None:
        """The finding that a learned verdict only repeats: from the other side, scope or layer."""
        if verdict.detector == RULES:
            return None
        group = DETECTIONS[verdict.kind].group
        for finding in self._side(self._by_victim, group, where.attacker):
            if finding.many_attackers or finding.attacker == where.victim:
                return finding  # the victim's own answers
        for finding in self._side(self._by_attacker, group, where.victim):
            if finding.many_victims:
                return finding  # the answers of a sweep's targets
        for finding in self._side(self._by_attacker, group, where.attacker):
            if (
                finding.ruled
                and DETECTIONS[finding.kind].scope is not DETECTIONS[verdict.kind].scope
            ):
                return finding  # a scan that looks like a sweep, or the reverse
        if verdict.kind in CARRIED_BY_TCP and not verdict.spoofed:
            return next((f for f in self._near(Group.MQTT, where) if f.ruled), None)
        return None

    def _explained(self, device: Endpoint) -> Finding | None:
        """The eldest finding of another group about a device that is unlike itself: that is why."""
        return next(
            (
                f
                for f in self._all.values()
                if f.group is not Group.ANOMALY and device in {f.attacker, f.victim, *f.victims}
            ),
            None,
        )

    def _too_many(self, kind: str, where: Place) -> Finding | None:
        """The eldest of too many findings of the kind on one host, made wide; None: there are few."""
        group = DETECTIONS[kind].group
        against = [f for f in self._side(self._by_victim, group, where.victim) if f.kind == kind]
        if len(against) >= MANY_ATTACKERS:
            against[0].many_attackers = True
            return against[0]
        by = [f for f in self._side(self._by_attacker, group, where.attacker) if f.kind == kind]
        if len(by) >= max_victims(group):
            by[0].many_victims = True
            return by[0]
        return None


def _sibling(finding: Finding, verdict: Verdict) -> Outcome | None:
    """What a sibling kind on the same hosts does; None: both were said by rules and both stand."""
    if verdict.detector == RULES:
        return None if finding.ruled else Outcome.RENAME
    if finding.ruled:
        return Outcome.FOLD
    if finding.state is not State.TOLD:
        return Outcome.FOLD  # of one slice: the surer verdict came first
    n_slices, last_ns = finding.siblings.get(verdict.kind, (0, 0))
    n_slices += last_ns != verdict.end_ns
    persists = n_slices >= PERSIST_SLICES and n_slices > 2 * finding.own_slices[0]
    return Outcome.RENAME if persists else Outcome.FOLD
