"""What a ward notices of one run: its episodes found and when, and the findings that should not be.

Through the agent's own alert policy, from whatever detectors are handed in; it never judges a row itself.

- An episode is **found** when a finding of its group was told whose attacker or victim is one of its hosts, and a
  verdict of that group about these hosts fell into the episode (a slice and its grace beyond its end). The policy
  folds kinds of one group between the same hosts into one finding (decision 0008). It is **named** when finding and
  verdict are of its very kind.
- Its **time** is from its first hostile frame to the moment at which the gateway tells it: the end of the slice of
  the first verdict plus the grace for late frames. An episode that is missed has no time; in a quantile it counts as
  never, so that a miss cannot make a detector look fast.
- A finding is **false** when no episode touches it: none whose hosts are among its attacker and victim, within the
  episode's time and the 60 s horizon after it. One that an episode touches, of another kind, is **misnamed**.
- Every run starts with fresh state; storms are not folded together here, so that each finding counts.

In: a `RunMatrix`, detectors. Out: `RunFindings`. Raises: nothing of its own. Remembers nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from agent.alert.policy import FindingPolicy
from agent.features.ip import GRACE_NS
from agent.records import MAC_HI, NOBODY, Alert, Detector, Endpoint, Verdict
from converter.datasets.labels import Episode
from converter.datasets.matrix import GROUPS, HORIZON_SLICES, SLICE_NS, RunMatrix, host_of

AFTER_NS = 2 * SLICE_NS
"""How long after its last hostile frame a verdict still counts for an episode: its slice's end, and one more."""

HORIZON_NS = (HORIZON_SLICES + 1) * SLICE_NS
DAY_S = 86_400
NO_BURST = "100000/min"
QUIET_SEVERITIES = frozenset({"info", "low"})

GROUP_OF = {kind: group for group, kinds in GROUPS.items() for kind in kinds}

ANY_GROUP = "any"
"""Group of a verdict that says "unusual" and no more (`device_anomaly`): it counts for an episode of any group."""

FAST_HZ = 10.0
"""Hostile frames a second from which an attack has to be found in 2 s."""

ONE_IN_5_S_HZ = 0.35
"""Up to this an attack is one probe every few seconds: 0.2 a second, with room for answers and repeats."""


@dataclass(frozen=True, slots=True)
class Pace:
    """A class of episodes with its own bar for the first finding."""

    name: str
    bar_s: float | None
    """p95 of the first finding; None: the issue names none."""
    bar_medium_s: float | None
    """p95 of the first moment at medium or above."""
    holds: Callable[[Episode, float], bool]
    """(episode, hostile frames a second); the first that holds is the episode's."""


def _is_scan(episode: Episode) -> bool:
    return GROUP_OF[episode.kind] == "recon"


