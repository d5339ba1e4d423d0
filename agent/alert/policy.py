"""Verdicts to findings with a life: created, updated, closed; one attack is one finding.

It never reads a clock (event time only), never drops anything uncounted, and its tables are bounded.
What is one attack stands in `matching`; how bad it is in `severity`; why so, in docs/decisions/0008.

In: verdicts of slices that are judged, in any order within a slice. Out: `Alert` events, ordered by
event time; for one uid always create, update*, close?, whatever the batches were cut like.
Raises: `ConfigError` from the constructor. Remembers: open and withheld findings (at most `max_findings`),
the ids of the last 1,024 closed ones, a token bucket and counters a detection.

Source: the alert contract, "Life cycle".
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from uuid import NAMESPACE_URL, uuid5

from agent.alert.burst import TokenBucket, parse_rate
from agent.alert.endpoints import pseudonym
from agent.alert.matching import Outcome, Place, Table, crowded, place
from agent.alert.open_finding import BASELINE, RULES, Finding, State
from agent.alert.severity import SEVERITIES, highest, lowered, severity
from agent.alert.suppression import DeviceLookup, Suppression, no_devices
from agent.alert.techniques import DETECTIONS, STORM, Group
from agent.alert.tuning import Effect, Rules, Tuning
from agent.records import NOBODY, Alert, Endpoint, Fact, Verdict

SECOND_NS = 10**9
GRACE_NS = 1_200_000_000
"""A slice and its grace for late frames: what ended longer ago than this has been judged."""
UPDATE_NS = 60 * SECOND_NS
"""At most one update a finding in this time; the latest state waits."""
MAX_CLOSED = 1024


def _no_offset() -> int:
    """Event time is wall time: captures from files."""
    return 0


class FindingPolicy:
    """The findings of one capture source (implements `pipeline.Policy`)."""

    def __init__(  # noqa: PLR0913 - a site's settings, each by its name
        self,
        *,
        gateway: str,
        source: str,
        source_kind: str = "ip",
        quiet_s: float = 120.0,
        burst: str = "5/min",
        devices: DeviceLookup = no_devices,
        suppressions: Sequence[Suppression] = (),
        tuning: Tuning | None = None,
        site_key: bytes = b"",
        confidence_p30: Mapping[str, float] | None = None,
        wall_offset_ns: Callable[[], int] = _no_offset,
        max_findings: int = 1024,
    ) -> None:
        """Set up with nothing open.

        `confidence_p30`: by detector, the score that 30 % of its true detections stay below; a
        detector without one is never of low confidence. `wall_offset_ns`: what to add to event time
        to get wall time, for suppressions. `tuning`: what people have said, in place of `suppressions`.
        `site_key`: so that a uid cannot be tried out for addresses.
        """
        self._namespace = uuid5(NAMESPACE_URL, f"urn:wardwatch:gateway:{gateway}")
        self._source = source
        self._source_kind = source_kind
        self._quiet_ns = round(quiet_s * SECOND_NS)
        self._devices = devices
        self.tuning = tuning or Tuning(
            Rules(suppressions=tuple(suppressions)), device_of=devices, quiet_ns=self._quiet_ns
        )
        self._site_key = site_key
        self._p30 = dict(confidence_p30 or {})
        self._wall_offset_ns = wall_offset_ns
        rate = parse_rate(burst)
        self._buckets = {kind: TokenBucket(*rate) for kind in DETECTIONS if kind != STORM}
        self._table = Table(max_findings)
        self._storm: Finding | None = None
        self._closed: OrderedDict[tuple[object, ...], str] = OrderedDict()
        self._counts: Counter[str] = Counter()
        self._n_opened = 0
        self._next_due_ns: int | None = None

    # -- what the pipeline calls

    def consider(self, verdicts: Sequence[Verdict], now_ns: int) -> list[Alert]:
        """Create and update findings, slice by slice; `now_ns` is the end of the latest slice judged."""
        alerts: list[Alert] = []
        for end_ns, rows in groupby(sorted(verdicts, key=_order), key=lambda v: v.end_ns):
            alerts += self._consider_slice(end_ns, list(rows))
        return alerts + self._tick(now_ns - SECOND_NS)

    def advance(self, now_ns: int) -> list[Alert]:
        """Close what has been quiet for long enough, send the updates that were held back."""
        return self._tick(now_ns - GRACE_NS)

    def close_all(self, now_ns: int) -> list[Alert]:
        """Close every finding, because the source has ended (`replay --close`, a clean stop)."""
        closed = [self._close(f, max(now_ns, f.last_ns), why="end") for f in self._everything()]
        return [alert for alert in closed if alert is not None]

    def open_findings(self) -> list[Alert]:
        """What is open and told, as it stands; the most severe first, then the oldest."""
        told = [f for f in self._everything() if f.state is State.TOLD]
        told.sort(key=lambda f: (-SEVERITIES.index(f.severity()), f.start_ns, f.number))
        return [self._alert("update", f, f.last_ns, {}, facts=f.facts) for f in told]

    def open_hosts(self) -> Mapping[Endpoint, bool]:
        """Hosts that an open finding is about, either side; True where another detector than the baseline says so."""
        hosts: dict[Endpoint, bool] = {}
        for finding in self._table:
            said = any(detector != BASELINE for detector in finding.detectors)
            for host in {finding.attacker, finding.victim, *finding.victims} - {NOBODY}:
                hosts[host] = hosts.get(host, False) or said
        return hosts

    def counters(self) -> Mapping[str, int]:
        """Running totals for `health`; `suppressed.NAME` counts the uses of each suppression."""
        uses = {
            f"suppressed.{name}": use.verdicts
            for (section, name), use in self.tuning.uses().items()
            if section == "suppress"
        }
        n_open = sum(f.state is State.TOLD for f in self._everything())
        return {**self._counts, **uses, "open": n_open}

    # -- one slice

    def _consider_slice(self, end_ns: int, rows: list[Verdict]) -> list[Alert]:
        alerts = self._tick(min(v.start_ns for v in rows))
        wall_ns = end_ns + self._wall_offset_ns()
        judged = [(v, *self.tuning.judge(v, wall_ns=wall_ns)) for v in rows]
        heard = [(v, name) for v, effect, name in judged if effect is not Effect.SILENCE]
        self._counts["verdicts"] += len(rows)
        self._counts["suppressed"] += len(rows) - len(heard)
        self._counts["lowered"] += sum(bool(name) for _, name in heard)
        many = crowded(v for v, _ in heard)
        touched: dict[int, Finding] = {}
        for verdict, lowered_by in heard:
            finding, told = self._take(verdict, place(verdict, many), lowered_by)
            alerts += told
            if finding is not None:
                touched[finding.number] = finding
        for number in sorted(touched):
            alerts += self._tell(touched[number], end_ns)
        if self._storm is not None and self._storm.last_ns == end_ns:
            alerts += self._tell_storm(self._storm, end_ns)
        return alerts

    def _take(
        self, verdict: Verdict, where: Place, lowered_by: str = ""
    ) -> tuple[Finding | None, list[Alert]]:
        """The finding that a verdict belongs to, and what had to be told to make it so."""
        found, outcome = self._table.match(verdict, where)
        alerts: list[Alert] = []
        if found is None:
            found = self._open(verdict, where)
            if found is None:
                worst = severity(verdict.kind, weak=verdict.detector != RULES)
                worst = lowered(worst) if lowered_by else worst
                self._withhold(verdict.kind, verdict.start_ns, verdict.end_ns, severity_name=worst)
                return None, []
        elif outcome is Outcome.RENAME:
            found, alerts = self._rename(found, verdict)
        elif outcome is Outcome.FOLD:
            self._counts["folded"] += 1
            if DETECTIONS[verdict.kind].group is Group.ANOMALY:
                found.corroborate(verdict.detector)
                return found, alerts
            if verdict.victim == found.attacker:  # the answers to what a role lowers
                lowered_by = lowered_by or found.lowered_by
        device = self._devices(verdict.victim) if verdict.victim != NOBODY else None
        found.absorb(
            verdict,
            confident=verdict.score >= self._p30.get(verdict.detector, 0.0),
            critical=device is not None and device.criticality == "critical",
            lowered_by=lowered_by,
        )
        return found, alerts

    def _open(self, verdict: Verdict, where: Place) -> Finding | None:
        self._n_opened += 1
        finding = Finding(
            number=self._n_opened,
            kind=verdict.kind,
            attacker=where.attacker,
            victim=where.victim,
            start_ns=verdict.start_ns,
            last_ns=verdict.end_ns,
            many_attackers=where.many_attackers,
            many_victims=where.many_victims,
        )
        if self._table.add(finding):
            return finding
        self._counts["table_full"] += 1
        return None

    def _rename(self, old: Finding, verdict: Verdict) -> tuple[Finding, list[Alert]]:
        """A sibling kind has the better evidence: it takes the finding over."""
        if old.state is not State.TOLD:  # nobody has heard of it: it simply gets the better name
            old.kind, old.best, old.ruled = verdict.kind, None, False
            return old, []
        if not self._buckets[verdict.kind].take(verdict.end_ns):
            return old, []
        closed = self._close(old, verdict.end_ns, why="renamed")
        self._n_opened += 1
        new = Finding(
            number=self._n_opened,
            kind=verdict.kind,
            attacker=old.attacker,
            victim=old.victim,
            start_ns=old.start_ns,
            last_ns=verdict.end_ns,
            previous_uid=old.uid,
            paid=True,
        )
        new.inherit(old)
        self._table.add(new)
        self._counts["renamed"] += 1
        return new, [closed] if closed else []

    # -- telling

    def _tell(self, finding: Finding, now_ns: int) -> list[Alert]:
        if finding.state is State.CLOSED:
            return []
        finding.highest_severity = highest(finding.highest_severity or "info", finding.severity())
        if finding.state is State.TOLD:
            alerts = self._update_if_due(finding, now_ns)
        elif finding.paid or self._buckets[finding.kind].take(now_ns):
            alerts = [self._create(finding, now_ns)]
        else:
            if finding.state is State.PENDING:
                self._withhold(
                    finding.kind, finding.start_ns, now_ns, severity_name=finding.highest_severity
                )
            finding.state = State.WITHHELD
            alerts = []
        self._note_due(finding)
        return alerts

    def _tell_storm(self, storm: Finding, now_ns: int) -> list[Alert]:
        storm.highest_severity = highest(storm.highest_severity or "info", storm.severity())
        told = storm.state is State.TOLD
        alerts = self._update_if_due(storm, now_ns) if told else [self._create(storm, now_ns)]
        self._note_due(storm)
        return alerts

    def _withhold(self, kind: str, start_ns: int, now_ns: int, *, severity_name: str) -> None:
        """One finding more that is not told but counted, in the one `storm` finding."""
        self._counts["withheld"] += 1
        storm = self._storm
        if storm is None:
            self._n_opened += 1
            storm = self._storm = Finding(
                number=self._n_opened,
                kind=STORM,
                attacker=NOBODY,
                victim=NOBODY,
                start_ns=start_ns,
                last_ns=now_ns,
            )
        storm.last_ns = max(storm.last_ns, now_ns)
        storm.storm_counts[kind] = storm.storm_counts.get(kind, 0) + 1
        storm.storm_severity = highest(storm.storm_severity, severity_name)

    def _create(self, finding: Finding, now_ns: int) -> Alert:
        finding.state = State.TOLD
        finding.created_ns = now_ns
        finding.uid = finding.uid or self._uid(finding)
        finding.previous_uid = finding.previous_uid or self._closed.get(_key(finding))
        finding.told_severity = finding.severity()
        finding.pass_marks()
        self._counts["created"] += 1
        return self._alert("create", finding, now_ns, {})

    def _update_due_ns(self, finding: Finding) -> int | None:
        """When an update is due; None where there is nothing new to tell."""
        if finding.state is not State.TOLD:
            return None
        waited_ns = finding.updated_ns + UPDATE_NS if finding.updated_ns is not None else 0
        if finding.severity() != finding.told_severity:
            return waited_ns
        if finding.count >= finding.next_mark:
            return max(waited_ns, finding.created_ns + UPDATE_NS)
        return None

    def _update_if_due(self, finding: Finding, now_ns: int) -> list[Alert]:
        due_ns = self._update_due_ns(finding)
        if due_ns is None or due_ns > now_ns:
            return []
        finding.updated_ns = now_ns
        finding.told_severity = finding.severity()
        finding.pass_marks()
        self._counts["updated"] += 1
        return [self._alert("update", finding, now_ns, {})]

    def _close(self, finding: Finding, now_ns: int, *, why: str) -> Alert | None:
        if finding is self._storm:
            self._storm = None
        else:
            self._table.remove(finding)
        told, finding.state = finding.state is State.TOLD, State.CLOSED
        if not told:
            return None
        self._closed[_key(finding)] = finding.uid
        self._closed.move_to_end(_key(finding))
        if len(self._closed) > MAX_CLOSED:
            self._closed.popitem(last=False)
        self._counts["closed"] += 1
        return self._alert("close", finding, now_ns, {"closed_by": why})

    # -- time

    def _everything(self) -> Iterable[Finding]:
        storm = [self._storm] if self._storm is not None else []
        return [*self._table, *storm]

    def _quiet_until_ns(self, finding: Finding) -> int:
        own_s = DETECTIONS[finding.kind].close_quiet_s
        return finding.last_ns + (own_s * SECOND_NS if own_s is not None else self._quiet_ns)

    def _note_due(self, finding: Finding) -> None:
        update_ns = self._update_due_ns(finding)
        due_ns = self._quiet_until_ns(finding)
        if update_ns is not None:
            due_ns = min(due_ns, update_ns)
        self._next_due_ns = min(due_ns, self._next_due_ns or due_ns)

    def _tick(self, now_ns: int) -> list[Alert]:
        """What was due by `now_ns`, each told with the time at which it was due."""
        if self._next_due_ns is None or now_ns < self._next_due_ns:
            return []
        timed: list[tuple[int, int, Alert]] = []
        for finding in self._everything():
            close_ns = self._quiet_until_ns(finding)
            due_ns = self._update_due_ns(finding)
            if due_ns is not None and due_ns <= min(now_ns, close_ns):
                timed += [
                    (alert.time_ns, finding.number, alert)
                    for alert in self._update_if_due(finding, max(due_ns, finding.last_ns))
                ]
            if close_ns <= now_ns:
                closed = self._close(finding, close_ns, why="quiet")
                if closed is not None:
                    timed.append((close_ns, finding.number, closed))
        self._next_due_ns = None
        for finding in self._everything():
            self._note_due(finding)
        timed.sort(key=lambda row: row[:2])
        return [alert for _, _, alert in timed]

    # -- records

    def _uid(self, finding: Finding) -> str:
        attacker = pseudonym(finding.attacker, site_key=self._site_key)
        victim = pseudonym(finding.victim, site_key=self._site_key)
        key = "|".join((finding.kind, attacker, victim, self._source, str(finding.start_ns)))
        return str(uuid5(self._namespace, key))

    def _alert(
        self,
        activity: str,
        finding: Finding,
        now_ns: int,
        extra: dict[str, str],
        *,
        facts: tuple[Fact, ...] | None = None,
    ) -> Alert:
        best = finding.best
        return Alert(
            activity=activity,
            uid=finding.uid,
            kind=finding.kind,
            severity=finding.severity(ongoing=activity != "close"),
            highest_severity=finding.highest_severity,
            detectors=tuple(sorted(finding.detectors, key=lambda d: (d != RULES, d))),
            attacker=finding.attacker,
            victim=finding.victim,
            spoofed=finding.spoofed,
            distributed=finding.distributed,
            start_ns=finding.start_ns,
            last_ns=finding.last_ns,
            time_ns=now_ns,
            count=finding.count,
            source=self._source,
            source_kind=self._source_kind,
            score=best.score if best else 1.0,
            margin=best.margin if best else finding.count,
            threshold=best.threshold if best else 0,
            ports=best.ports if best else (),
            facts=finding.reasons() if facts is None else facts,
            previous_uid=finding.previous_uid,
            storm_counts=dict(sorted(finding.storm_counts.items())) or None,
            extra={**extra, **finding.remarks()},
        )


def _order(verdict: Verdict) -> tuple[object, ...]:
    """By slice; in a slice rules first, the baseline last, then the surer, then whatever is always the same."""
    return (
        verdict.end_ns,
        verdict.detector != RULES,
        verdict.detector == BASELINE,  # so that what it says joins what the others say of the slice
        -verdict.score,
        verdict.kind,
        verdict.subject,
        verdict.attacker,
        verdict.victim,
    )


def _key(finding: Finding) -> tuple[object, ...]:
    """The dedupe key; gateway and source are the policy's own."""
    return finding.kind, finding.attacker, finding.victim
