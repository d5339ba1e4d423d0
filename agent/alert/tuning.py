"""What people have said about their ward, and what it does to a verdict: nothing, low at most, or not told.

A **suppression** or an **approval** leaves a verdict out; a **role** lowers it (a scanner in its window, what
a DHCP server or a gateway must do) or, of an NMS that asks for hosts that are known, leaves it out. It
never stops a detector, never acts after its expiry or outside its window, and counts each use. A role is
bound to the machine: while frames with its address came from another MAC in the last minute, it is off.

In: verdicts, wall time [ns since the epoch] handed in. Out: an `Effect`. Raises: `ConfigError`.
Remembers: uses by entry, and at most `MAX_SILENCED` silenced pairs (to count findings, not rows).

Source: RFC 2131 3.1 and 4.4.1 (servers and clients probe an address before it is leased); RFC 1812 (a router
resolves each address that somebody asks it for); the alert contract, "Suppression".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Protocol
from zoneinfo import ZoneInfo

from agent.alert.endpoints import is_mac
from agent.alert.suppression import DeviceLookup, Placed, Suppression, Suppressions, place
from agent.alert.techniques import DETECTIONS, Group
from agent.errors import ConfigError
from agent.records import NOBODY, Endpoint, Verdict

SECOND_NS = 10**9
HORIZON_NS = 61 * SECOND_NS
"""How far back a row can reach, its own slice included: an impostor in it may have made the row."""
NMS_STRANGERS = 12
"""As many unknown hosts asked for in a minute make a sweep of anybody (score.rules)."""
MAX_SILENCED = 1024
RULES, BASELINE = "rules", "baseline"
NOVELTY = 3
"""What each kind of novelty adds to the baseline's score (`score.baseline_score`; a test holds the two equal)."""
NOVELTIES = {
    "new_peer_out": "peer",
    "new_peer_in": "peer",
    "new_port_out": "port_out",
    "new_port_in": "port_in",
}
"""The baseline's facts of what is new, by what is counted once; others without a limit are new protocols."""
PORT_FACTS = frozenset({"new_port_out", "new_port_in"})

RECON = frozenset(d.id for d in DETECTIONS.values() if d.group is Group.RECON)
LOWERS: dict[str, frozenset[str]] = {
    "scanner": RECON,
    "nms": frozenset(),
    "dhcp_server": frozenset({"ping_sweep"}),
    "gateway": frozenset({"ping_sweep", "arp_spoofing"}),
}
"""By role, the kinds that are low at most when such a machine does it."""


class Effect(IntEnum):
    """What the site's people want of a verdict."""

    TELL = 0
    LOWER = 1
    """Told, but as `low` at most."""
    SILENCE = 2
    """Counted, not told."""


class Talks(Protocol):
    """One host's conversations in one slice."""

    @property
    def top(self) -> Mapping[str, Endpoint]:
        """The peer of the most packets, `out` (to it) and `in` (from it)."""
        ...

    @property
    def rows(self) -> Sequence[tuple[str, Endpoint, int, int]]:
        """Distinct (way, peer, the host's own port, the peer's port)."""
        ...


class Witness(Protocol):
    """What the wire says about the machines that have a role."""

    def impostor(self, address: Endpoint, start_ns: int, end_ns: int) -> bool:
        """Whether frames of `address` came from a MAC that is not its own, in that event time."""
        ...

    def strangers(self, address: Endpoint, start_ns: int, end_ns: int) -> int:
        """How many hosts `address` asked for that nobody knows, in that event time."""
        ...

    def talks(self, host: Endpoint, end_ns: int) -> Talks | None:
        """With whom a host spoke in a slice; None where not all of it is known."""
        ...