PACES: tuple[Pace, ...] = (
    Pace("ARP spoofing", 2.0, 15.0, lambda e, _: e.kind == "arp_spoofing"),
    Pace("scan at default speed or faster", 5.0, None, lambda e, hz: _is_scan(e) and hz >= FAST_HZ),
    Pace("one probe in 5 s", 180.0, None, lambda e, hz: _is_scan(e) and hz <= ONE_IN_5_S_HZ),
    Pace("slow scan, in between", None, None, lambda e, _: _is_scan(e)),
    Pace("10 hostile frames/s or more", 2.0, None, lambda _, hz: hz >= FAST_HZ),
    Pace("slow MQTT", 90.0, None, lambda e, _: GROUP_OF[e.kind] == "mqtt"),
    Pace("slower", None, None, lambda *_: True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeFound:
    """What came of one episode."""

    run: str
    kind: str
    variant: str
    tool: str
    pace: str
    found: bool
    named: bool
    seconds: float | None
    """To the first finding; None: missed."""
    seconds_medium: float | None
    """To the first moment at medium severity or above; None: never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFindings:
    """What came of one run."""

    episodes: list[EpisodeFound]
    n_findings: int
    false: list[str]
    """Kinds of the false findings."""
    n_false_above_low: int
    """Of these, the findings that reached more than severity low."""
    misnamed: list[str]
    """`kind for kind` or kinds."""
    n_misnamed_group: int
    """Of these, those whose group is not one of the episodes' either."""


@dataclass(slots=True)
class _Told:
    """A finding's last word, and the first moment at medium or above."""

    last: Alert
    medium_ns: int | None = None


def pace_of(episode: Episode) -> str:
    """The name of the episode's row in `PACES`."""
    seconds = max((episode.end_ns - episode.start_ns) / SLICE_NS, 1.0)
    hz = episode.frames / seconds
    return next(pace.name for pace in PACES if pace.holds(episode, hz))


def run_findings(run: RunMatrix, detectors: Sequence[Detector]) -> RunFindings:
    """One run through detectors and policy; a detector judges all slices at once, which changes nothing it says."""
    verdicts = [v for detector in detectors for v in detector.judge(run.matrix)]
    told = _told(run, verdicts)
    episodes = [(episode, _hosts(episode)) for episode in run.info.episodes]
    false: list[str] = []
    misnamed: list[str] = []
    n_group = n_above_low = 0
    for alert in (each.last for each in told):
        near = {
            episode.kind
            for episode, hosts in episodes
            if _touches(alert.attacker, alert.victim, NOBODY, hosts)
            and alert.last_ns > episode.start_ns
            and alert.start_ns <= episode.end_ns + HORIZON_NS
        }
        if not near:
            false.append(alert.kind)
            n_above_low += alert.highest_severity not in QUIET_SEVERITIES
        elif alert.kind not in near:
            misnamed.append(f"{alert.kind} for {' or '.join(sorted(near))}")
            n_group += not _is_of(alert.kind, {GROUP_OF[kind] for kind in near})
    return RunFindings(
        episodes=[_found(episode, hosts, verdicts, told) for episode, hosts in episodes],
        n_findings=len(told),
        false=false,
        misnamed=misnamed,
        n_misnamed_group=n_group,
        n_false_above_low=n_above_low,
    )


def _told(run: RunMatrix, verdicts: Sequence[Verdict]) -> list[_Told]:
    """Every finding of a run as it ended."""
    policy = FindingPolicy(gateway="evaluation", source=run.info.run, burst=NO_BURST)
    by_slice: dict[int, list[Verdict]] = {}
    for verdict in verdicts:
        by_slice.setdefault(verdict.end_ns, []).append(verdict)
    alerts: list[Alert] = []
    ends = np.unique(run.matrix.end_ns).tolist()
    for end_ns in ends:
        alerts += policy.consider(by_slice.get(end_ns, []), end_ns)
        alerts += policy.advance(end_ns)
    if ends:
        alerts += policy.close_all(int(ends[-1]))
    told: dict[str, _Told] = {}
    for alert in alerts:
        each = told.setdefault(alert.uid, _Told(alert))
        each.last = alert
        if each.medium_ns is None and alert.severity not in QUIET_SEVERITIES:
            each.medium_ns = alert.time_ns
    return list(told.values())


def _found(
    episode: Episode, hosts: set[Endpoint], verdicts: Sequence[Verdict], told: Sequence[_Told]
) -> EpisodeFound:
    groups = {GROUP_OF[episode.kind]}
    inside = [
        (v.end_ns, v.kind)
        for v in verdicts
        if _is_of(v.kind, groups)
        and _touches(v.attacker, v.victim, v.subject, hosts)
        and v.end_ns > episode.start_ns
        and v.start_ns <= episode.end_ns + AFTER_NS
    ]
    mine = [
        each
        for each in told
        if _is_of(each.last.kind, groups)
        and _touches(each.last.attacker, each.last.victim, NOBODY, hosts)
        and each.last.last_ns > episode.start_ns
        and each.last.start_ns <= episode.end_ns + AFTER_NS
    ]
    is_found = bool(inside and mine)
    kinds = {each.last.kind for each in mine}
    first_ns = min(inside)[0] if is_found else 0
    medium = [max(first_ns, each.medium_ns) for each in mine if each.medium_ns is not None]
    return EpisodeFound(
        run=episode.run,
        kind=episode.kind,
        variant=episode.variant,
        tool=episode.tool,
        pace=pace_of(episode),
        found=is_found,
        named=episode.kind in kinds and episode.kind in {kind for _, kind in inside},
        seconds=_seconds(first_ns, episode) if is_found else None,
        seconds_medium=_seconds(min(medium), episode) if is_found and medium else None,
    )


def _seconds(end_ns: int, episode: Episode) -> float:
    return (end_ns + GRACE_NS - episode.start_ns) / SLICE_NS


def _is_of(kind: str, groups: set[str]) -> bool:
    """Whether a verdict's or finding's kind speaks for one of the groups."""
    return GROUP_OF.get(kind, ANY_GROUP if kind == "device_anomaly" else "") in {*groups, ANY_GROUP}


def _hosts(episode: Episode) -> set[Endpoint]:
    """Everybody whom a finding about the episode may name."""
    listed = {Endpoint(*host_of(text)) for text in (*episode.attackers, *episode.victims)}
    macs = {Endpoint(MAC_HI, int(mac.replace(":", ""), 16)) for mac in episode.attacker_macs}
    return listed | macs


def _touches(attacker: Endpoint, victim: Endpoint, subject: Endpoint, hosts: set[Endpoint]) -> bool:
    return any(end != NOBODY and end in hosts for end in (attacker, victim, subject))