class NoWitness:
    """Nothing is seen: nothing contradicts."""

    def impostor(self, address: Endpoint, start_ns: int, end_ns: int) -> bool:  # noqa: ARG002 -- as `Witness`
        """Nobody was seen."""
        return False

    def strangers(self, address: Endpoint, start_ns: int, end_ns: int) -> int:  # noqa: ARG002 -- as `Witness`
        """Nobody was seen."""
        return 0

    def talks(self, host: Endpoint, end_ns: int) -> Talks | None:  # noqa: ARG002 -- as `Witness`
        """Nothing was seen."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """When something may happen: each of its bounds holds. Days and hours are of its zone."""

    name: str
    zone: ZoneInfo
    days: frozenset[int] = frozenset()
    """0 Monday to 6 Sunday, on which it begins; empty: each."""
    hours_s: tuple[int, int] | None = None
    """Seconds of the day, from and to (to may be the smaller one: into the next day); None: all day."""
    starts_s: int | None = None
    ends_s: int | None = None

    def holds(self, wall_s: int) -> bool:
        """Whether `wall_s` (seconds since the epoch) is inside."""
        if self.starts_s is not None and wall_s < self.starts_s:
            return False
        if self.ends_s is not None and wall_s >= self.ends_s:
            return False
        local = datetime.fromtimestamp(wall_s, self.zone)
        today, yesterday = local.weekday(), (local - timedelta(days=1)).weekday()
        if self.hours_s is None:
            return self._begins(today)
        second = local.hour * 3600 + local.minute * 60 + local.second
        begin, end = self.hours_s
        if begin < end:
            return self._begins(today) and begin <= second < end
        return (self._begins(today) and second >= begin) or (
            self._begins(yesterday) and second < end
        )

    def _begins(self, day: int) -> bool:
        return not self.days or day in self.days


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A machine that is there to do what looks bad."""

    name: str
    role: str
    address: Endpoint
    macs: frozenset[int] = frozenset()
    """Empty: not known; then whoever has the address has the role."""
    window: str | None = None
    expires_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A peer, or ports, that are fine for a device: no anomaly."""

    name: str
    device: str
    peer: str = "*"
    ports: frozenset[int] = frozenset()
    expires_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Everything that people have said, checked."""

    suppressions: tuple[Suppression, ...] = ()
    windows: tuple[Window, ...] = ()
    roles: tuple[Role, ...] = ()
    approvals: tuple[Approval, ...] = ()


@dataclass(slots=True)
class Use:
    """How often one entry was used."""

    verdicts: int = 0
    findings: int = 0
    """Told apart by kind, hosts and quiet time, as findings are."""
    last_ns: int = 0
    """Wall time of the latest."""


@dataclass(slots=True)
class _Compiled:
    """`Rules`, ready to be asked."""

    suppressions: Suppressions
    windows: Mapping[str, Window]
    roles: tuple[Role, ...]
    approvals: tuple[tuple[Approval, Placed, Placed | None], ...]
    uses: dict[tuple[str, str], Use] = field(default_factory=dict)


class Tuning:
    """The decisions of a site, for one source's policy."""

    def __init__(
        self,
        rules: Rules,
        *,
        device_of: DeviceLookup,
        witness: Witness | None = None,
        quiet_ns: int = 120 * SECOND_NS,
    ) -> None:
        self._device_of = device_of
        self._witness = witness or NoWitness()
        self._quiet_ns = quiet_ns
        self._silenced: OrderedDict[tuple[object, ...], int] = OrderedDict()
        self._now = self._compiled(rules, {})

    def replace(self, rules: Rules) -> None:
        """From now on these; what an entry that stays was used for stays counted."""
        self._now = self._compiled(rules, self._now.uses)

    def judge(self, verdict: Verdict, *, wall_ns: int) -> tuple[Effect, str]:
        """What to do with a verdict at that wall time, and the name of the entry that says so."""
        now, wall_s = self._now, wall_ns // SECOND_NS
        row = now.suppressions.matching(verdict, wall_s, lambda name: self._inside(name, wall_s))
        if row is not None:
            if row.window is not None:
                self._use("window", row.window, verdict, wall_ns)
            return self._use("suppress", row.name, verdict, wall_ns, Effect.SILENCE)
        for approval, device, peer in now.approvals:
            if _lives(approval.expires_s, wall_s) and self._approves(
                approval, device, peer, verdict
            ):
                return self._use("approve", approval.name, verdict, wall_ns, Effect.SILENCE)
        for role in now.roles:
            effect = self._effect(role, verdict, wall_s)
            if effect is not Effect.TELL:
                if role.window is not None:
                    self._use("window", role.window, verdict, wall_ns)
                return self._use("role", role.name, verdict, wall_ns, effect)
        return Effect.TELL, ""

    def uses(self) -> Mapping[tuple[str, str], Use]:
        """By table (`suppress`, `window`, `role`, `approve`) and name."""
        return dict(self._now.uses)

    def _compiled(self, rules: Rules, uses: Mapping[tuple[str, str], Use]) -> _Compiled:
        approvals = tuple(
            (row, place(row.device), place(row.peer) if row.peer != "*" else None)
            for row in rules.approvals
        )
        compiled = _Compiled(
            Suppressions(rules.suppressions, device_of=self._device_of),
            {row.name: row for row in rules.windows},
            rules.roles,
            approvals,
        )
        sections: tuple[tuple[str, Sequence[Suppression | Window | Role | Approval]], ...] = (
            ("suppress", rules.suppressions),
            ("window", rules.windows),
            ("role", rules.roles),
            ("approve", rules.approvals),
        )
        for section, rows in sections:
            for row in rows:
                key = section, row.name
                if key in compiled.uses:
                    raise ConfigError(f"{section}[{row.name}].name", "is used twice")
                compiled.uses[key] = uses.get(key, Use())
        return compiled

    def _inside(self, window: str | None, wall_s: int) -> bool:
        if window is None:
            return True
        row = self._now.windows.get(window)
        return row is not None and row.holds(wall_s)

    def _effect(self, role: Role, verdict: Verdict, wall_s: int) -> Effect:
        lowers = LOWERS[role.role]
        if not _lives(role.expires_s, wall_s) or not self._inside(role.window, wall_s):
            return Effect.TELL
        since_ns = verdict.end_ns - HORIZON_NS
        if role.role == "nms":
            if verdict.kind != "ping_sweep" or not self._is(role, verdict.attacker, verdict):
                return Effect.TELL
            n = self._witness.strangers(role.address, since_ns, verdict.end_ns)
            return Effect.SILENCE if n < NMS_STRANGERS else Effect.TELL
        if verdict.kind not in lowers:
            return Effect.TELL
        # What a model says of a scan's targets is mostly their answers to it.
        mirrored = role.role == "scanner" and verdict.detector != RULES
        acts = self._is(role, verdict.attacker, verdict)
        if acts or (mirrored and self._is(role, verdict.victim, verdict)):
            return Effect.LOWER
        return Effect.TELL

    def _is(self, role: Role, host: Endpoint, verdict: Verdict) -> bool:
        """Whether `host` is the machine that has the role, and nobody else was it in that minute."""
        if host == NOBODY:
            return False
        if is_mac(host):
            return host.lo in role.macs
        return host == role.address and not (
            role.macs and self._witness.impostor(host, verdict.end_ns - HORIZON_NS, verdict.end_ns)
        )

    def _approves(
        self, approval: Approval, device: Placed, peer: Placed | None, verdict: Verdict
    ) -> bool:
        """Whether the device would not be unusual, were this peer and these ports not new to it.

        What they add to the score is taken off; a rate that is out of its range by itself is still told.
        """
        if verdict.detector != BASELINE or not device.holds(verdict.subject, self._device_of):
            return False
        talks = self._witness.talks(verdict.subject, verdict.end_ns)
        if talks is None:
            return False

        def fine(feature: str) -> bool:
            way = _way(feature)
            if feature in PORT_FACTS:  # the first of the ports is the one sent to, if both are new
                port = verdict.ports[0 if way == "out" else -1] if verdict.ports else -1
                hosts = {
                    p
                    for w, p, own, its in talks.rows
                    if w == way and port == (its if way == "out" else own)
                }
                ports_fine = not approval.ports or port in approval.ports
            else:
                hosts = {talks.top.get(way, NOBODY)}
                ports_fine = not approval.ports or all(
                    approval.ports & {own, its} for _, p, own, its in talks.rows if p in hosts
                )
            with_whom = peer is None or (
                bool(hosts) and all(peer.holds(h, self._device_of) for h in hosts)
            )
            return with_whom and ports_fine

        news: dict[str, bool] = {}
        for fact in verdict.facts:
            if fact.limit is None:
                group = NOVELTIES.get(fact.feature, "protocol")
                news[group] = news.get(group, True) and fine(fact.feature)
        return verdict.margin - NOVELTY * sum(news.values()) < verdict.threshold

    def _use(
        self, section: str, name: str, verdict: Verdict, wall_ns: int, effect: Effect = Effect.TELL
    ) -> tuple[Effect, str]:
        use = self._now.uses[section, name]
        use.verdicts += 1
        use.last_ns = max(use.last_ns, wall_ns)
        key = (section, name, verdict.kind, verdict.attacker, verdict.victim)
        last_ns = self._silenced.pop(key, None)
        if last_ns is None or verdict.start_ns - last_ns > self._quiet_ns:
            use.findings += 1
        self._silenced[key] = verdict.end_ns
        if len(self._silenced) > MAX_SILENCED:
            self._silenced.popitem(last=False)
        return effect, name


def _lives(expires_s: int | None, wall_s: int) -> bool:
    return expires_s is None or wall_s < expires_s


def _way(feature: str) -> str:
    """Whether a fact is about what a device sends or gets: `out` or `in`."""
    return "in" if feature.startswith("in_") or feature.endswith("_in") else "out"
